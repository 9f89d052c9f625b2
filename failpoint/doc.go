// Package failpoint gives names to the moments between two steps of the daemon's work, so that a test can have it die, fail or wait at
// exactly one of them. The names are those of the crash-point tests (package e2e/faults/crash): "p4" is the fourth moment of RunPodSandbox.
//
// In a normal build [At] and [Pass] are empty and inlined: nothing of a point, not even its name, is in the program
// (the crash-point tests look). Built with the tag `failpoints` a point looks into the folder that CRID_FAILPOINTS names:
//
//	<name>          its first line is what to do the next time the point is passed; then the file becomes <name>.reached
//	<name>.reached  the point was passed and did what it was told. Who armed a point and does not find this has tested nothing
//	<name>.release  ends a hang, and is gone when it has
//	passed          every point passed, a name a line, if the file exists
//
//	kill            SIGKILL to the daemon itself
//	error           the step fails with [ErrInjected]; a point without an error to give ([Pass]) goes on
//	hang            waits for <name>.release, five minutes at most, whatever becomes of the caller
//	sleep 500ms     waits that long
//	count           only leaves <name>.reached
//
// It refuses to know what any point stands for. A point acts once each time it is armed: a daemon that starts again after a kill does not die at
// it again.
package failpoint
