// Package crash has crid die, fail or lose its client at every step of every call that changes something, and looks whether the truth is told
// afterwards, nothing is left behind and the same names can be used at once.
//
// The steps are crid's failpoints (package failpoint), so the daemon is bin/crid-failpoints; a few are gone through once more by the normal
// program under strace. Which run is which: see points_test.go. `make faults` makes them all, `make test` a tenth, another one each day:
//
//	CRID_FAULTS=all        all of them
//	CRID_FAULTS_SEED=n     another tenth than today's
//	go test -tags e2e ./e2e/faults/crash -run 'TestCrashPoints/.*/p4/K$'
package crash
