package conformance

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/shimclient"
)

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

func eventsOfExec(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	app := run(t, w, s, "app", "sleep")
	must(t, "exec", s.Exec(ctx, execOf("app", "e1", "exit", "8")))
	pid, err := s.StartExec(ctx, "app", "e1")
	must(t, "start exec", err)
	_, err = s.WaitExec(ctx, "app", "e1")
	must(t, "wait", err)
	_, err = s.DeleteExec(ctx, "app", "e1")
	must(t, "delete exec", err)
	must(t, "pause", s.Pause(ctx, "app"))
	must(t, "resume", s.Resume(ctx, "app"))
	type told struct {
		kind      shimclient.Kind
		exec      string
		pid, code int
	}
	want := []told{
		{shimclient.CreateEvent, "", app, 0}, {shimclient.StartEvent, "", app, 0}, {shimclient.StartEvent, "e1", pid, 0},
		{shimclient.ExitEvent, "e1", pid, 8}, {shimclient.PausedEvent, "", 0, 0}, {shimclient.ResumedEvent, "", 0, 0},
	}
	for _, x := range want {
		select {
		case e := <-w.Events():
			if got := (told{e.Kind, e.ExecID, e.Pid, e.Code}); got != x || e.ID != "app" {
				t.Fatalf("%+v, want %+v", e, x)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("never came: %v", x)
		}
	}
}

// exitEvent waits for the end of a container to be told.
func exitEvent(w World, id string, within time.Duration) (shimclient.Event, bool) {
	for timeout := time.After(within); ; {
		select {
		case e := <-w.Events():
			if e.Kind == shimclient.ExitEvent && e.ID == id {
				return e, true
			}
		case <-timeout:
			return shimclient.Event{}, false
		}
	}
}

// eventsLate: an event of which nobody hears is offered again.
func eventsLate(t *testing.T, w World) {
	s := w.Launch(t, "pod1")
	pid := run(t, w, s, "app", "sleep")
	hear := w.Deaf(t)
	w.Signal(t, pid, unix.SIGTERM)
	exit, err := s.Wait(t.Context(), "app")
	must(t, "wait", err)
	time.Sleep(1500 * time.Millisecond)
	hear()
	e, ok := exitEvent(w, "app", 20*time.Second)
	if !ok || e.Pid != pid || e.Code != 143 || !e.At.Equal(exit.At) {
		t.Errorf("%+v, %v; want %+v", e, ok, exit)
	}
}

// eventsLost: but not for ever. The shim knows the end all the same.
func eventsLost(t *testing.T, w World) {
	s := w.Launch(t, "pod1")
	pid := run(t, w, s, "app", "sleep")
	must(t, "close", s.Close())
	hear := w.Deaf(t)
	w.Signal(t, pid, unix.SIGTERM)
	dead(t, w, pid)
	died := time.Now()
	time.Sleep(22 * time.Second)
	hear()
	if e, ok := exitEvent(w, "app", 2*time.Second); ok {
		t.Errorf("%+v, which nobody took for 22 s", e)
	}
	back, err := w.Adopt(t.Context(), s.Ref())
	must(t, "adopt", err)
	defer back.Close()
	wantState(t, back, "app", shimclient.State{Pid: pid, Status: shimclient.StatusStopped, ExitCode: 143})
	exit, err := back.Wait(t.Context(), "app")
	must(t, "wait", err)
	if off := exit.At.Sub(died); exit.Code != 143 || off < -5*time.Second || off > 5*time.Second {
		t.Errorf("%+v, %v from its death", exit, off)
	}
}

// eventsDie: what a shim could not tell dies with it.
func eventsDie(t *testing.T, w World) {
	s := w.Launch(t, "pod1")
	pid := run(t, w, s, "app", "sleep")
	hear := w.Deaf(t)
	w.Signal(t, pid, unix.SIGTERM)
	_, err := s.Wait(t.Context(), "app")
	must(t, "wait", err)
	w.Signal(t, s.Ref().Process.Pid, unix.SIGKILL)
	<-s.Gone()
	hear()
	if e, ok := exitEvent(w, "app", 2*time.Second); ok {
		t.Errorf("%+v, of a dead shim", e)
	}
}
