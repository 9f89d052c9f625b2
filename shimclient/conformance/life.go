package conformance

import (
	"errors"
	"fmt"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/shimclient"
)

func life(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	c := w.Container(t, "pod1", "app", "sleep")

	pid, err := s.Create(ctx, c)
	must(t, "create", err)
	wantState(t, s, "app", shimclient.State{Pid: pid, Status: shimclient.StatusCreated})
	if !w.Alive(pid) {
		t.Fatal("created container has no process")
	}
	started, err := s.Start(ctx, "app")
	must(t, "start", err)
	if started != pid {
		t.Fatalf("create said pid %d and start %d", pid, started)
	}
	wantState(t, s, "app", shimclient.State{Pid: pid, Status: shimclient.StatusRunning})
	if info, err := s.Connect(ctx, "app"); err != nil || info.ShimPid != s.Ref().Process.Pid || info.TaskPid != pid {
		t.Fatalf("connect: %+v, %v", info, err)
	}
	if pids, err := s.Pids(ctx, "app"); err != nil || len(pids) != 1 || pids[0] != pid {
		t.Fatalf("pids: %v, %v; want %d", pids, err, pid)
	}

	waited := waiting(ctx, s, "app")
	must(t, "kill", s.Kill(ctx, "app", uint32(unix.SIGKILL), false))
	r := <-waited
	must(t, "wait", r.err)
	if r.exit.Code != 137 || r.exit.At.IsZero() {
		t.Fatalf("wait: %+v", r.exit)
	}
	if w.Alive(pid) {
		t.Fatal("wait returned and the process lives")
	}
	wantState(t, s, "app", shimclient.State{Pid: pid, Status: shimclient.StatusStopped, ExitCode: 137})

	exit, err := s.Delete(ctx, "app")
	must(t, "delete", err)
	if exit.Code != 137 || exit.Pid != pid {
		t.Fatalf("delete: %+v", exit)
	}
	if _, err := s.Delete(ctx, "app"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Fatalf("second delete: %v", err)
	}

	must(t, "shutdown", s.Shutdown(ctx))
	<-s.Gone()
	if w.Alive(s.Ref().Process.Pid) {
		t.Fatal("shut down, and the process lives")
	}
	must(t, "second shutdown", s.Shutdown(ctx))
	if _, err := s.State(ctx, "app"); !errors.Is(err, shimclient.ErrGone) {
		t.Fatalf("state by a dead shim: %v", err)
	}
}

func ownExit(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	for _, code := range []int{0, 42, 137} {
		id := fmt.Sprintf("app%d", code)
		pid := run(t, w, s, id, "exit", fmt.Sprint(code))
		exit, err := s.Wait(ctx, id)
		must(t, "wait", err)
		if exit.Code != code || w.Alive(pid) {
			t.Fatalf("code %d, alive %v; want %d", exit.Code, w.Alive(pid), code)
		}
		// As often as one likes, and at once.
		again, err := s.Wait(ctx, id)
		must(t, "wait again", err)
		if again != exit {
			t.Fatalf("first %+v, then %+v", exit, again)
		}
		if err := s.Kill(ctx, id, uint32(unix.SIGKILL), false); !errors.Is(err, errdefs.ErrNotFound) {
			t.Fatalf("kill after the end: %v", err)
		}
		_, err = s.Delete(ctx, id)
		must(t, "delete", err)
	}
	run(t, w, s, "app0", "sleep") // the id is free again
}

func refusals(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	c := w.Container(t, "pod1", "app", "stubborn")
	pid, err := s.Create(ctx, c)
	must(t, "create", err)
	_, err = s.Start(ctx, "app")
	must(t, "start", err)

	if _, err := s.Start(ctx, "app"); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("start of a running container: %v", err)
	}
	if _, err := s.Create(ctx, c); err == nil {
		t.Error("a second container of the same id was created")
	}
	if !w.Alive(pid) {
		t.Fatal("the refused create killed the container")
	}
	if _, err := s.Delete(ctx, "app"); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("delete of a running container: %v", err)
	}
	if err := s.Shutdown(ctx); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("shutdown of a shim with a container: %v", err)
	}
	must(t, "SIGTERM", s.Kill(ctx, "app", uint32(unix.SIGTERM), false))
	wantState(t, s, "app", shimclient.State{Pid: pid, Status: shimclient.StatusRunning})

	must(t, "SIGKILL", s.Kill(ctx, "app", uint32(unix.SIGKILL), true))
	_, err = s.Wait(ctx, "app")
	must(t, "wait", err)
	if _, err := s.Start(ctx, "app"); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("start of a stopped container: %v", err)
	}
}

func unknownIDs(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	for name, call := range map[string]func() error{
		"start":  func() error { _, err := s.Start(ctx, "nobody"); return err },
		"kill":   func() error { return s.Kill(ctx, "nobody", 9, false) },
		"delete": func() error { _, err := s.Delete(ctx, "nobody"); return err },
		"state":  func() error { _, err := s.State(ctx, "nobody"); return err },
		"wait":   func() error { _, err := s.Wait(ctx, "nobody"); return err },
		"pids":   func() error { _, err := s.Pids(ctx, "nobody"); return err },
		"pause":  func() error { return s.Pause(ctx, "nobody") },
		"exec":   func() error { return s.Exec(ctx, execOf("nobody", "e1", "exit", "0")) },
		"stdin":  func() error { return s.CloseStdin(ctx, "nobody", "") },
		"resize": func() error { return s.ResizePty(ctx, "nobody", "", 80, 25) },
	} {
		if err := call(); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The one that never says no.
	if info, err := s.Connect(ctx, "nobody"); err != nil || info.TaskPid != 0 || info.ShimPid != s.Ref().Process.Pid {
		t.Errorf("connect: %+v, %v", info, err)
	}
}

func siblings(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	first := run(t, w, s, "first", "sleep")
	second := run(t, w, s, "second", "sleep")
	must(t, "kill", s.Kill(ctx, "first", uint32(unix.SIGKILL), true))
	_, err := s.Wait(ctx, "first")
	must(t, "wait", err)
	if w.Alive(first) || !w.Alive(second) {
		t.Fatalf("alive: first %v, second %v", w.Alive(first), w.Alive(second))
	}
	wantState(t, s, "second", shimclient.State{Pid: second, Status: shimclient.StatusRunning})
}

func neverStarted(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	for name, end := range map[string]func(id string, pid int) int{
		"kill": func(id string, pid int) int {
			must(t, "kill", s.Kill(ctx, id, uint32(unix.SIGKILL), false))
			return 137
		},
		"signal": func(id string, pid int) int {
			w.Signal(t, pid, unix.SIGKILL)
			return 137
		},
		"terminate": func(id string, pid int) int { // the runtime's own init is there yet
			must(t, "SIGTERM", s.Kill(ctx, id, uint32(unix.SIGTERM), false))
			return 2
		},
	} {
		pid, err := s.Create(ctx, w.Container(t, "pod1", name, "stubborn"))
		must(t, "create", err)
		want := end(name, pid)
		exit, err := s.Wait(ctx, name)
		must(t, "wait", err)
		if exit.Code != want {
			t.Errorf("%s: %+v, want %d", name, exit, want)
		}
		wantState(t, s, name, shimclient.State{Pid: pid, Status: shimclient.StatusStopped, ExitCode: exit.Code})
		if _, err := s.Start(ctx, name); !errors.Is(err, errdefs.ErrFailedPrecondition) {
			t.Errorf("%s: start of the dead: %v", name, err)
		}
		_, err = s.Delete(ctx, name)
		must(t, "delete", err)
	}
	pid, err := s.Create(ctx, w.Container(t, "pod1", "deleted", "sleep"))
	must(t, "create", err)
	_, err = s.Delete(ctx, "deleted")
	must(t, "delete", err)
	dead(t, w, pid)
	must(t, "shutdown", s.Shutdown(ctx))
}

func createFails(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	c := w.Container(t, "pod1", "app", "sleep")
	must(t, "remove", w.RemoveBundle(c))
	if _, err := s.Create(ctx, c); err == nil || errors.Is(err, shimclient.ErrUnreachable) {
		t.Errorf("create without a bundle: %v", err)
	}
	if _, err := s.State(ctx, "app"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("state: %v", err)
	}
	_, err := s.Create(ctx, w.Container(t, "pod1", "app", "sleep"))
	must(t, "create anew", err)
	must(t, "kill", s.Kill(ctx, "app", uint32(unix.SIGKILL), true))
	_, err = s.Wait(ctx, "app")
	must(t, "wait", err)
	if err := s.Shutdown(ctx); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("shutdown with a stopped container: %v", err)
	}
	_, err = s.Delete(ctx, "app")
	must(t, "delete", err)
	must(t, "shutdown", s.Shutdown(ctx))
}

func launchedTwice(t *testing.T, w World) {
	ctx := t.Context()
	l := w.Pod(t, "pod1")
	first, err := w.Shims().Launch(ctx, l)
	must(t, "launch", err)
	defer first.Close()
	pid := run(t, w, first, "app", "sleep")
	second, err := w.Shims().Launch(ctx, l)
	must(t, "launch", err)
	defer second.Close()
	if first.Ref() != second.Ref() {
		t.Errorf("%+v and %+v", first.Ref(), second.Ref())
	}
	wantState(t, second, "app", shimclient.State{Pid: pid, Status: shimclient.StatusRunning})
	must(t, "close", first.Close())
	if _, err := first.State(ctx, "app"); !errors.Is(err, shimclient.ErrUnreachable) {
		t.Errorf("state by a closed connection: %v", err)
	}
	wantState(t, second, "app", shimclient.State{Pid: pid, Status: shimclient.StatusRunning})
}

// fenced is how a create or start is undone that may still be under way.
func fenced(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	for _, started := range []bool{false, true} {
		id := fmt.Sprintf("app-%v", started)
		c := w.Container(t, "pod1", id, "stubborn")
		pid, err := s.Create(ctx, c)
		must(t, "create", err)
		if started {
			_, err = s.Start(ctx, id)
			must(t, "start", err)
		}
		must(t, "delete task", w.DeleteTask(ctx, c))
		dead(t, w, pid)
		exit, err := s.Wait(ctx, id)
		must(t, "wait", err)
		if exit.Code != 137 {
			t.Errorf("%s: %+v", id, exit)
		}
		if _, err := s.Start(ctx, id); err == nil {
			t.Errorf("%s: started after its end", id)
		}
		exit, err = s.Delete(ctx, id)
		must(t, "delete", err)
		if exit.Code != 137 || exit.Pid != pid {
			t.Errorf("%s: %+v", id, exit)
		}
		// All of it is gone, so that the id may be used again.
		pid, err = s.Create(ctx, w.Container(t, "pod1", id, "sleep"))
		must(t, "create anew", err)
		must(t, "delete task", w.DeleteTask(ctx, c))
		dead(t, w, pid)
		_, err = s.Delete(ctx, id)
		must(t, "delete", err)
	}
}
