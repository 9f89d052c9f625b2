package fake

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/shimclient"
)

// Shim is one connection to a fake shim.
type Shim struct {
	srv   *server
	close chan struct{}
	once  sync.Once
}

var _ shimclient.Tasks = (*Shim)(nil)

func newShim(srv *server) *Shim { return &Shim{srv: srv, close: make(chan struct{})} }

// Process is the shim's own process, to be stopped and killed.
func (s *Shim) Process() *Process { return s.srv.proc }

// Ref implements shimclient.Tasks.
func (s *Shim) Ref() shimclient.Ref { return s.srv.ref }

// Gone implements shimclient.Tasks.
func (s *Shim) Gone() <-chan struct{} { return s.srv.proc.Done() }

// Close implements shimclient.Tasks.
func (s *Shim) Close() error {
	s.once.Do(func() { close(s.close) })
	return nil
}

// call makes one RPC: it runs do with the world's lock held.
func (s *Shim) call(ctx context.Context, method, id, execID string, do func() error) error {
	if _, ok := ctx.Deadline(); !ok && method != "Wait" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
	}
	fault := s.srv.w.faultFor(Call{Shim: s.srv.ref.ID, Method: method, ID: id, ExecID: execID})
	if fault.Late > 0 {
		go s.late(fault, method, id, do)
		return fmt.Errorf("%s by shim %s: %w", method, s.srv.ref.ID, pauseFor(ctx, Fault{Hang: true}, s.Gone()))
	}
	err := pauseFor(ctx, fault, s.Gone())
	if err == nil && (fault.Err == nil || fault.After) {
		err = s.enter(ctx, method, id, do)
	}
	if err == nil && fault.Hang {
		err = pauseFor(ctx, Fault{Hang: true}, s.Gone())
	}
	if err == nil {
		err = fault.Err
	}
	if err != nil {
		return fmt.Errorf("%s by shim %s: %w", method, s.srv.ref.ID, err)
	}
	return nil
}

// late makes a call that nobody waits for any more. With its connection a call is
// cancelled, if the shim hears of that in time.
func (s *Shim) late(fault Fault, method, id string, do func() error) {
	if pauseFor(context.Background(), Fault{Delay: fault.Late}, s.Gone()) != nil {
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
	_ = newShim(s.srv).enter(ctx, method, id, do)
}

// enter waits until the shim listens and nothing hangs in its way.
func (s *Shim) enter(ctx context.Context, method, id string, do func() error) error {
	w, p := s.srv.w, s.srv.proc
	for {
		w.mu.Lock()
		var wait chan struct{}
		c := s.srv.containers[id]
		switch {
		case p.ended:
			w.mu.Unlock()
			return shimclient.ErrGone
		case p.stopped:
			wait = p.resumed
		case c != nil && c.jammed != nil && slices.Contains(locking, method):
			wait = c.jammed
		default:
			defer w.mu.Unlock()
			select {
			case <-s.close:
				return fmt.Errorf("%w: closed by us", shimclient.ErrUnreachable)
			default:
			}
			return do()
		}
		w.mu.Unlock()
		if err := s.await(ctx, wait); err != nil {
			return err
		}
	}
}

// locking are the calls that take the lock of a process in the real shim.
var locking = []string{"State", "Start", "Kill", "Delete", "Pause", "Resume", "Update", "Exec"}

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

// Create implements shimclient.Tasks.
func (s *Shim) Create(ctx context.Context, c shimclient.Create) (pid int, err error) {
	err = s.call(ctx, "Create", c.ID, "", func() (err error) {
		pid, err = s.srv.create(c)
		return err
	})
	return pid, err
}

// Start implements shimclient.Tasks.
func (s *Shim) Start(ctx context.Context, id string) (int, error) { return s.StartExec(ctx, id, "") }

// StartExec implements shimclient.Tasks.
func (s *Shim) StartExec(ctx context.Context, id, execID string) (pid int, err error) {
	err = s.call(ctx, "Start", id, execID, func() error {
		t, err := s.srv.find(id, execID)
		if err == nil {
			pid, err = s.srv.start(t)
		}
		return err
	})
	return pid, err
}

// Kill implements shimclient.Tasks.
func (s *Shim) Kill(ctx context.Context, id string, signal uint32, all bool) error {
	return s.kill(ctx, id, "", signal)
}

// KillExec implements shimclient.Tasks.
func (s *Shim) KillExec(ctx context.Context, id, execID string, signal uint32) error {
	return s.kill(ctx, id, execID, signal)
}

func (s *Shim) kill(ctx context.Context, id, execID string, signal uint32) error {
	var target *Process
	err := s.call(ctx, "Kill", id, execID, func() error {
		t, err := s.srv.find(id, execID)
		if err != nil {
			return err
		}
		if t.proc == nil || t.proc.ended || execID == "" && s.srv.w.runtime[id] != t.proc {
			return fmt.Errorf("process already finished: %w", errdefs.ErrNotFound)
		}
		target = t.proc
		return nil
	})
	if target != nil {
		_ = target.Signal(unix.Signal(signal)) // that it died just now is no error of the shim's
	}
	return err
}

// Delete implements shimclient.Tasks.
func (s *Shim) Delete(ctx context.Context, id string) (shimclient.Exit, error) {
	return s.DeleteExec(ctx, id, "")
}

// DeleteExec implements shimclient.Tasks.
func (s *Shim) DeleteExec(ctx context.Context, id, execID string) (exit shimclient.Exit, err error) {
	err = s.call(ctx, "Delete", id, execID, func() error {
		t, err := s.srv.find(id, execID)
		if err == nil {
			exit, err = s.srv.delete(t)
		}
		return err
	})
	return exit, err
}

// State implements shimclient.Tasks.
func (s *Shim) State(ctx context.Context, id string) (shimclient.State, error) {
	return s.StateExec(ctx, id, "")
}

// StateExec implements shimclient.Tasks.
func (s *Shim) StateExec(ctx context.Context, id, execID string) (st shimclient.State, err error) {
	err = s.call(ctx, "State", id, execID, func() error {
		t, err := s.srv.find(id, execID)
		if err != nil {
			return err
		}
		st.Status = t.status
		if t.proc != nil {
			st.Pid = t.proc.ident.Pid
		}
		if t.status == shimclient.StatusStopped {
			st.ExitCode, st.ExitedAt = t.exit.Code, t.exit.At
		}
		return nil
	})
	return st, err
}

// Wait implements shimclient.Tasks.
func (s *Shim) Wait(ctx context.Context, id string) (shimclient.Exit, error) {
	return s.WaitExec(ctx, id, "")
}

// WaitExec implements shimclient.Tasks.
func (s *Shim) WaitExec(ctx context.Context, id, execID string) (shimclient.Exit, error) {
	var t *task
	err := s.call(ctx, "Wait", id, execID, func() (err error) {
		t, err = s.srv.find(id, execID)
		return err
	})
	if err != nil {
		return shimclient.Exit{}, err
	}
	if err := s.await(ctx, t.stopped); err != nil {
		return shimclient.Exit{}, fmt.Errorf("Wait by shim %s: %w", s.srv.ref.ID, err)
	}
	return shimclient.Exit{Code: t.exit.Code, At: t.exit.At}, nil // the real one leaves the pid out
}

// Exec implements shimclient.Tasks.
func (s *Shim) Exec(ctx context.Context, e shimclient.ExecSpec) error {
	return s.call(ctx, "Exec", e.ID, e.ExecID, func() error {
		t, err := s.srv.find(e.ID, "")
		if err != nil {
			return err
		}
		if t.container.execs[e.ExecID] != nil {
			return fmt.Errorf("id %s: %w", e.ExecID, errdefs.ErrAlreadyExists)
		}
		if t.status != shimclient.StatusRunning {
			return fmt.Errorf("cannot exec in a %s state: %w", t.status, errdefs.ErrFailedPrecondition)
		}
		x := &task{container: t.container, execID: e.ExecID, status: shimclient.StatusCreated, stopped: make(chan struct{}), program: []string{"sleep"}}
		if e.Process != nil && len(e.Process.Args) > 1 {
			x.program = e.Process.Args[1:]
		}
		t.container.execs[e.ExecID] = x
		return nil
	})
}

// ResizePty implements shimclient.Tasks.
func (s *Shim) ResizePty(ctx context.Context, id, execID string, width, height uint32) error {
	return s.look(ctx, "ResizePty", id, execID)
}

// CloseStdin implements shimclient.Tasks.
func (s *Shim) CloseStdin(ctx context.Context, id, execID string) error {
	return s.look(ctx, "CloseIO", id, execID)
}

// Update implements shimclient.Tasks.
func (s *Shim) Update(ctx context.Context, id string, _ *oci.LinuxResources, _ map[string]string) error {
	return s.call(ctx, "Update", id, "", func() error {
		t, err := s.srv.find(id, "")
		if err == nil && t.status == shimclient.StatusStopped {
			err = fmt.Errorf("cannot update a stopped container: %w", errdefs.ErrFailedPrecondition)
		}
		return err
	})
}

func (s *Shim) look(ctx context.Context, method, id, execID string) error {
	return s.call(ctx, method, id, execID, func() error {
		_, err := s.srv.find(id, execID)
		return err
	})
}

// Pause implements shimclient.Tasks.
func (s *Shim) Pause(ctx context.Context, id string) error {
	return s.switchTo(ctx, "Pause", id, shimclient.StatusRunning, shimclient.StatusPaused, shimclient.PausedEvent)
}

// Resume implements shimclient.Tasks.
func (s *Shim) Resume(ctx context.Context, id string) error {
	return s.switchTo(ctx, "Resume", id, shimclient.StatusPaused, shimclient.StatusRunning, shimclient.ResumedEvent)
}

func (s *Shim) switchTo(ctx context.Context, method, id string, from, to shimclient.Status, kind shimclient.Kind) error {
	return s.call(ctx, method, id, "", func() error {
		t, err := s.srv.find(id, "")
		if err != nil {
			return err
		}
		if t.status != from {
			return fmt.Errorf("cannot %s a %s container: %w", method, t.status, errdefs.ErrFailedPrecondition)
		}
		t.status = to
		s.srv.publish(kind, t)
		return nil
	})
}

// Pids implements shimclient.Tasks.
func (s *Shim) Pids(ctx context.Context, id string) (pids []int, err error) {
	err = s.call(ctx, "Pids", id, "", func() error {
		t, err := s.srv.find(id, "")
		if err != nil {
			return err
		}
		for _, t := range append(execsOf(t.container), t) {
			if t.proc != nil && !t.proc.ended {
				pids = append(pids, t.proc.ident.Pid)
			}
		}
		slices.Sort(pids)
		return nil
	})
	return pids, err
}

func execsOf(c *container) (all []*task) {
	for _, t := range c.execs {
		all = append(all, t)
	}
	return all
}

// Connect implements shimclient.Tasks.
func (s *Shim) Connect(ctx context.Context, id string) (info shimclient.ConnectInfo, err error) {
	err = s.call(ctx, "Connect", id, "", func() error {
		info.ShimPid = s.srv.proc.ident.Pid
		if c := s.srv.containers[id]; c != nil {
			info.TaskPid = c.proc.ident.Pid
		}
		return nil
	})
	return info, err
}

// Shutdown implements shimclient.Tasks.
func (s *Shim) Shutdown(ctx context.Context) error {
	if s.srv.proc.Exited() {
		return nil
	}
	err := s.call(ctx, "Shutdown", "", "", func() error {
		if len(s.srv.containers) > 0 {
			return fmt.Errorf("shim %s still has containers: %w", s.srv.ref.ID, errdefs.ErrFailedPrecondition)
		}
		s.srv.proc.end(exitedStatus)
		return nil
	})
	if err != nil && s.srv.proc.Exited() {
		return nil
	}
	return err
}
