package conformance

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/shimclient"
)

// lateByShim: a call that times out because its shim is stopped lies in the
// socket, and takes effect when the shim goes on.
func lateByShim(t *testing.T, w World) {
	s := w.Launch(t, "pod1")
	app := run(t, w, s, "app", "sleep")
	side := w.Container(t, "pod1", "side", "sleep")
	w.Signal(t, s.Ref().Process.Pid, unix.SIGSTOP)
	for what, call := range map[string]func(context.Context) error{
		"kill":   func(ctx context.Context) error { return s.Kill(ctx, "app", uint32(unix.SIGKILL), false) },
		"create": func(ctx context.Context) error { _, err := s.Create(ctx, side); return err },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		time.AfterFunc(300*time.Millisecond, cancel)
		if err := call(ctx); !errors.Is(err, shimclient.ErrUnreachable) && !errors.Is(err, context.Canceled) {
			t.Errorf("%s by a stopped shim: %v", what, err)
		}
	}
	if !w.Alive(app) {
		t.Fatal("a stopped shim has killed")
	}
	w.Signal(t, s.Ref().Process.Pid, unix.SIGCONT)
	dead(t, w, app)
	eventually(t, "the create takes effect", func() bool {
		st, err := s.State(t.Context(), "side")
		return err == nil && st.Status == shimclient.StatusCreated
	})
}

// callerLeft: who leaves does not take along what the shim has begun.
func callerLeft(t *testing.T, w World) {
	s := w.Launch(t, "pod1")
	pid := run(t, w, s, "app", "sleep")
	w.Slow(t, "kill", "app", 3*time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(300*time.Millisecond, cancel)
	if err := s.Kill(ctx, "app", uint32(unix.SIGKILL), false); !errors.Is(err, context.Canceled) {
		t.Errorf("kill: %v", err)
	}
	if !w.Alive(pid) {
		t.Fatal("killed at once; this proves nothing")
	}
	dead(t, w, pid)
}

// connectionEnded: with the connection, its calls are called off. What the runtime
// has done by then stays done.
func connectionEnded(t *testing.T, w World) {
	s := w.Launch(t, "pod1")
	pid := run(t, w, s, "app", "sleep")
	w.Slow(t, "kill", "app", 3*time.Second)
	asked := make(chan error, 1)
	go func() { asked <- s.Kill(t.Context(), "app", uint32(unix.SIGKILL), false) }()
	time.Sleep(300 * time.Millisecond)
	must(t, "close", s.Close())
	select {
	case err := <-asked:
		if !errors.Is(err, shimclient.ErrUnreachable) {
			t.Errorf("kill: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("a call waits on a closed connection")
	}
	time.Sleep(4 * time.Second)
	if !w.Alive(pid) {
		t.Error("killed by a call of which the connection had ended")
	}
	back, err := w.Adopt(t.Context(), s.Ref())
	must(t, "adopt", err)
	defer back.Close()
	wantState(t, back, "app", shimclient.State{Pid: pid, Status: shimclient.StatusRunning})
	must(t, "kill", back.Kill(t.Context(), "app", uint32(unix.SIGKILL), false))
	dead(t, w, pid)
}

// deleteGoesOn: to repeat a delete that was left gives NotFound in the end.
func deleteGoesOn(t *testing.T, w World) {
	s := w.Launch(t, "pod1")
	run(t, w, s, "app", "exit", "3")
	_, err := s.Wait(t.Context(), "app")
	must(t, "wait", err)
	w.Slow(t, "delete", "app", 2*time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(200*time.Millisecond, cancel)
	if _, err := s.Delete(ctx, "app"); !errors.Is(err, context.Canceled) {
		t.Errorf("delete: %v", err)
	}
	eventually(t, "the delete takes effect", func() bool {
		_, err := s.Wait(t.Context(), "app")
		return errors.Is(err, errdefs.ErrNotFound)
	})
	if _, err := s.Delete(t.Context(), "app"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("delete again: %v", err)
	}
}
