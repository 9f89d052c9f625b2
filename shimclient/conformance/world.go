package conformance

import (
	"context"
	"testing"
	"time"

	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/pidfd"
	"golang.org/x/sys/unix"
)

// World is where a suite takes place. What a function that is returned undoes is
// undone at the end of the test as well.
type World interface {
	// Shims launches, finds and kills shims.
	Shims() shimclient.Shims
	// Pod makes the bundle of a shim for the group id and says how to launch it.
	Pod(t testing.TB, id string) shimclient.Launch
	// Launch starts a shim for the group id.
	Launch(t *testing.T, id string) shimclient.Tasks
	// Adopt connects anew to the shim that ref names, as a restarted daemon does.
	Adopt(ctx context.Context, ref shimclient.Ref) (shimclient.Tasks, error)
	// Container describes a container of the group that runs the program args:
	// "sleep", "stubborn", "exit N", "echo TEXT" or "cat".
	Container(t *testing.T, group, id string, args ...string) shimclient.Create
	// Shared is Container, with the process namespace of the world itself.
	Shared(t *testing.T, group, id string, args ...string) shimclient.Create
	// Stuck is Container, or Shared, in which the program "read /hung" hangs in the kernel,
	// where no signal reaches it, until it is let go. Ask whether it hangs once it
	// has been started.
	Stuck(t *testing.T, group, id string, shared bool, args ...string) (c shimclient.Create, hangs func(pid int) bool, let func())
	// Orphan makes a container that its runtime knows and its shim does not: the
	// create failed when all was done. It returns the container's process.
	Orphan(t *testing.T, s shimclient.Tasks, c shimclient.Create) int
	// Signal sends a signal to a process from outside, bypassing the shim. SIGKILL,
	// SIGSTOP and SIGCONT work on shims and inits alike.
	Signal(t *testing.T, pid int, sig unix.Signal)
	// Alive is the kernel's word.
	Alive(pid int) bool
	// Ready tells whether the program "sleep" or "stubborn" heeds signals by now.
	Ready(pid int) bool
	// Identify and Open are those of package pidfd.
	Identify(pid int) (pidfd.Process, error)
	Open(p pidfd.Process) (Handle, error)
	// Freeze freezes a container's cgroup from outside, or thaws it.
	Freeze(t *testing.T, id string, frozen bool)
	// Uproot puts the container's processes into other cgroups and removes its own.
	Uproot(t *testing.T, id string)
	// DeleteTask is the delete command of a shim, for dead ones.
	DeleteTask(ctx context.Context, c shimclient.Create) error
	// ForgetRuntimeState makes the OCI runtime lose its state of a container.
	ForgetRuntimeState(t *testing.T, id string)
	// Slow makes the next runtime command of a name ("create", "kill", "delete")
	// for a container wait so long before it does anything.
	Slow(t *testing.T, command, id string, d time.Duration)
	// Jam has a runtime command hang for a running container of s until it is
	// released or killed.
	Jam(t *testing.T, s shimclient.Tasks, id string) (release func())
	// RemoveBundle removes the files of a container that was never created.
	RemoveBundle(c shimclient.Create) error
	// Events are those that shims published.
	Events() <-chan shimclient.Event
	// Deaf ends whoever takes events from shims, as the end of a daemon does, until
	// hear is called.
	Deaf(t *testing.T) (hear func())
	// Reboot leaves what the switching off and on of a machine leaves.
	Reboot(t *testing.T)
}

// Handle is one open process, as pidfd.Handle.
type Handle interface {
	Exited() bool
	Status() (pidfd.Status, bool)
	Signal(sig unix.Signal) error
	Close() error
}
