package shimclient_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/conformance"
)

func TestRealShimConforms(t *testing.T) {
	conformance.Run(t, nil, func(t *testing.T) conformance.World { return conformance.NewReal(t) })
}

// Shims of an older release, when a path to one is given.
func TestOldShimConforms(t *testing.T) {
	path := os.Getenv("CRID_TEST_OLD_SHIM")
	if path == "" {
		t.Skip("needs $CRID_TEST_OLD_SHIM: the path of a containerd-shim-runc-v2 of 1.6 or 1.7")
	}
	conformance.Run(t, nil, func(t *testing.T) conformance.World {
		w := conformance.NewReal(t)
		w.Runtime.Path = path
		return w
	})
}

// The daemon dies between the shim's start and the record of it.
func TestShimThatNobodyRecordedIsFound(t *testing.T) {
	w := conformance.NewReal(t)
	l := w.Pod(t, "pod1")
	predicted := w.Host.Predict(l)
	if s, err := w.Host.FindUnrecorded(t.Context(), predicted); !errors.Is(err, errdefs.ErrNotFound) {
		s.Close()
		t.Fatal(err)
	}
	lost := w.Launch(t, "pod1")
	if predicted.Address != lost.Ref().Address {
		t.Fatalf("predicted %s, got %s", predicted.Address, lost.Ref().Address)
	}
	lost.Close()

	found, err := w.Host.FindUnrecorded(t.Context(), predicted)
	if err != nil || found.Ref() != lost.Ref() {
		t.Fatalf("%v", err)
	}
	found.Close()

	// Neither its silence nor the loss of its socket hides it.
	w.Signal(t, lost.Ref().Process.Pid, unix.SIGSTOP)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	found, err = w.Host.FindUnrecorded(ctx, predicted)
	if !errors.Is(err, shimclient.ErrUnreachable) || found.Ref().Process != lost.Ref().Process {
		t.Fatalf("%v", err)
	}
	defer found.Close()
	if err := w.Host.Kill(t.Context(), predicted); err != nil {
		t.Fatal(err)
	}
	<-found.Gone()
	if _, err := w.Host.FindUnrecorded(t.Context(), predicted); !errors.Is(err, errdefs.ErrNotFound) {
		t.Fatal(err)
	}
}

func TestImpostorAtADeadShimsAddress(t *testing.T) {
	w := conformance.NewReal(t)
	first := w.Launch(t, "pod1")
	w.Signal(t, first.Ref().Process.Pid, unix.SIGKILL)
	<-first.Gone()
	impostor := w.Launch(t, "pod1")
	if impostor.Ref().Address != first.Ref().Address || impostor.Ref().Process == first.Ref().Process {
		t.Fatalf("%+v", impostor.Ref())
	}
	if _, err := w.Host.Adopt(t.Context(), first.Ref()); !errors.Is(err, shimclient.ErrGone) {
		t.Fatal(err)
	}
	// The dead one's end must not take the living one's socket.
	if err := w.Host.Kill(t.Context(), first.Ref()); err != nil {
		t.Fatal(err)
	}
	if _, err := impostor.Connect(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	if s, err := w.Host.Adopt(t.Context(), impostor.Ref()); err != nil {
		t.Fatal(err)
	} else {
		s.Close()
	}
}

// With a full socket buffer the client library writes under a lock without
// heeding any deadline.
func TestManyCallsToAStoppedShimAllEnd(t *testing.T) {
	w := conformance.NewReal(t)
	s := w.Launch(t, "pod1")
	w.Signal(t, s.Ref().Process.Pid, unix.SIGSTOP)
	before := runtime.NumGoroutine()
	began := time.Now()
	var calls sync.WaitGroup
	for range 3000 {
		calls.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := s.State(ctx, string(make([]byte, 400))); !errors.Is(err, shimclient.ErrUnreachable) {
				t.Errorf("%v", err)
			}
		})
	}
	calls.Wait()
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
	time.Sleep(100 * time.Millisecond)
	if n := runtime.NumGoroutine(); n > before+5 {
		t.Errorf("%d goroutines left", n-before)
	}
	w.Signal(t, s.Ref().Process.Pid, unix.SIGCONT)
	if info, err := s.Connect(t.Context(), "x"); err != nil || info.ShimPid != s.Ref().Process.Pid {
		t.Fatalf("%+v, %v", info, err)
	}
}

// wrap puts a script in the place of runc, for one of its commands.
func wrap(t *testing.T, w *conformance.Real, command, script string) {
	t.Helper()
	runc := w.Runtime.Options["BinaryName"].(string)
	path := filepath.Join(t.TempDir(), "runc")
	text := fmt.Sprintf("#!/bin/sh\nRUNC=%s\ncase \" $* \" in *\" %s \"*)\n%s\n;; esac\nexec $RUNC \"$@\"\n", runc, command, script)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	w.Runtime.Options["BinaryName"] = path
}

// The sixth experiment of the shim contract: what a create leaves behind whose
// deadline came after the container was made.
func TestCreateThatTookTooLongIsCleanedByDeleteTask(t *testing.T) {
	w := conformance.NewReal(t)
	wrap(t, w, "create", `$RUNC "$@"; code=$?; sleep 30; exit $code`)
	s := w.Launch(t, "pod1")
	c := w.Container(t, "pod1", "app", "sleep")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := s.Create(ctx, c); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if err := w.DeleteTask(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(w.Config.State, "runc", "*", "app")); len(left) != 0 {
		t.Fatalf("the runtime's state is still there: %v", left)
	}
}

// The fifth: one hung runc poisons the whole shim, as the fake has it.
func TestHungRuntimeCommandPoisonsTheWholeShim(t *testing.T) {
	w := conformance.NewReal(t)
	wrap(t, w, "kill", `case " $* " in *" app "*) sleep 1000;; esac`)
	s := w.Launch(t, "pod1")
	ids := map[string]int{}
	for _, id := range []string{"app", "side"} {
		if _, err := s.Create(t.Context(), w.Container(t, "pod1", id, "sleep")); err != nil {
			t.Fatal(err)
		}
		pid, err := s.Start(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		ids[id] = pid
	}
	killed := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		killed <- s.Kill(ctx, "app", 9, false)
	}()
	time.Sleep(300 * time.Millisecond) // until runc hangs; nothing tells
	w.Signal(t, ids["app"], unix.SIGKILL)
	time.Sleep(100 * time.Millisecond)
	w.Signal(t, ids["side"], unix.SIGKILL)
	time.Sleep(100 * time.Millisecond)
	if w.Alive(ids["side"]) {
		t.Log("the shim has not reaped it, yet it is dead")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if st, err := s.State(ctx, "side"); err != nil || st.Status != shimclient.StatusRunning {
		t.Fatalf("the sibling: %+v, %v; this shim does not show the zombie any more", st, err)
	}
	if _, err := s.State(ctx, "app"); !errors.Is(err, shimclient.ErrUnreachable) {
		t.Fatalf("the container itself: %v", err)
	}
	if n, err := w.Host.KillStuckCommands(t.Context(), s.Ref(), "side", 0); n != 0 || err != nil {
		t.Fatalf("killed %d commands for a container that has none (%v)", n, err)
	}
	if n, err := w.Host.KillStuckCommands(t.Context(), s.Ref(), "app", time.Hour); n != 0 || err != nil {
		t.Fatalf("killed %d commands as old as the machine (%v)", n, err)
	}
	// The script and its sleep, which would hold the pipes.
	if n, err := w.Host.KillStuckCommands(t.Context(), s.Ref(), "app", 100*time.Millisecond); n != 2 || err != nil {
		t.Fatalf("killed %d, %v", n, err)
	}
	for id := range ids {
		if exit, err := s.Wait(t.Context(), id); err != nil || exit.Code != 137 {
			t.Fatalf("%s: %+v, %v", id, exit, err)
		}
	}
	<-killed
}

func BenchmarkConnect(b *testing.B) {
	host, l := stage2(b)
	s, err := host.Launch(b.Context(), l)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Connect(b.Context(), "x"); err != nil {
			b.Fatal(err)
		}
	}
}

func stage2(b *testing.B) (*shimclient.Host, shimclient.Launch) {
	w := conformance.NewReal(b)
	l := w.Pod(b, "pod1")
	b.Cleanup(func() { w.Host.Kill(context.Background(), w.Host.Predict(l)) })
	return w.Host, l
}

func BenchmarkLaunch(b *testing.B) {
	host, l := stage2(b)
	for b.Loop() {
		s, err := host.Launch(b.Context(), l)
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Shutdown(b.Context()); err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}
