package shimclient

import (
	"context"
	"time"

	oci "github.com/opencontainers/runtime-spec/specs-go"
)

// Tasks is what can be asked of a shim. *Shim does it with a real one; package
// fake has one without processes.
//
// Every call ends at its context's deadline, or after 10 s without one (Wait
// and WaitExec have no deadline of their own). Errors are errdefs.ErrNotFound
// and its like if the shim said so, ErrUnreachable if it said nothing, ErrGone
// if it is dead. After ErrUnreachable a call may still take effect later.
type Tasks interface {
	Ref() Ref
	Gone() <-chan struct{}
	Close() error

	// Create makes a container from its bundle and returns the pid of its init,
	// which waits for Start. After any error but AlreadyExists remains may be
	// there (a runc init, a cgroup) that the shim denies: use Host.DeleteTask.
	Create(context.Context, Create) (pid int, err error)
	// Start lets the container's process run. A second Start is
	// errdefs.ErrFailedPrecondition.
	Start(ctx context.Context, id string) (pid int, err error)
	// Kill sends a signal to the init, or to all processes of the container.
	// errdefs.ErrNotFound is no proof of death: the shim says so also if the
	// runtime has lost its own state of a living container.
	Kill(ctx context.Context, id string, signal uint32, all bool) error
	// Delete removes a stopped container and says how it ended. A running one is
	// errdefs.ErrFailedPrecondition. If the deadline comes first the shim goes
	// on, and a repetition is errdefs.ErrNotFound.
	Delete(ctx context.Context, id string) (Exit, error)
	// State may hang behind a runtime command that hangs.
	State(ctx context.Context, id string) (State, error)
	// Wait returns when the container has stopped, at once if it has already, for
	// as long as it is not deleted. It waits without a deadline of its own. Given
	// up waits stay open inside the shim: ask once and not in a loop.
	Wait(ctx context.Context, id string) (Exit, error)

	// Exec adds a process to a running container; StartExec lets it run.
	Exec(context.Context, ExecSpec) error
	StartExec(ctx context.Context, id, execID string) (pid int, err error)
	KillExec(ctx context.Context, id, execID string, signal uint32) error
	DeleteExec(ctx context.Context, id, execID string) (Exit, error)
	WaitExec(ctx context.Context, id, execID string) (Exit, error)
	StateExec(ctx context.Context, id, execID string) (State, error)
	// ResizePty and CloseStdin are for the init if execID is empty.
	ResizePty(ctx context.Context, id, execID string, width, height uint32) error
	CloseStdin(ctx context.Context, id, execID string) error

	// Update changes the limits of a running container.
	Update(ctx context.Context, id string, resources *oci.LinuxResources, annotations map[string]string) error
	Pause(ctx context.Context, id string) error
	Resume(ctx context.Context, id string) error
	// Pids lists all processes of the container's cgroup.
	Pids(ctx context.Context, id string) ([]int, error)
	// Connect tells the pids of shim and init. An unknown id is no error: its
	// TaskPid is 0.
	Connect(ctx context.Context, id string) (ConnectInfo, error)
	// Shutdown ends the shim and waits for it; see Shim.Shutdown.
	Shutdown(context.Context) error
}

var _ Tasks = (*Shim)(nil)

// Create says which container to make.
type Create struct {
	ID     string
	Bundle string
	// Stdin, Stdout and Stderr are paths of fifos, each empty if there is none.
	// Somebody must have the output fifos open for reading, or the shim waits 30 s
	// and leaves remains. Stderr is not used with a Terminal.
	Stdin, Stdout, Stderr string
	Terminal              bool
	// Rootfs is mounted by the shim on Bundle/rootfs; nothing if empty.
	Rootfs  []Mount
	Runtime Runtime
}

// Mount is one mount as for mount(8).
type Mount struct {
	Type, Source, Target string
	Options              []string
}

// ExecSpec says which process to add to a container.
type ExecSpec struct {
	ID, ExecID            string
	Stdin, Stdout, Stderr string
	Terminal              bool
	Process               *oci.Process
}

// Exit is how a process ended, by the shim's word.
type Exit struct {
	Pid  int
	Code int       // exit code, 128 plus the signal's number if one ended it
	At   time.Time // when the shim noticed, which may be later than the death
}

// Status is the phase of a process, as its shim sees it.
type Status int

// The phases of the task API. Unknown is everything that a newer shim may say.
const (
	StatusUnknown Status = iota
	StatusCreated
	StatusRunning
	StatusStopped
	StatusPaused
	StatusPausing
)

var statusNames = [...]string{"unknown", "created", "running", "stopped", "paused", "pausing"}

// String is for logs.
func (s Status) String() string {
	if s < 0 || int(s) >= len(statusNames) {
		return statusNames[StatusUnknown]
	}
	return statusNames[s]
}

// State is a process as its shim sees it.
type State struct {
	Pid      int
	Status   Status
	ExitCode int       // of a stopped process
	ExitedAt time.Time // zero unless stopped
}

// ConnectInfo tells pids, in the daemon's pid namespace.
type ConnectInfo struct {
	ShimPid int
	TaskPid int // 0 if the shim does not know the task
}
