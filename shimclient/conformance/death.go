package conformance

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/pidfd"
)

func exitWhileAway(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	pid := run(t, w, s, "app", "sleep")
	must(t, "close", s.Close())
	w.Signal(t, pid, unix.SIGKILL)
	dead(t, w, pid)

	back, err := w.Adopt(ctx, s.Ref())
	must(t, "adopt", err)
	defer back.Close()
	exit, err := back.Wait(ctx, "app")
	must(t, "wait", err)
	if exit.Code != 137 || exit.At.IsZero() {
		t.Fatalf("%+v", exit)
	}
	wantState(t, back, "app", shimclient.State{Pid: pid, Status: shimclient.StatusStopped, ExitCode: 137})
}

func shimKilled(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	pid := run(t, w, s, "app", "sleep")
	c := w.Container(t, "pod1", "app", "sleep")
	other := run(t, w, s, "other", "sleep")
	waited := waiting(ctx, s, "app")

	w.Signal(t, s.Ref().Process.Pid, unix.SIGKILL)
	<-s.Gone()
	if r := <-waited; !errors.Is(r.err, shimclient.ErrGone) && !errors.Is(r.err, shimclient.ErrUnreachable) {
		t.Fatalf("wait at a dying shim: %+v, %v", r.exit, r.err)
	}
	if !w.Alive(pid) || !w.Alive(other) {
		t.Fatal("the containers died with their shim")
	}
	if _, err := s.State(ctx, "app"); !errors.Is(err, shimclient.ErrGone) || errors.Is(err, errdefs.ErrNotFound) {
		t.Fatalf("state: %v", err)
	}
	if s2, err := w.Adopt(ctx, s.Ref()); !errors.Is(err, shimclient.ErrGone) || s2 != nil {
		t.Fatalf("adopt: %v", err)
	}
	// Each container needs a delete of its own.
	for range 2 { // and it may be repeated
		must(t, "delete task", w.DeleteTask(ctx, c))
	}
	dead(t, w, pid)
	if !w.Alive(other) {
		t.Fatal("deleting one container deleted the other")
	}
}

func shimKilledInCreated(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	c := w.Container(t, "pod1", "app", "sleep")
	pid, err := s.Create(ctx, c)
	must(t, "create", err)
	w.Signal(t, s.Ref().Process.Pid, unix.SIGKILL)
	<-s.Gone()
	if !w.Alive(pid) {
		t.Fatal("the container's init died with the shim")
	}
	must(t, "delete task", w.DeleteTask(ctx, c))
	dead(t, w, pid)
}

func shimStopped(t *testing.T, w World) {
	s := w.Launch(t, "pod1")
	pid := run(t, w, s, "app", "sleep")
	w.Signal(t, s.Ref().Process.Pid, unix.SIGSTOP)

	short := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	if _, err := s.State(short(), "app"); !errors.Is(err, shimclient.ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("state by a stopped shim: %v", err)
	}
	// Its socket answers a dial all the same. The Shim that comes with the error
	// is good for later.
	late, err := w.Adopt(short(), s.Ref())
	if !errors.Is(err, shimclient.ErrUnreachable) || late == nil {
		t.Fatalf("adopt a stopped shim: %v", err)
	}
	defer late.Close()
	w.Signal(t, pid, unix.SIGKILL)
	dead(t, w, pid) // a zombie, for its parent does not reap it

	w.Signal(t, s.Ref().Process.Pid, unix.SIGCONT)
	for _, s := range []shimclient.Tasks{s, late} {
		exit, err := s.Wait(t.Context(), "app")
		must(t, "wait", err)
		if exit.Code != 137 {
			t.Fatalf("%+v", exit)
		}
	}
}

func shimEnded(t *testing.T, w World) {
	ctx := t.Context()
	l := w.Pod(t, "pod1")
	s, err := w.Shims().Launch(ctx, l)
	must(t, "launch", err)
	defer s.Close()
	pid := run(t, w, s, "app", "sleep")
	w.Signal(t, s.Ref().Process.Pid, unix.SIGSTOP) // which does not help it
	for range 2 {
		must(t, "kill", w.Shims().Kill(ctx, s.Ref()))
		if w.Alive(s.Ref().Process.Pid) {
			t.Fatal("killed, and the process lives")
		}
	}
	<-s.Gone()
	if !w.Alive(pid) {
		t.Fatal("the container died with the shim")
	}
	// The next one has no process on record.
	s, err = w.Shims().Launch(ctx, l)
	must(t, "launch", err)
	defer s.Close()
	must(t, "kill", w.Shims().Kill(ctx, w.Shims().Predict(l)))
	<-s.Gone()
}

func shimStoppedAndKilled(t *testing.T, w World) {
	s := w.Launch(t, "pod1")
	pid := run(t, w, s, "app", "sleep")
	w.Signal(t, s.Ref().Process.Pid, unix.SIGSTOP)
	asked := make(chan error, 1)
	go func() { asked <- s.Kill(t.Context(), "app", uint32(unix.SIGKILL), false) }()
	time.Sleep(200 * time.Millisecond) // until it hangs; nothing tells
	w.Signal(t, s.Ref().Process.Pid, unix.SIGKILL)
	<-s.Gone()
	if err := <-asked; !errors.Is(err, shimclient.ErrGone) && !errors.Is(err, shimclient.ErrUnreachable) {
		t.Errorf("a call that hung: %v", err)
	}
	if !w.Alive(pid) {
		t.Error("a call that nobody heard killed the container")
	}
}

func shimStoppedAndFound(t *testing.T, w World) {
	l := w.Pod(t, "pod1")
	s, err := w.Shims().Launch(t.Context(), l)
	must(t, "launch", err)
	defer s.Close()
	w.Signal(t, s.Ref().Process.Pid, unix.SIGSTOP)
	short := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		t.Cleanup(cancel)
		return ctx
	}
	if again, err := w.Shims().Launch(short(), l); err == nil || again != nil {
		t.Errorf("launch: %v", err)
	}
	if !w.Alive(s.Ref().Process.Pid) {
		t.Fatal("the launch that failed killed a shim that was there before it")
	}
	found, err := w.Shims().FindUnrecorded(short(), w.Shims().Predict(l))
	if !errors.Is(err, shimclient.ErrUnreachable) || found == nil {
		t.Fatalf("find: %v", err)
	}
	defer found.Close()
	if found.Ref().Process != s.Ref().Process {
		t.Errorf("found %+v", found.Ref())
	}
	w.Signal(t, s.Ref().Process.Pid, unix.SIGCONT)
	if info, err := found.Connect(t.Context(), "app"); err != nil || info.ShimPid != s.Ref().Process.Pid {
		t.Errorf("%+v, %v", info, err)
	}
	if found.Ref() != s.Ref() {
		t.Errorf("found %+v, want %+v", found.Ref(), s.Ref())
	}
}

// The daemon dies between a shim's start and the record of it.
func unrecorded(t *testing.T, w World) {
	ctx := t.Context()
	l := w.Pod(t, "pod1")
	predicted := w.Shims().Predict(l)
	missing := func() {
		t.Helper()
		if s, err := w.Shims().FindUnrecorded(ctx, predicted); !errors.Is(err, errdefs.ErrNotFound) || s != nil {
			t.Errorf("found a shim that is not there: %v", err)
		}
	}
	missing()
	s, err := w.Shims().Launch(ctx, l)
	must(t, "launch", err)
	pid := run(t, w, s, "app", "sleep")
	must(t, "close", s.Close())
	found, err := w.Shims().FindUnrecorded(ctx, predicted)
	must(t, "find", err)
	defer found.Close()
	if found.Ref() != s.Ref() {
		t.Errorf("found %+v, want %+v", found.Ref(), s.Ref())
	}
	wantState(t, found, "app", shimclient.State{Pid: pid, Status: shimclient.StatusRunning})
	w.Signal(t, s.Ref().Process.Pid, unix.SIGKILL)
	<-found.Gone()
	missing()
}

func impostor(t *testing.T, w World) {
	ctx := t.Context()
	l := w.Pod(t, "pod1")
	first, err := w.Shims().Launch(ctx, l)
	must(t, "launch", err)
	defer first.Close()
	pid := run(t, w, first, "app", "sleep")
	c := w.Container(t, "pod1", "app", "sleep")
	w.Signal(t, first.Ref().Process.Pid, unix.SIGKILL)
	<-first.Gone()
	second, err := w.Shims().Launch(ctx, l)
	must(t, "launch", err)
	defer second.Close()
	if second.Ref().Address != first.Ref().Address || second.Ref().Process == first.Ref().Process {
		t.Fatalf("%+v after %+v", second.Ref(), first.Ref())
	}
	if info, err := second.Connect(ctx, "app"); err != nil || info.TaskPid != 0 || info.ShimPid != second.Ref().Process.Pid {
		t.Errorf("connect: %+v, %v", info, err)
	}
	if _, err := second.State(ctx, "app"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("state: %v", err)
	}
	if _, err := second.Create(ctx, c); err == nil {
		t.Error("a second container of the same id was created")
	}
	if !w.Alive(pid) {
		t.Fatal("the refused create killed the container")
	}
	if s, err := w.Adopt(ctx, first.Ref()); !errors.Is(err, shimclient.ErrGone) || s != nil {
		t.Errorf("adopt the dead: %v", err)
	}
	must(t, "kill the dead", w.Shims().Kill(ctx, first.Ref()))
	if _, err := first.State(ctx, "app"); !errors.Is(err, shimclient.ErrGone) {
		t.Errorf("state by the dead: %v", err)
	}
	back, err := w.Adopt(ctx, second.Ref())
	must(t, "adopt the living", err)
	must(t, "close", back.Close())
}

func rebooted(t *testing.T, w World) {
	ctx := t.Context()
	l := w.Pod(t, "pod1")
	s, err := w.Shims().Launch(ctx, l)
	must(t, "launch", err)
	defer s.Close()
	c := w.Container(t, "pod1", "app", "sleep")
	pid := run(t, w, s, "app", "sleep")
	was, err := w.Identify(pid)
	must(t, "identify", err)
	before, err := w.Open(was)
	must(t, "open", err)
	defer before.Close()
	w.Reboot(t)
	<-s.Gone()
	eventually(t, "all has ended", before.Exited)
	if back, err := w.Adopt(ctx, s.Ref()); !errors.Is(err, shimclient.ErrGone) || back != nil {
		t.Errorf("adopt: %v", err)
	}
	if found, err := w.Shims().FindUnrecorded(ctx, w.Shims().Predict(l)); !errors.Is(err, errdefs.ErrNotFound) || found != nil {
		t.Errorf("find: %v", err)
	}
	for _, p := range []pidfd.Process{was, s.Ref().Process} {
		eventually(t, "it is gone", func() bool {
			_, err := w.Open(p)
			return errors.Is(err, pidfd.ErrGone)
		})
	}
	must(t, "kill the shim", w.Shims().Kill(ctx, s.Ref()))
	if err := w.DeleteTask(ctx, c); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("delete task without a bundle: %v", err)
	}
	select {
	case e := <-w.Events():
		if e.Kind == shimclient.ExitEvent {
			t.Errorf("event of the time before: %+v", e)
		}
	default:
	}
	// And the same names again.
	s, err = w.Shims().Launch(ctx, w.Pod(t, "pod1"))
	must(t, "launch", err)
	defer s.Close()
	if _, err := s.State(ctx, "app"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("state: %v", err)
	}
	run(t, w, s, "app", "sleep")
}
