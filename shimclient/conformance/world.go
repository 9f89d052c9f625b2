package conformance

import (
	"context"
	"testing"

	"github.com/crid-project/crid/shimclient"
	"golang.org/x/sys/unix"
)

// World is where a suite takes place.
type World interface {
	// Launch starts a shim for the group id.
	Launch(t *testing.T, id string) shimclient.Tasks
	// Adopt connects anew to the shim that ref names, as a restarted daemon does.
	Adopt(ctx context.Context, ref shimclient.Ref) (shimclient.Tasks, error)
	// Container describes a container of the group that runs the program args:
	// "sleep", "stubborn", "exit N", "echo TEXT" or "cat".
	Container(t *testing.T, group, id string, args ...string) shimclient.Create
	// Signal sends a signal to a process from outside, bypassing the shim. SIGKILL,
	// SIGSTOP and SIGCONT work on shims and inits alike.
	Signal(t *testing.T, pid int, sig unix.Signal)
	// Alive is the kernel's word.
	Alive(pid int) bool
	// DeleteTask is the delete command of a shim, for dead ones.
	DeleteTask(ctx context.Context, c shimclient.Create) error
	// ForgetRuntimeState makes the OCI runtime lose its state of a container.
	ForgetRuntimeState(t *testing.T, id string)
	// Events are those that shims published.
	Events() <-chan shimclient.Event
}
