package fake

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/crid-project/crid/shimclient"
)

// call makes one RPC: it runs do with the world's lock held.
func (s *Shim) call(ctx context.Context, method, id, execID string, do func() error) error {
	if _, ok := ctx.Deadline(); !ok && method != "Wait" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTime)
		defer cancel()
	}
	fault := s.srv.w.faultFor(Call{Shim: s.srv.ref.ID, Method: method, ID: id, ExecID: execID})
	if fault.Late > 0 {
		go s.late(fault, method, id, execID, do)
		return fmt.Errorf("%s by shim %s: %w", method, s.srv.ref.ID, s.pause(ctx, Fault{Hang: true}))
	}
	err := s.pause(ctx, fault)
	if err == nil && (fault.Err == nil || fault.After) {
		err = s.enter(ctx, method, id, execID, do)
	}
	if err == nil && fault.Hang {
		err = s.pause(ctx, Fault{Hang: true})
	}
	if err == nil {
		err = fault.Err
	}
	if err != nil {
		return fmt.Errorf("%s by shim %s: %w", method, s.srv.ref.ID, err)
	}
	return nil
}

// ask is call for those who want more than an error. A call that takes effect when
// its caller has gone tells nobody.
func ask[T any](ctx context.Context, s *Shim, method, id, execID string, do func() (T, error)) (T, error) {
	var mu sync.Mutex
	var got, none T
	err := s.call(ctx, method, id, execID, func() error {
		mu.Lock()
		defer mu.Unlock()
		var err error
		got, err = do()
		return err
	})
	if err != nil {
		return none, err
	}
	mu.Lock()
	defer mu.Unlock()
	return got, nil
}

func (s *Shim) pause(ctx context.Context, f Fault) error { return pauseFor(ctx, f, s.Gone(), s.close) }

// late makes a call that nobody waits for any more. With its connection a call is
// cancelled, if the shim hears of that in time.
func (s *Shim) late(fault Fault, method, id, execID string, do func() error) {
	if pauseFor(context.Background(), Fault{Delay: fault.Late}, s.Gone(), nil) != nil {
		return
	}
	ctx := context.Background()
	if !fault.Outlives {
		select {
		case <-s.close:
			return
		default:
		}
		// A shim that hangs then finds the connection closed when it comes to the call.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
	}
	_, _ = newShim(s.srv).attempt(ctx, method, id, execID, do)
}

// enter waits until the shim listens and nothing hangs in its way. What has come to
// a stopped shim stays in its socket, whether anybody still waits or not.
func (s *Shim) enter(ctx context.Context, method, id, execID string, do func() error) error {
	unread, err := s.attempt(ctx, method, id, execID, do)
	if unread && slices.Contains(changing, method) {
		go func() {
			for unread {
				select {
				case <-s.close:
					return
				case <-s.resumed():
				}
				// Its time begins when the shim reads it.
				ctx, cancel := context.WithTimeout(context.Background(), callTime)
				unread, _ = s.attempt(ctx, method, id, execID, do)
				cancel()
			}
		}()
	}
	return err
}

// callTime is how long a call may take if its caller did not say.
const callTime = 10 * time.Second

// resumed is closed when the shim is not stopped, or dead.
func (s *Shim) resumed() <-chan struct{} {
	s.srv.w.mu.Lock()
	defer s.srv.w.mu.Unlock()
	if s.srv.proc.stopped {
		return s.srv.proc.resumed
	}
	c := make(chan struct{})
	close(c)
	return c
}

// attempt makes a call once; unread says that the shim has not seen it yet.
func (s *Shim) attempt(ctx context.Context, method, id, execID string, do func() error) (unread bool, err error) {
	w, p := s.srv.w, s.srv.proc
	for {
		w.mu.Lock()
		var wait chan struct{}
		c := s.srv.containers[id]
		switch {
		case p.ended:
			w.mu.Unlock()
			return false, shimclient.ErrGone
		case p.stopped:
			wait, unread = p.resumed, true
		case c != nil && c.jammed != nil && locks(method, execID):
			wait, unread = c.jammed, false
		default:
			defer w.mu.Unlock()
			select {
			case <-s.close:
				return false, fmt.Errorf("%w: closed by us", shimclient.ErrUnreachable)
			default:
			}
			return false, do()
		}
		w.mu.Unlock()
		if err := s.await(ctx, wait); err != nil {
			return unread, err
		}
	}
}

// changing are the calls that do something.
var changing = []string{"Create", "Start", "Kill", "Delete", "Pause", "Resume", "Update", "Exec", "Shutdown"}

// locks reports whether a call takes the lock of the container's init in the real
// shim. Execs have locks of their own, but their state is the container's first.
func locks(method, execID string) bool {
	switch method {
	case "State", "Exec", "Pause", "Resume", "Update":
		return true
	case "Start", "Kill", "Delete":
		return execID == ""
	default:
		return false
	}
}

func (s *Shim) await(ctx context.Context, c <-chan struct{}) error {
	select {
	case <-c:
		return nil
	case <-s.Gone():
		return shimclient.ErrGone
	case <-s.close:
		return fmt.Errorf("%w: closed by us", shimclient.ErrUnreachable)
	case <-ctx.Done():
		return unreachable(ctx)
	}
}
