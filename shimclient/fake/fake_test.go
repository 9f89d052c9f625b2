package fake_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/fake"
	"github.com/crid-project/crid/shimclient/pidfd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs two containers in one shim.
func start(t *testing.T) (w *fake.World, s *fake.Shim, app, side *fake.Process) {
	t.Helper()
	w = fake.NewWorld()
	s, err := w.Launch(t.Context(), shimclient.Launch{ID: "pod1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"app", "side"} {
		if _, err := s.Create(t.Context(), shimclient.Create{ID: id}); err != nil {
			t.Fatal(err)
		}
		pid, err := s.Start(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		app, side = side, w.Process(pid)
	}
	return w, s, app, side
}

// The fifth experiment of the shim contract: the zombie inside one shim.
func TestHungRuntimeCommandPoisonsTheWholeShim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, app, side := start(t)
		release := w.Jam("app")
		app.Signal(unix.SIGKILL)
		side.Signal(unix.SIGKILL)
		if st, err := s.State(t.Context(), "side"); err != nil || st.Status != shimclient.StatusRunning {
			t.Fatalf("sibling: %+v, %v; the real shim says running", st, err)
		}
		began := time.Now()
		if _, err := s.State(t.Context(), "app"); !errors.Is(err, shimclient.ErrUnreachable) || time.Since(began) != 10*time.Second {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}
		release()
		for _, id := range []string{"app", "side"} {
			if exit, err := s.Wait(t.Context(), id); err != nil || exit.Code != 137 {
				t.Fatalf("%s: %+v, %v", id, exit, err)
			}
		}
	})
}

func TestStuckCommandIsKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, app, _ := start(t)
		w.Jam("app")
		app.Signal(unix.SIGKILL)
		if n, err := w.KillStuckCommands(t.Context(), s.Ref(), "app", time.Second); n != 0 || err != nil {
			t.Fatalf("too early: %d, %v", n, err)
		}
		time.Sleep(time.Second)
		if n, err := w.KillStuckCommands(t.Context(), s.Ref(), "app", time.Second); n != 1 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
		if exit, err := s.Wait(t.Context(), "app"); err != nil || exit.Code != 137 {
			t.Fatalf("%+v, %v", exit, err)
		}
	})
}

func TestFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, app, _ := start(t)
		boom := errors.New("boom")
		var fault fake.Fault
		w.SetFault(func(c fake.Call) fake.Fault {
			if c.Method == "Kill" && c.ID == "app" && c.Shim == "pod1" {
				return fault
			}
			return fake.Fault{}
		})
		kill := func() (time.Duration, error) {
			began := time.Now()
			err := s.Kill(t.Context(), "app", 9, false)
			return time.Since(began), err
		}
		fault = fake.Fault{Err: boom}
		if _, err := kill(); !errors.Is(err, boom) || app.Exited() {
			t.Fatalf("fail before: %v, exited %v", err, app.Exited())
		}
		fault = fake.Fault{Hang: true}
		if took, err := kill(); !errors.Is(err, shimclient.ErrUnreachable) || app.Exited() || took != 10*time.Second {
			t.Fatalf("hang before: %v after %v, exited %v", err, took, app.Exited())
		}
		app.Stick(true)
		fault = fake.Fault{Delay: time.Second}
		if took, err := kill(); err != nil || took != time.Second || app.Exited() {
			t.Fatalf("an unkillable process: %v after %v, exited %v", err, took, app.Exited())
		}
		app.Stick(false)
		if st, ok := app.Status(); !ok || st.Code() != 137 {
			t.Fatal("the pending signal is lost")
		}
	})
}

func TestEffectWithoutAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, app, _ := start(t)
		w.SetFault(func(fake.Call) fake.Fault { return fake.Fault{Hang: true, After: true} })
		if err := s.Kill(t.Context(), "app", 9, false); !errors.Is(err, context.DeadlineExceeded) || !app.Exited() {
			t.Fatalf("%v, exited %v", err, app.Exited())
		}
	})
}

func TestPidIsGivenAway(t *testing.T) {
	w, _, app, _ := start(t)
	was := app.Process()
	app.Exit(3)
	bystander := w.Recycle(was.Pid)
	if bystander.Process().Pid != was.Pid || bystander.Process() == was || w.Lookup(was) != nil {
		t.Fatal("the bystander passes for the dead")
	}
	if app.Signal(unix.SIGKILL) == nil || bystander.Exited() {
		t.Fatal("a pidfd hit a bystander")
	}
}

func TestZombieCanBeOpenedUntilItIsReaped(t *testing.T) {
	w, s, app, side := start(t)
	told := make(chan struct{})
	w.Watch(app, func() { close(told) })
	s.Process().Signal(unix.SIGSTOP)
	app.Exit(42)
	<-told
	if _, err := w.Identify(app.Process().Pid); !errors.Is(err, pidfd.ErrGone) {
		t.Fatal(err)
	}
	p, err := w.Open(app.Process())
	if err != nil {
		t.Fatal(err)
	}
	if st, ok := p.Status(); !ok || st.Code() != 42 {
		t.Fatalf("%v, %v", st, ok)
	}
	s.Process().Signal(unix.SIGCONT)
	if _, err := w.Open(app.Process()); !errors.Is(err, pidfd.ErrGone) {
		t.Fatal("reaped by its shim and opened")
	}
	s.Process().Signal(unix.SIGKILL)
	side.Exit(1)
	if _, err := w.Open(side.Process()); !errors.Is(err, pidfd.ErrGone) {
		t.Fatal("an orphan was not reaped")
	}
}

func TestNewShimAtADeadOnesAddressKnowsNothing(t *testing.T) {
	w, s, app, _ := start(t)
	s.Process().Signal(unix.SIGKILL)
	impostor, err := w.Launch(t.Context(), shimclient.Launch{ID: "pod1"})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := impostor.Connect(t.Context(), "app"); err != nil || info.TaskPid != 0 || info.ShimPid == s.Ref().Process.Pid {
		t.Fatalf("%+v, %v", info, err)
	}
	if _, err := w.Adopt(t.Context(), s.Ref()); !errors.Is(err, shimclient.ErrGone) {
		t.Fatal(err)
	}
	if app.Exited() {
		t.Fatal("the container died with the shim")
	}
}
