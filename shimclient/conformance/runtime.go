package conformance

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/pidfd"
)

func stateForgotten(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	pid := run(t, w, s, "app", "sleep")
	c := w.Container(t, "pod1", "app", "sleep")
	w.ForgetRuntimeState(t, "app")

	wantState(t, s, "app", shimclient.State{Pid: pid, Status: shimclient.StatusRunning})
	if err := s.Kill(ctx, "app", uint32(unix.SIGKILL), false); !errors.Is(err, errdefs.ErrNotFound) {
		t.Fatalf("kill: %v", err)
	}
	if !w.Alive(pid) {
		t.Fatal("this world kills without the runtime's state")
	}
	if _, err := s.Delete(ctx, "app"); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Fatalf("delete: %v", err)
	}
	must(t, "delete task", w.DeleteTask(ctx, c)) // "137", it says
	if !w.Alive(pid) {
		t.Fatal("the delete command worked without the runtime's state")
	}
	w.Signal(t, pid, unix.SIGKILL)
	exit, err := s.Wait(ctx, "app")
	must(t, "wait", err)
	if exit.Code != 137 {
		t.Fatalf("%+v", exit)
	}
}

func stateOfDeadForgotten(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	pid := run(t, w, s, "app", "exit", "5")
	_, err := s.Wait(ctx, "app")
	must(t, "wait", err)
	w.ForgetRuntimeState(t, "app")
	wantState(t, s, "app", shimclient.State{Pid: pid, Status: shimclient.StatusStopped, ExitCode: 5})
	exit, err := s.Delete(ctx, "app")
	must(t, "delete", err)
	if exit.Code != 5 {
		t.Errorf("%+v", exit)
	}
}

func orphan(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	c := w.Container(t, "pod1", "app", "sleep")
	pid := w.Orphan(t, s, c)
	if !w.Alive(pid) {
		t.Fatal("nothing was made")
	}
	for name, call := range map[string]func() error{
		"start":  func() error { _, err := s.Start(ctx, "app"); return err },
		"kill":   func() error { return s.Kill(ctx, "app", 9, true) },
		"delete": func() error { _, err := s.Delete(ctx, "app"); return err },
		"state":  func() error { _, err := s.State(ctx, "app"); return err },
		"wait":   func() error { _, err := s.Wait(ctx, "app"); return err },
	} {
		if err := call(); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Create(ctx, c); err == nil {
		t.Error("a second container of the same id was created")
	}
	if !w.Alive(pid) {
		t.Fatal("the refused create killed the container")
	}
	must(t, "delete task", w.DeleteTask(ctx, c))
	dead(t, w, pid)
	// Nobody is told of its end, and nothing of it is in the way.
	pid = run(t, w, s, "app", "sleep")
	for {
		select {
		case e := <-w.Events():
			if e.Kind == shimclient.ExitEvent {
				t.Fatalf("event %+v", e)
			}
			if e.Kind == shimclient.StartEvent && e.Pid == pid {
				return
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the start was not told")
		}
	}
}

func jammed(t *testing.T, w World) {
	s := w.Launch(t, "pod1")
	pids := map[string]int{}
	for _, id := range []string{"app", "side"} {
		pids[id] = run(t, w, s, id, "sleep")
	}
	w.Jam(t, s, "app")
	short := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		t.Cleanup(cancel)
		return ctx
	}
	for name, call := range map[string]func(context.Context) error{
		"state":  func(ctx context.Context) error { _, err := s.State(ctx, "app"); return err },
		"kill":   func(ctx context.Context) error { return s.Kill(ctx, "app", 9, false) },
		"delete": func(ctx context.Context) error { _, err := s.Delete(ctx, "app"); return err },
		"exec":   func(ctx context.Context) error { return s.Exec(ctx, execOf("app", "e9", "exit", "0")) },
	} {
		if err := call(short()); !errors.Is(err, shimclient.ErrUnreachable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What needs not the runtime is answered, and so are the siblings.
	if info, err := s.Connect(t.Context(), "app"); err != nil || info.TaskPid != pids["app"] {
		t.Errorf("connect: %+v, %v", info, err)
	}
	wantState(t, s, "side", shimclient.State{Pid: pids["side"], Status: shimclient.StatusRunning})
	late := run(t, w, s, "late", "exit", "4")
	if exit, err := s.Wait(t.Context(), "late"); err != nil || exit.Code != 4 {
		t.Errorf("a sibling's end before: %+v, %v", exit, err)
	}
	dead(t, w, late)

	must(t, "exec", s.Exec(t.Context(), execOf("side", "e1", "stubborn")))

	// From the end of the container on, nobody's end is seen: the zombie.
	p, err := w.Identify(pids["app"])
	must(t, "identify", err)
	w.Signal(t, pids["app"], unix.SIGKILL)
	eventually(t, "the shim reaps it", func() bool {
		_, err := w.Open(p)
		return errors.Is(err, pidfd.ErrGone)
	})
	time.Sleep(300 * time.Millisecond) // until it has taken it up; nothing tells
	w.Signal(t, pids["side"], unix.SIGKILL)
	dead(t, w, pids["side"])
	time.Sleep(300 * time.Millisecond)
	wantState(t, s, "side", shimclient.State{Pid: pids["side"], Status: shimclient.StatusRunning})
	if _, err := s.StartExec(t.Context(), "side", "e1"); err == nil || errors.Is(err, shimclient.ErrUnreachable) {
		t.Errorf("start an exec in a dead container that is said to run: %v", err)
	}
	if _, err := s.Wait(short(), "side"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait for the sibling: %v", err)
	}
	unstick := func(id string, age time.Duration, want bool) {
		t.Helper()
		if n, err := w.Shims().KillStuckCommands(t.Context(), s.Ref(), id, age); n > 0 != want || err != nil {
			t.Errorf("killed %d commands for %s: %v", n, id, err)
		}
	}
	unstick("side", 0, false)
	unstick("app", time.Hour, false)
	unstick("app", 500*time.Millisecond, true)
	for _, id := range []string{"app", "side"} {
		if exit, err := s.Wait(t.Context(), id); err != nil || exit.Code != 137 {
			t.Errorf("%s: %+v, %v", id, exit, err)
		}
	}
}

// jammedExec: execs have locks of their own.
func jammedExec(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	pid := run(t, w, s, "app", "sleep")
	for _, id := range []string{"e1", "e2"} {
		must(t, "exec", s.Exec(ctx, execOf("app", id, "stubborn")))
	}
	_, err := s.StartExec(ctx, "app", "e1")
	must(t, "start exec", err)
	release := w.Jam(t, s, "app")
	_, err = s.StartExec(ctx, "app", "e2")
	must(t, "start exec while the runtime hangs", err)
	for _, id := range []string{"e1", "e2"} {
		must(t, "kill exec", s.KillExec(ctx, "app", id, uint32(unix.SIGKILL)))
		if exit, err := s.WaitExec(ctx, "app", id); err != nil || exit.Code != 137 {
			t.Errorf("%s: %+v, %v", id, exit, err)
		}
		_, err = s.DeleteExec(ctx, "app", id)
		must(t, "delete exec", err)
	}
	release()
	wantState(t, s, "app", shimclient.State{Pid: pid, Status: shimclient.StatusRunning})
}

func uprooted(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	for _, all := range []bool{false, true} {
		id := fmt.Sprintf("app-%v", all)
		pid := run(t, w, s, id, "sleep")
		w.Uproot(t, id)
		wantState(t, s, id, shimclient.State{Pid: pid, Status: shimclient.StatusRunning})
		must(t, "kill", s.Kill(ctx, id, uint32(unix.SIGKILL), all))
		exit, err := s.Wait(ctx, id)
		must(t, "wait", err)
		if exit.Code != 137 || w.Alive(pid) {
			t.Errorf("%+v", exit)
		}
		_, err = s.Delete(ctx, id)
		must(t, "delete", err)
	}
}
