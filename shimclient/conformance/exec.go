package conformance

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/shimclient"
)

func execs(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	run(t, w, s, "app", "sleep")

	must(t, "exec", s.Exec(ctx, execOf("app", "e1", "exit", "7")))
	if err := s.Exec(ctx, execOf("app", "e1", "exit", "7")); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("exec of a used id: %v", err)
	}
	pid, err := s.StartExec(ctx, "app", "e1")
	must(t, "start exec", err)
	exit, err := s.WaitExec(ctx, "app", "e1")
	must(t, "wait exec", err)
	if exit.Code != 7 || w.Alive(pid) {
		t.Fatalf("%+v", exit)
	}
	exit, err = s.DeleteExec(ctx, "app", "e1")
	must(t, "delete exec", err)
	if exit.Code != 7 || exit.Pid != pid {
		t.Fatalf("delete exec: %+v", exit)
	}
	if _, err := s.WaitExec(ctx, "app", "e1"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("wait for a deleted exec: %v", err)
	}

	must(t, "exec", s.Exec(ctx, execOf("app", "e2", "stubborn")))
	pid, err = s.StartExec(ctx, "app", "e2")
	must(t, "start exec", err)
	st, err := s.StateExec(ctx, "app", "e2")
	must(t, "state of exec", err)
	if st.Status != shimclient.StatusRunning || st.Pid != pid {
		t.Fatalf("%+v", st)
	}
	must(t, "kill exec", s.KillExec(ctx, "app", "e2", uint32(unix.SIGKILL)))
	exit, err = s.WaitExec(ctx, "app", "e2")
	must(t, "wait exec", err)
	if exit.Code != 137 {
		t.Fatalf("%+v", exit)
	}
	if st, err := s.State(ctx, "app"); err != nil || st.Status != shimclient.StatusRunning {
		t.Fatalf("the container after its exec was killed: %+v, %v", st, err)
	}
}

func execAfterEnd(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	run(t, w, s, "app", "exit", "0")
	_, err := s.Wait(ctx, "app")
	must(t, "wait", err)
	err = s.Exec(ctx, execOf("app", "e1", "exit", "0"))
	if err == nil {
		_, err = s.StartExec(ctx, "app", "e1")
	}
	if !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Fatalf("%v", err)
	}
}

func execNotStarted(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	run(t, w, s, "app", "sleep")
	must(t, "exec", s.Exec(ctx, execOf("app", "e1", "stubborn")))
	if st, err := s.StateExec(ctx, "app", "e1"); err != nil || st.Status != shimclient.StatusCreated || st.Pid != 0 {
		t.Errorf("state: %+v, %v", st, err)
	}
	if err := s.KillExec(ctx, "app", "e1", uint32(unix.SIGKILL)); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("kill: %v", err)
	}
	_, err := s.DeleteExec(ctx, "app", "e1")
	must(t, "delete", err)
	if _, err := s.StartExec(ctx, "app", "e1"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("start of a deleted exec: %v", err)
	}
	// The id is free again. It is not tried to start a process twice: that is refused,
	// but it makes the shims of 2.x die when the container ends (a counter of execs
	// goes below zero).
	must(t, "exec", s.Exec(ctx, execOf("app", "e1", "stubborn")))
	pid, err := s.StartExec(ctx, "app", "e1")
	must(t, "start", err)
	if _, err := s.DeleteExec(ctx, "app", "e1"); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("delete of a running exec: %v", err)
	}
	if pids, err := s.Pids(ctx, "app"); err != nil || len(pids) != 2 || !slices.Contains(pids, pid) {
		t.Errorf("pids: %v, %v", pids, err)
	}
	must(t, "close stdin", s.CloseStdin(ctx, "app", "e1"))
	must(t, "kill", s.KillExec(ctx, "app", "e1", uint32(unix.SIGKILL)))
	_, err = s.WaitExec(ctx, "app", "e1")
	must(t, "wait", err)
	if err := s.KillExec(ctx, "app", "e1", uint32(unix.SIGKILL)); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("kill after the end: %v", err)
	}
	// It stays until somebody asks, and is still known when its container has ended.
	must(t, "kill", s.Kill(ctx, "app", uint32(unix.SIGKILL), false))
	_, err = s.Wait(ctx, "app")
	must(t, "wait", err)
	if exit, err := s.WaitExec(ctx, "app", "e1"); err != nil || exit.Code != 137 {
		t.Errorf("wait: %+v, %v", exit, err)
	}
}

func execBeforeStart(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	c := w.Container(t, "pod1", "app", "sleep")
	_, err := s.Create(ctx, c)
	must(t, "create", err)
	must(t, "exec", s.Exec(ctx, execOf("app", "e1", "exit", "6")))
	_, err = s.Start(ctx, "app")
	must(t, "start", err)
	_, err = s.StartExec(ctx, "app", "e1")
	must(t, "start exec", err)
	if exit, err := s.WaitExec(ctx, "app", "e1"); err != nil || exit.Code != 6 {
		t.Errorf("%+v, %v", exit, err)
	}
}

// lastExits tells in what order the ends of processes were published.
func lastExits(t *testing.T, w World, n int) (order []string) {
	t.Helper()
	for timeout := time.After(20 * time.Second); len(order) < n; {
		select {
		case e := <-w.Events():
			if e.Kind == shimclient.ExitEvent {
				order = append(order, e.ID+e.ExecID)
				if e.Code != 137 {
					t.Errorf("%+v", e)
				}
			}
		case <-timeout:
			t.Fatalf("only %v was told", order)
		}
	}
	return order
}

func execDiesWithContainer(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	run(t, w, s, "app", "sleep")
	must(t, "exec", s.Exec(ctx, execOf("app", "e1", "stubborn")))
	pid, err := s.StartExec(ctx, "app", "e1")
	must(t, "start", err)
	must(t, "kill", s.Kill(ctx, "app", uint32(unix.SIGKILL), false))
	for _, id := range []string{"e1", ""} {
		exit, err := s.WaitExec(ctx, "app", id)
		must(t, "wait", err)
		if exit.Code != 137 {
			t.Errorf("%q: %+v", id, exit)
		}
	}
	if w.Alive(pid) {
		t.Error("the exec outlived the namespace's first process")
	}
	if order := lastExits(t, w, 2); order[0] != "appe1" || order[1] != "app" {
		t.Errorf("told in the order %v", order)
	}
	_, err = s.DeleteExec(ctx, "app", "e1")
	must(t, "delete exec", err)
}

// execShared: without a process namespace of its own, it is the shim that ends the
// rest, if there is one.
func execShared(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	start := func(id string) (app, exec int) {
		_, err := s.Create(ctx, w.Shared(t, "pod1", id, "sleep"))
		must(t, "create", err)
		app, err = s.Start(ctx, id)
		must(t, "start", err)
		must(t, "exec", s.Exec(ctx, execOf(id, "e1", "stubborn")))
		exec, err = s.StartExec(ctx, id, "e1")
		must(t, "start exec", err)
		return app, exec
	}
	app, exec := start("app")
	must(t, "kill", s.Kill(ctx, "app", uint32(unix.SIGKILL), false))
	for _, id := range []string{"e1", ""} {
		exit, err := s.WaitExec(ctx, "app", id)
		must(t, "wait", err)
		if exit.Code != 137 {
			t.Errorf("%q: %+v", id, exit)
		}
	}
	if w.Alive(app) || w.Alive(exec) {
		t.Error("it lives")
	}
	if order := lastExits(t, w, 2); order[0] != "appe1" || order[1] != "app" {
		t.Errorf("told in the order %v", order)
	}
	app, exec = start("alone")
	w.Signal(t, s.Ref().Process.Pid, unix.SIGKILL)
	<-s.Gone()
	w.Signal(t, app, unix.SIGKILL)
	dead(t, w, app)
	time.Sleep(300 * time.Millisecond)
	if !w.Alive(exec) {
		t.Error("an exec died though there was no shim")
	}
	w.Signal(t, exec, unix.SIGKILL)
}

// execStuck: an exec that nobody can kill keeps the end of its container back: the
// kernel ends the first process of a process namespace last.
func execStuck(t *testing.T, w World) { holdsBack(t, w, false) }

// execStuckShared: and where that is not so the shim tells it last, so that a
// container with no process of its own is said to run.
func execStuckShared(t *testing.T, w World) { holdsBack(t, w, true) }

func holdsBack(t *testing.T, w World, shared bool) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	c, hangs, let := w.Stuck(t, "pod1", "app", shared, "sleep")
	_, err := s.Create(ctx, c)
	must(t, "create", err)
	app, err := s.Start(ctx, "app")
	must(t, "start", err)
	must(t, "exec", s.Exec(ctx, execOf("app", "e1", "read", "/hung")))
	pid, err := s.StartExec(ctx, "app", "e1")
	must(t, "start exec", err)
	eventually(t, "it hangs", func() bool { return hangs(pid) })
	must(t, "kill", s.Kill(ctx, "app", uint32(unix.SIGKILL), false))
	time.Sleep(500 * time.Millisecond)
	if w.Alive(app) == shared || !w.Alive(pid) {
		t.Errorf("alive: container %v, exec %v", w.Alive(app), w.Alive(pid))
	}
	wantState(t, s, "app", shimclient.State{Pid: app, Status: shimclient.StatusRunning})
	let()
	for _, id := range []string{"e1", ""} {
		exit, err := s.WaitExec(ctx, "app", id)
		must(t, "wait", err)
		if exit.Code != 137 {
			t.Errorf("%q: %+v", id, exit)
		}
	}
}
