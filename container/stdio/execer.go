package stdio

import (
	"context"

	oci "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// ExecSpec describes an exec to the shim: a further process of task ID, called ExecID, with the paths of its streams.
type ExecSpec struct {
	ID, ExecID            string
	Stdin, Stdout, Stderr string
	Terminal              bool
	Process               *oci.Process
}

// Execer runs further processes in a task; a shim does. Every call must end when its context does, and errors are typed as
// in package errdefs. WaitExec alone may take as long as the process runs, and answers also after it has ended.
type Execer interface {
	Exec(ctx context.Context, spec ExecSpec) error
	StartExec(ctx context.Context, id, execID string) (pid int, err error)
	WaitExec(ctx context.Context, id, execID string) (code int, err error)
	KillExec(ctx context.Context, id, execID string, signal unix.Signal) error
	DeleteExec(ctx context.Context, id, execID string) error
	Task
}

// Task is what attach needs of a running task. An empty execID means the task's first process.
type Task interface {
	ResizePty(ctx context.Context, id, execID string, width, height uint32) error
	CloseStdin(ctx context.Context, id, execID string) error
}
