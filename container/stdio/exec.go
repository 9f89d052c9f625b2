package stdio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/failpoint"
	"github.com/crid-project/crid/shimclient"
)

const (
	// startTimeout bounds making and starting the process in the shim; on a machine in a storm of execs that takes seconds.
	startTimeout = time.Minute
	// killTimeout bounds each step of ending a process that was timed out or given up.
	killTimeout = 5 * time.Second
	// deadTimeout is how long a caller whose time is up waits to see the killed process dead.
	deadTimeout = 2 * time.Second
	// deleteTimeout bounds the shim's delete, which itself waits 10 s for a pipe that a background child keeps open.
	deleteTimeout = 30 * time.Second
	// finishTimeout bounds the tries to be rid of an exec; what is left then is told to whoever asked for it.
	finishTimeout = 90 * time.Second
	// closeStdinTimeout bounds telling the shim about the client's EOF.
	closeStdinTimeout = 10 * time.Second
)

// Exec runs proc in task id and returns its exit code (128 + signal if a signal ended it, as the shim reports it). Its
// pipes are made in a directory of its own below dir, which must not be reachable for others; the directory is gone soon
// after the return.
//
// Exec returns when the process has ended and its output is delivered. If a child in the background keeps the output open,
// it is waited for drainPatience and no longer; the child lives on. When req.Timeout passes, or ctx ends because the client
// left, the process gets SIGKILL and the error matches context.DeadlineExceeded or context.Canceled; exit codes come with
// a nil error only. Deleting the exec in the shim goes on in the background, bounded, whatever happens to ctx.
func Exec(ctx context.Context, shim Execer, id string, proc *oci.Process, dir string, req ExecRequest) (code int, err error) {
	run, cancel := ctx, context.CancelFunc(func() {})
	if req.Timeout > 0 {
		run, cancel = context.WithTimeout(ctx, req.Timeout)
	}
	defer cancel()
	if err := context.Cause(run); err != nil {
		return 0, fmt.Errorf("exec in container %s: not begun: %w", id, err)
	}
	x := &execution{shim: shim, id: id, execID: newExecID(), req: &req}
	if x.pipes, err = makePipes(dir, x.execID, &req); err != nil {
		return 0, fmt.Errorf("exec in container %s: make its pipes: %w", id, err)
	}
	code, err = x.run(run, proc)
	if err != nil && run.Err() != nil {
		err = x.abandoned(ctx, err)
	}
	return code, err
}

// execution is one exec on its way.
type execution struct {
	shim       Execer
	id, execID string
	req        *ExecRequest
	pipes      *pipes
	outputs    []*output
	stdin      *input
	started    bool // the shim has said so
}

func (x *execution) run(ctx context.Context, proc *oci.Process) (int, error) {
	if made, err := x.start(ctx, proc); err != nil {
		if made {
			x.finish(ctx, true)
		} else {
			x.pipes.close()
			x.pipes.remove()
		}
		return 0, err
	}
	drained := x.copyOutput()
	side, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	x.copyInput(side)
	x.followSizes(side)

	exit, err := x.shim.WaitExec(ctx, x.id, x.execID)
	if err == nil {
		err = failpoint.At("e4")
	}
	if x.stdin != nil {
		x.stdin.close()
		defer closeReader(x.req.Stdin)
	}
	if err != nil {
		dead := ctx.Err() != nil && x.kill(ctx)
		x.finish(ctx, !dead)
		return 0, fmt.Errorf("wait for exec %s in container %s: %w", x.execID, x.id, err)
	}
	for _, o := range x.outputs {
		o.exited()
	}
	select {
	case <-drained:
	case <-ctx.Done(): // the process ended in time, so its code counts; only a client that does not read is let down
	}
	x.finish(ctx, false)
	return exit.Code, nil
}

// start makes and starts the process. The shim is not given the caller's deadline: it would kill the OCI runtime half-way
// and leave a process that nobody knows. The caller stops waiting when its own time is up, and the shim finishes in peace.
// made tells whether the shim may know the exec.
func (x *execution) start(ctx context.Context, proc *oci.Process) (made bool, err error) {
	if x.req.Enter != nil {
		leave, err := x.req.Enter(ctx)
		if err != nil {
			return false, fmt.Errorf("wait for execs of others to start: %w", err)
		}
		defer leave()
	}
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	err = x.shim.Exec(call, shimclient.ExecSpec{
		ID: x.id, ExecID: x.execID,
		Stdin: x.pipes.stdin, Stdout: x.pipes.stdout, Stderr: x.pipes.stderr,
		Terminal: x.req.TTY, Process: proc,
	})
	if err != nil {
		// A refusal is an answer; anything that is not may still take effect.
		refused := errdefs.IsNotFound(err) || errdefs.IsAlreadyExists(err) || errdefs.IsInvalidArgument(err) || errdefs.IsFailedPrecondition(err)
		return !refused, fmt.Errorf("make exec in container %s: %w", x.id, err)
	}
	if err := failpoint.At("e1"); err != nil {
		return true, err
	}
	if _, err = x.shim.StartExec(call, x.id, x.execID); err != nil {
		return true, fmt.Errorf("start exec in container %s: %w", x.id, err)
	}
	x.started = true
	return true, failpoint.At("e2")
}

// copyOutput starts the copies; the channel closes when all have ended. Only now, after the start, have the pipes writers:
// read earlier, they would look finished.
func (x *execution) copyOutput() <-chan struct{} {
	drained := make(chan struct{})
	if x.pipes.out != nil {
		x.outputs = append(x.outputs, newOutput(x.pipes.out, x.req.Stdout))
	}
	if x.pipes.err != nil {
		x.outputs = append(x.outputs, newOutput(x.pipes.err, x.req.Stderr))
	}
	var left atomic.Int32
	left.Store(int32(len(x.outputs)))
	for _, o := range x.outputs {
		go func() {
			more := o.copy()
			if left.Add(-1) == 0 {
				close(drained)
			}
			if more {
				o.discard()
			}
		}()
	}
	if len(x.outputs) == 0 {
		close(drained)
	}
	return drained
}

func (x *execution) copyInput(ctx context.Context) {
	if x.req.Stdin == nil {
		return
	}
	x.stdin = newInput(x.req.Stdin, x.pipes.stdin)
	go func() {
		err := x.stdin.copy()
		// A terminal has no end of input: the shim would hang the process up.
		if err != nil || x.req.TTY {
			return
		}
		call, cancel := context.WithTimeout(ctx, closeStdinTimeout)
		defer cancel()
		// The shim holds the pipe open too, against our own restarts, until it is told.
		_ = x.shim.CloseStdin(call, x.id, x.execID) // fails only if the process has ended
		x.stdin.close()
	}()
}

func (x *execution) followSizes(ctx context.Context) {
	if !x.req.TTY || x.req.Resize == nil {
		return
	}
	go followSizes(ctx, x.req.Resize, func(ctx context.Context, s Size) error {
		return x.shim.ResizePty(ctx, x.id, x.execID, uint32(s.Width), uint32(s.Height))
	})
}

// kill ends the process and waits a moment to see it dead, so that a caller told of a timeout finds no process left. It
// reports whether the process is known to be dead.
func (x *execution) kill(ctx context.Context) bool {
	ctx = context.WithoutCancel(ctx)
	call, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	if err := x.shim.KillExec(call, x.id, x.execID, uint32(unix.SIGKILL)); err != nil {
		return errdefs.IsNotFound(err)
	}
	wait, cancelWait := context.WithTimeout(ctx, deadTimeout)
	defer cancelWait()
	_, err := x.shim.WaitExec(wait, x.id, x.execID)
	return err == nil
}

// finish deletes the exec in the shim, closes the pipes and removes the directory, in the background and detached from the
// caller. alive says that the process may still run, or that a start we gave up on may yet take effect: then it is killed
// first, if need be again and again for finishTimeout.
//
// The pipes stay open, and are read if they were, until the shim has forgotten the exec: in the middle of a start a shim
// that finds them gone fails, and forgets the process that it has already made; and a copy of the shim's that blocks on a
// full pipe, fed by a background child, would block for ever.
func (x *execution) finish(ctx context.Context, alive bool) {
	ctx = context.WithoutCancel(ctx)
	for _, o := range x.outputs {
		o.silence()
	}
	go func() {
		gone := x.end(ctx, alive)
		x.pipes.close()
		if !gone && x.req.Left != nil {
			x.req.Left(x.execID)
			return
		}
		x.pipes.remove()
	}()
}

// end reports whether the exec needs no more care: its process is dead, or goes with its shim. That the shim has not
// forgotten it is no harm then, unless a start is still under way in it: who is not to be found now can come yet.
func (x *execution) end(ctx context.Context, alive bool) bool {
	end := time.Now().Add(finishTimeout)
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		if alive && x.kill(ctx) && x.started {
			alive = false
		}
		forgotten, silent := x.deleteOnce(ctx)
		done := forgotten || !alive
		if done && (forgotten || silent) || time.Now().After(end) {
			return done
		}
		time.Sleep(pause)
	}
}

// deleteOnce reports whether the shim has forgotten the exec or is gone itself, and else whether it gave no answer at all.
func (x *execution) deleteOnce(ctx context.Context) (forgotten, silent bool) {
	call, cancel := context.WithTimeout(ctx, deleteTimeout)
	defer cancel()
	_, err := x.shim.DeleteExec(call, x.id, x.execID)
	failpoint.Pass("e5")
	return err == nil || errdefs.IsNotFound(err) || errors.Is(err, shimclient.ErrGone) || errors.Is(err, shimclient.ErrClosed), call.Err() != nil
}

// abandoned names why an exec was given up: its own timeout or the caller's end.
func (x *execution) abandoned(caller context.Context, err error) error {
	if caller.Err() == nil {
		return fmt.Errorf("exec in container %s: timed out after %v, process killed: %w", x.id, x.req.Timeout, context.DeadlineExceeded)
	}
	if errors.Is(err, caller.Err()) {
		return fmt.Errorf("exec in container %s: caller left, process killed: %w", x.id, caller.Err())
	}
	return fmt.Errorf("exec in container %s: caller left, process killed: %w (%w)", x.id, caller.Err(), err)
}

func closeReader(r io.Reader) {
	if c, ok := r.(io.Closer); ok {
		_ = c.Close() // only to end a Read
	}
}
