package stdio

import (
	"context"

	"github.com/crid-project/crid/shimclient"
)

// Execer runs further processes in a task: what exec needs of shimclient.Tasks. WaitExec may take as long as the process
// runs, and answers also after it has ended; every other call ends when its context does.
type Execer interface {
	Exec(ctx context.Context, spec shimclient.ExecSpec) error
	StartExec(ctx context.Context, id, execID string) (pid int, err error)
	WaitExec(ctx context.Context, id, execID string) (shimclient.Exit, error)
	KillExec(ctx context.Context, id, execID string, signal uint32) error
	DeleteExec(ctx context.Context, id, execID string) (shimclient.Exit, error)
	Task
}

// Task is what attach needs of shimclient.Tasks. An empty execID means the task's first process.
type Task interface {
	ResizePty(ctx context.Context, id, execID string, width, height uint32) error
	CloseStdin(ctx context.Context, id, execID string) error
}

var _ Execer = shimclient.Tasks(nil)
