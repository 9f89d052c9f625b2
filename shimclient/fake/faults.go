package fake

import (
	"context"
	"fmt"
	"time"

	"github.com/crid-project/crid/shimclient"
)

// Call is one RPC that is about to be made.
type Call struct {
	Shim, Method, ID, ExecID string
}

// Fault is what befalls a call. The zero Fault is none.
type Fault struct {
	// Delay comes before the effect. The caller's deadline ends the waiting.
	Delay time.Duration
	// Hang never answers: ErrUnreachable at the deadline. The effect takes place
	// all the same if After is set.
	Hang bool
	// Late never answers in time either, and takes effect so much later, whether
	// anybody still waits or not: the request lies in a socket of a slow shim.
	Late time.Duration
	// Outlives is a late call that not even the end of its connection cancels: the
	// OCI runtime has it already, and goes on while its shim hangs and after it.
	Outlives bool
	// Err is what the call returns, instead of its effect or After it.
	Err   error
	After bool
}

// SetFault has f asked about every call to come, outside the world's lock. Nil
// takes it away.
func (w *World) SetFault(f func(Call) Fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = f
}

// interfere applies the fault for calls that no shim answers.
func (w *World) interfere(ctx context.Context, c Call) error {
	f := w.faultFor(c)
	if err := pauseFor(ctx, f, nil, nil); err != nil {
		return fmt.Errorf("%s: %w", c.Method, err)
	}
	return f.Err
}

func (w *World) faultFor(c Call) Fault {
	w.mu.Lock()
	f := w.fault
	w.mu.Unlock()
	if f == nil {
		return Fault{}
	}
	return f(c)
}

// pauseFor waits out a fault's delay, or for ever.
func pauseFor(ctx context.Context, f Fault, gone, closed <-chan struct{}) error {
	var timer <-chan time.Time
	switch {
	case f.Hang && !f.After:
	case f.Delay > 0:
		t := time.NewTimer(f.Delay)
		defer t.Stop()
		timer = t.C
	default:
		return nil
	}
	select {
	case <-timer:
		return nil
	case <-gone:
		return shimclient.ErrGone
	case <-closed:
		return fmt.Errorf("%w: closed by us", shimclient.ErrUnreachable)
	case <-ctx.Done():
		return unreachable(ctx)
	}
}

func unreachable(ctx context.Context) error {
	if ctx.Err() == context.Canceled {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", shimclient.ErrUnreachable, ctx.Err())
}
