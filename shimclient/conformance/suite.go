package conformance

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/shimclient"
)

// Run holds a world to the shim contract. newWorld is called once per test.
func Run(t *testing.T, newWorld func(*testing.T) World) {
	for _, c := range []struct {
		name string
		test func(*testing.T, World)
	}{
		{"life of a container", life},
		{"exit code of a process that ends by itself", ownExit},
		{"what is refused", refusals},
		{"unknown ids", unknownIDs},
		{"containers of one shim do not meet", siblings},
		{"exit while nobody was connected", exitWhileAway},
		{"shim is killed, containers live on", shimKilled},
		{"shim is killed before the start", shimKilledInCreated},
		{"shim is stopped, and goes on", shimStopped},
		{"runtime has lost its state of a living container", stateForgotten},
		{"exec", execs},
		{"exec after the end", execAfterEnd},
		{"pause", pause},
		{"update", update},
		{"events are published", eventsPublished},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, newWorld(t)) })
	}
}

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

func pause(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	pid := run(t, w, s, "app", "sleep")
	must(t, "pause", s.Pause(ctx, "app"))
	wantState(t, s, "app", shimclient.State{Pid: pid, Status: shimclient.StatusPaused})
	must(t, "resume", s.Resume(ctx, "app"))
	wantState(t, s, "app", shimclient.State{Pid: pid, Status: shimclient.StatusRunning})
}

func update(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	run(t, w, s, "app", "sleep")
	limit := int64(77)
	resources := &oci.LinuxResources{Pids: &oci.LinuxPids{Limit: &limit}}
	must(t, "update", s.Update(ctx, "app", resources, nil))
	if err := s.Update(ctx, "nobody", resources, nil); !errors.Is(err, errdefs.ErrNotFound) {
		t.Fatalf("update of nobody: %v", err)
	}
	must(t, "kill", s.Kill(ctx, "app", uint32(unix.SIGKILL), false))
	_, err := s.Wait(ctx, "app")
	must(t, "wait", err)
	if err := s.Update(ctx, "app", resources, nil); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Fatalf("update of a stopped container: %v", err)
	}
}

func eventsPublished(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	pid := run(t, w, s, "app", "exit", "42")
	_, err := s.Wait(ctx, "app")
	must(t, "wait", err)
	_, err = s.Delete(ctx, "app")
	must(t, "delete", err)
	want := map[shimclient.Kind]int{shimclient.CreateEvent: 0, shimclient.StartEvent: 0, shimclient.ExitEvent: 42, shimclient.DeleteEvent: 42}
	timeout := time.After(10 * time.Second)
	for len(want) > 0 {
		select {
		case e := <-w.Events():
			code, ok := want[e.Kind]
			if !ok || e.ID != "app" || e.ExecID != "" || e.Pid != pid || e.Code != code {
				t.Fatalf("event %+v, still wanted %v", e, want)
			}
			delete(want, e.Kind)
		case <-timeout:
			t.Fatalf("never came: %v", want)
		}
	}
}

// run creates and starts a container and returns its pid.
func run(t *testing.T, w World, s shimclient.Tasks, id string, args ...string) int {
	t.Helper()
	_, err := s.Create(t.Context(), w.Container(t, s.Ref().ID, id, args...))
	must(t, "create "+id, err)
	pid, err := s.Start(t.Context(), id)
	must(t, "start "+id, err)
	return pid
}

func execOf(id, execID string, args ...string) shimclient.ExecSpec {
	return shimclient.ExecSpec{ID: id, ExecID: execID, Process: Process(args...)}
}

type result struct {
	exit shimclient.Exit
	err  error
}

func waiting(ctx context.Context, s shimclient.Tasks, id string) <-chan result {
	c := make(chan result, 1)
	go func() {
		exit, err := s.Wait(ctx, id)
		c <- result{exit, err}
	}()
	return c
}

// wantState ignores the time of the exit.
func wantState(t *testing.T, s shimclient.Tasks, id string, want shimclient.State) {
	t.Helper()
	got, err := s.State(t.Context(), id)
	must(t, "state", err)
	if (want.Status == shimclient.StatusStopped) == got.ExitedAt.IsZero() {
		t.Fatalf("state of %s: %v at %v", id, got.Status, got.ExitedAt)
	}
	got.ExitedAt = time.Time{}
	if got != want {
		t.Fatalf("state of %s: %+v, want %+v", id, got, want)
	}
}

func dead(t *testing.T, w World, pid int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); w.Alive(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("pid %d does not die", pid)
		}
	}
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
