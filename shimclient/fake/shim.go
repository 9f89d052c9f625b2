package fake

import (
	"context"
	"fmt"
	"slices"
	"sync"

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

// Create implements shimclient.Tasks.
func (s *Shim) Create(ctx context.Context, c shimclient.Create) (int, error) {
	return ask(ctx, s, "Create", c.ID, "", func() (int, error) { return s.srv.create(c) })
}

// Start implements shimclient.Tasks.
func (s *Shim) Start(ctx context.Context, id string) (int, error) { return s.StartExec(ctx, id, "") }

// StartExec implements shimclient.Tasks.
func (s *Shim) StartExec(ctx context.Context, id, execID string) (int, error) {
	return ask(ctx, s, "Start", id, execID, func() (int, error) {
		t, err := s.srv.find(id, execID)
		if err != nil {
			return 0, err
		}
		return s.srv.start(t)
	})
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
	return s.call(ctx, "Kill", id, execID, func() error {
		t, err := s.srv.find(id, execID)
		if err != nil {
			return err
		}
		if t.proc == nil {
			return fmt.Errorf("process not created: %w", errdefs.ErrFailedPrecondition)
		}
		if t.proc.ended || execID == "" && s.srv.w.runtime[id] != t.proc {
			return fmt.Errorf("process already finished: %w", errdefs.ErrNotFound)
		}
		if execID == "" && signal == uint32(unix.SIGKILL) {
			s.srv.w.thaw(t.container)
		}
		return t.proc.signal(unix.Signal(signal))
	})
}

// Delete implements shimclient.Tasks.
func (s *Shim) Delete(ctx context.Context, id string) (shimclient.Exit, error) {
	return s.DeleteExec(ctx, id, "")
}

// DeleteExec implements shimclient.Tasks.
func (s *Shim) DeleteExec(ctx context.Context, id, execID string) (shimclient.Exit, error) {
	return ask(ctx, s, "Delete", id, execID, func() (shimclient.Exit, error) {
		t, err := s.srv.find(id, execID)
		if err != nil {
			return shimclient.Exit{}, err
		}
		return s.srv.delete(t)
	})
}

// State implements shimclient.Tasks.
func (s *Shim) State(ctx context.Context, id string) (shimclient.State, error) {
	return s.StateExec(ctx, id, "")
}

// StateExec implements shimclient.Tasks.
func (s *Shim) StateExec(ctx context.Context, id, execID string) (shimclient.State, error) {
	return ask(ctx, s, "State", id, execID, func() (st shimclient.State, err error) {
		t, err := s.srv.find(id, execID)
		if err != nil {
			return st, err
		}
		st.Status = t.status
		if init := t.container.status; init == shimclient.StatusPaused {
			st.Status = init
		}
		if t.proc != nil {
			st.Pid = t.proc.ident.Pid
		}
		if t.status == shimclient.StatusStopped {
			st.ExitCode, st.ExitedAt = t.exit.Code, t.exit.At
		}
		return st, nil
	})
}

// Wait implements shimclient.Tasks.
func (s *Shim) Wait(ctx context.Context, id string) (shimclient.Exit, error) {
	return s.WaitExec(ctx, id, "")
}

// WaitExec implements shimclient.Tasks.
func (s *Shim) WaitExec(ctx context.Context, id, execID string) (shimclient.Exit, error) {
	t, err := ask(ctx, s, "Wait", id, execID, func() (*task, error) { return s.srv.find(id, execID) })
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
		if t.status != shimclient.StatusRunning && t.status != shimclient.StatusCreated {
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
		for _, x := range append(execsOf(t.container), t) {
			if x.proc != nil {
				x.proc.freeze(to == shimclient.StatusPaused)
			}
		}
		s.srv.publish(kind, t)
		return nil
	})
}

// Pids implements shimclient.Tasks.
func (s *Shim) Pids(ctx context.Context, id string) ([]int, error) {
	return ask(ctx, s, "Pids", id, "", func() (pids []int, err error) {
		t, err := s.srv.find(id, "")
		if err != nil {
			return nil, err
		}
		for _, t := range append(execsOf(t.container), t) {
			if t.proc != nil && !t.proc.ended {
				pids = append(pids, t.proc.ident.Pid)
			}
		}
		slices.Sort(pids)
		return pids, nil
	})
}

func execsOf(c *container) (all []*task) {
	for _, t := range c.execs {
		all = append(all, t)
	}
	return all
}

// Connect implements shimclient.Tasks.
func (s *Shim) Connect(ctx context.Context, id string) (shimclient.ConnectInfo, error) {
	return ask(ctx, s, "Connect", id, "", func() (info shimclient.ConnectInfo, err error) {
		info.ShimPid = s.srv.proc.ident.Pid
		if c := s.srv.containers[id]; c != nil {
			info.TaskPid = c.proc.ident.Pid
		}
		return info, nil
	})
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
