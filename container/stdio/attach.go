package stdio

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// Output is where a container's output can be followed: the log's fan-out. The writers get what comes from now on, either
// may be nil; done closes when the container's output has ended and all of it was handed over. cancel ends the
// subscription, never blocks for long, and may be called more than once.
type Output interface {
	Subscribe(stdout, stderr io.Writer) (cancel func(), done <-chan struct{})
}

// Attach connects a client to the running container id until the container's output ends, the client's connection fails,
// ctx ends (an error that matches ctx.Err), or, as is customary, the client's own input ends while the container's stdin
// stays open for others. With stdin_once the end of the client's input is the container's EOF instead, and output goes on.
//
// in is nil for a container without stdin: the client's input is then read and discarded. req.Stdin is closed at the
// return if it is an io.Closer; otherwise a blocked Read is the caller's to end.
func Attach(ctx context.Context, task Task, id string, out Output, in *Stdin, req AttachRequest) error {
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	defer closeReader(req.Stdin)

	stdout, stderr := watch(ctx, req.Stdout, leave), watch(ctx, req.Stderr, leave)
	if req.TTY {
		stderr = nil
	}
	cancel, done := out.Subscribe(stdout, stderr)
	defer cancel()
	if req.TTY && req.Resize != nil {
		go followSizes(ctx, req.Resize, func(ctx context.Context, s Size) error {
			return task.ResizePty(ctx, id, "", uint32(s.Width), uint32(s.Height))
		})
	}
	if req.Stdin != nil {
		go feedContainer(ctx, leave, task, id, in, req.Stdin)
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errDetached):
		return nil
	default:
		return fmt.Errorf("attach to container %s: client left: %w", id, cause)
	}
}

// errDetached is an attach that ended as the client wished.
var errDetached = errors.New("client detached")

// feedContainer takes the client's input to its end and then does what the end means.
func feedContainer(ctx context.Context, leave context.CancelCauseFunc, task Task, id string, in *Stdin, from io.Reader) {
	err := ErrStdinClosed
	if in != nil {
		err = in.feed(ctx, from)
	}
	if errors.Is(err, ErrStdinClosed) {
		// Nobody listens (any more); the client still wants to see, and leaves when it leaves.
		_, _ = io.Copy(io.Discard, onlyReader{from})
		return
	}
	if in.endsWithAttach() {
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeStdinTimeout)
		defer cancel()
		// Both, in this order: the shim holds a write end of its own, and the last to close makes the EOF.
		_ = task.CloseStdin(call, id, "") // fails only if the task has ended
		in.Close()
		return
	}
	if err == nil {
		err = errDetached
	}
	leave(err)
}

// watch reports a failing Write to leave: the client has gone. Once ctx ends it fails by itself.
func watch(ctx context.Context, w io.Writer, leave context.CancelCauseFunc) io.Writer {
	if w == nil {
		return nil
	}
	return &watched{ctx: ctx, to: w, leave: leave}
}

type watched struct {
	ctx   context.Context
	to    io.Writer
	leave context.CancelCauseFunc // the first cause counts
}

func (w *watched) Write(p []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	n, err := w.to.Write(p)
	if err != nil {
		w.leave(fmt.Errorf("write output: %w", err))
	}
	return n, err
}
