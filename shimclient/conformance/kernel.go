package conformance

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/pidfd"
)

// reaped: what the kernel tells of a process that has ended.
func reaped(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	pid := run(t, w, s, "app", "sleep")
	p, err := w.Identify(pid)
	must(t, "identify", err)
	before, err := w.Open(p)
	must(t, "open", err)
	defer before.Close()
	if _, ok := before.Status(); ok || before.Exited() {
		t.Error("a living process has an end")
	}
	if _, err := w.Open(pidfd.Process{Pid: pid, StartTime: p.StartTime + 1}); !errors.Is(err, pidfd.ErrGone) {
		t.Errorf("open another of the same pid: %v", err)
	}
	// A zombie, while its shim does not reap it.
	w.Signal(t, s.Ref().Process.Pid, unix.SIGSTOP)
	w.Signal(t, pid, unix.SIGTERM)
	dead(t, w, pid)
	if _, err := w.Identify(pid); !errors.Is(err, pidfd.ErrGone) {
		t.Errorf("identify the dead: %v", err)
	}
	late, err := w.Open(p)
	must(t, "open a zombie", err)
	defer late.Close()
	code := func(when string, h Handle) {
		t.Helper()
		if st, ok := h.Status(); !ok || st.Code() != 143 || !h.Exited() {
			t.Errorf("%s: %+v, %v", when, st, ok)
		}
		if err := h.Signal(unix.SIGKILL); !errors.Is(err, pidfd.ErrGone) && err != nil {
			t.Errorf("%s: signal to the dead: %v", when, err)
		}
	}
	code("zombie", before)
	code("zombie opened late", late)
	w.Signal(t, s.Ref().Process.Pid, unix.SIGCONT)
	_, err = s.Wait(ctx, "app")
	must(t, "wait", err)
	code("reaped", before)
	if _, err := w.Open(p); !errors.Is(err, pidfd.ErrGone) {
		t.Errorf("open after all: %v", err)
	}
}

// orphanReaped: without a shim the end of a container is its holder's to know.
func orphanReaped(t *testing.T, w World) {
	s := w.Launch(t, "pod1")
	pid := run(t, w, s, "app", "sleep")
	p, err := w.Identify(pid)
	must(t, "identify", err)
	h, err := w.Open(p)
	must(t, "open", err)
	defer h.Close()
	w.Signal(t, s.Ref().Process.Pid, unix.SIGKILL)
	<-s.Gone()
	must(t, "signal", h.Signal(unix.SIGTERM))
	dead(t, w, pid)
	eventually(t, "the first process reaps it", func() bool {
		_, err := w.Open(p)
		return errors.Is(err, pidfd.ErrGone)
	})
	if st, ok := h.Status(); !ok || st.Code() != 143 {
		t.Errorf("%+v, %v", st, ok)
	}
}

func frozen(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	pid := run(t, w, s, "app", "sleep")
	w.Freeze(t, "app", true)
	defer w.Freeze(t, "app", false)
	wantState(t, s, "app", shimclient.State{Pid: pid, Status: shimclient.StatusRunning})
	must(t, "SIGTERM", s.Kill(ctx, "app", uint32(unix.SIGTERM), false))
	time.Sleep(300 * time.Millisecond)
	if !w.Alive(pid) {
		t.Fatal("it heeds SIGTERM though it is frozen")
	}
	must(t, "exec", s.Exec(ctx, execOf("app", "e1", "exit", "0")))
	if _, err := s.StartExec(ctx, "app", "e1"); err == nil || errors.Is(err, shimclient.ErrUnreachable) {
		t.Errorf("start exec in a frozen container: %v", err)
	}
	w.Freeze(t, "app", false)
	exit, err := s.Wait(ctx, "app")
	must(t, "wait", err)
	if exit.Code != 143 {
		t.Errorf("%+v", exit)
	}
}

func frozenAndKilled(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	outside := run(t, w, s, "outside", "sleep")
	w.Freeze(t, "outside", true)
	w.Signal(t, outside, unix.SIGKILL)
	time.Sleep(300 * time.Millisecond)
	if !w.Alive(outside) {
		t.Error("SIGKILL got through to a frozen process")
	}
	w.Freeze(t, "outside", false)
	dead(t, w, outside)
	for _, all := range []bool{false, true} {
		id := fmt.Sprintf("app-%v", all)
		pid := run(t, w, s, id, "sleep")
		w.Freeze(t, id, true)
		must(t, "SIGKILL", s.Kill(ctx, id, uint32(unix.SIGKILL), all))
		dead(t, w, pid) // the runtime thaws it
	}
	c := w.Container(t, "pod1", "deleted", "sleep")
	pid := run(t, w, s, "deleted", "sleep")
	w.Freeze(t, "deleted", true)
	must(t, "delete task", w.DeleteTask(ctx, c))
	dead(t, w, pid)
}

func processStopped(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	pid := run(t, w, s, "app", "sleep")
	other := run(t, w, s, "other", "sleep")
	for _, p := range []int{pid, other} {
		w.Signal(t, p, unix.SIGSTOP)
	}
	wantState(t, s, "app", shimclient.State{Pid: pid, Status: shimclient.StatusRunning})
	must(t, "SIGTERM", s.Kill(ctx, "app", uint32(unix.SIGTERM), false))
	time.Sleep(300 * time.Millisecond)
	if !w.Alive(pid) {
		t.Fatal("it heeds SIGTERM though it is stopped")
	}
	w.Signal(t, pid, unix.SIGCONT)
	exit, err := s.Wait(ctx, "app")
	must(t, "wait", err)
	if exit.Code != 143 {
		t.Errorf("%+v", exit)
	}
	must(t, "SIGKILL", s.Kill(ctx, "other", uint32(unix.SIGKILL), false))
	exit, err = s.Wait(ctx, "other")
	must(t, "wait", err)
	if exit.Code != 137 {
		t.Errorf("%+v", exit)
	}
}

func stuck(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	c, hangs, let := w.Stuck(t, "pod1", "app", false, "read", "/hung")
	_, err := s.Create(ctx, c)
	must(t, "create", err)
	pid, err := s.Start(ctx, "app")
	must(t, "start", err)
	eventually(t, "it hangs", func() bool { return hangs(pid) })
	side := run(t, w, s, "side", "exit", "1")

	must(t, "kill", s.Kill(ctx, "app", uint32(unix.SIGKILL), false))
	time.Sleep(300 * time.Millisecond)
	wantState(t, s, "app", shimclient.State{Pid: pid, Status: shimclient.StatusRunning})
	if _, err := s.Delete(ctx, "app"); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("delete: %v", err)
	}
	if exit, err := s.Wait(ctx, "side"); err != nil || exit.Code != 1 || w.Alive(side) {
		t.Errorf("a sibling: %+v, %v", exit, err)
	}
	w.Signal(t, s.Ref().Process.Pid, unix.SIGKILL)
	<-s.Gone()
	must(t, "delete task", w.DeleteTask(ctx, c)) // after 10 s of trying
	if !w.Alive(pid) {
		t.Fatal("it was not beyond reach")
	}
	let()
	dead(t, w, pid)
	must(t, "delete task", w.DeleteTask(ctx, c))
}
