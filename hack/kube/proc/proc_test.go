package proc

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func sleeper(t *testing.T, script string) *Process {
	t.Helper()
	p, err := Start(Spec{Dir: t.TempDir(), Name: "server", Argv: []string{"/bin/sh", "-c", script}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestAServerIsFoundAgainAndStopped(t *testing.T) {
	p := sleeper(t, "exec sleep 600")
	again, err := Find(p.Dir, "server")
	if err != nil || again.Pid() != p.Pid() || !again.Alive() {
		t.Fatalf("found %+v, %v", again, err)
	}
	if _, err := Start(Spec{Dir: p.Dir, Name: "server", Argv: []string{"/bin/true"}}); err == nil {
		t.Error("a second one of that name is started")
	}
	if err := again.Stop(10 * time.Second); err != nil || p.Alive() {
		t.Fatalf("stop: %v, alive %v", err, p.Alive())
	}
	if err := again.Stop(time.Second); err != nil {
		t.Errorf("a second stop: %v", err)
	}
}

// A pid file outlives its process; the number may then be anybody's.
func TestAnotherProcessOfThatNumberIsLeftAlone(t *testing.T) {
	p := sleeper(t, "exec sleep 600")
	other := &Process{Name: "old", Dir: t.TempDir(), id: identity{Pid: p.Pid(), Start: p.id.Start - 1}}
	if other.Alive() {
		t.Error("a process with another start time passes for ours")
	}
	if err := other.Kill(); err != nil || !p.Alive() {
		t.Errorf("it was killed (%v)", err)
	}
}

func TestWhatEndsAtOnceIsToldWithItsLastWords(t *testing.T) {
	p := sleeper(t, "echo last words; exit 3")
	begun := time.Now()
	err := p.WaitFor(t.Context(), time.Minute, func(context.Context) error { return errors.New("not ready") })
	if err == nil || !strings.Contains(err.Error(), "last words") || time.Since(begun) > 30*time.Second {
		t.Errorf("after %s: %v", time.Since(begun), err)
	}
}
