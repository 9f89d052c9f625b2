//go:build e2e

package shims

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"

	"github.com/crid-project/crid/e2e/faults/inject"
	"github.com/crid-project/crid/e2e/faults/watch"
	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/story"
)

// F36 and row 14: one runtime command that hangs keeps a shim from telling of any end. The kernel tells, and the command is killed.
func TestF36AHungRuncKillPoisonsTheShim(t *testing.T) {
	t.Parallel()
	runc := inject.Runc(t)
	s := story.Alone(t, harness.Crid{Config: runc.Table()})
	watch.Others(s)
	p := inject.Pod(s, "poisoned")
	a, b, c := p.Go(story.Sleeper("a")), p.Go(story.Shell("b", "trap 'exit 5' TERM; echo ready; while :; do sleep 1 & wait $!; done")), p.Go(story.Shell("c", deaf))
	b.Heard("ready")
	c.Heard("ready")
	shim, pids := a.ShimPid(), []int{a.Pid(), b.Pid()}
	runc.Do(map[string]inject.Act{"kill": {Before: time.Hour}})
	asked := runc.Asked("kill")
	shims := inject.Tasks(a)
	ctx, cancel := context.WithCancel(context.Background()) // without a deadline, which the shim would keep
	defer cancel()
	go func() { // somebody asks the shim for a kill, and the command hangs with the shim's lock held
		_, _ = shims.Kill(ctx, &task.KillRequest{ID: a.ID, Signal: 9}) // it hangs
	}()
	s.Eventually("runc kill", 10*time.Second, func() bool { return runc.Asked("kill") > asked })
	start := time.Now()
	inject.Signal(t, pids[0], syscall.SIGKILL)
	inject.Signal(t, pids[1], syscall.SIGTERM)
	s.Eventually("both ends, which the shim cannot tell of", 4*time.Second, func() bool {
		got := inject.States(s)
		return got["a"] == exited && got["b"] == exited
	})
	t.Logf("both are told as exited after %s", time.Since(start))
	if x, y := a.Status().GetExitCode(), b.Status().GetExitCode(); x != 137 || y != 5 {
		t.Errorf("codes %d and %d", x, y)
	}
	if from := b.Info("exitCodeFrom"); from != "kernel" {
		t.Errorf("b's code is known from %v", from)
	}
	c.WantState(running)
	s.Eventually("the command that hangs is killed", 40*time.Second, func() bool { return len(runc.Left()) == 0 })
	s.Eventually("the shim serves again", 20*time.Second, func() bool {
		r, err := s.Exec(t.Context(), c.ID, "true")
		return err == nil && r.GetExitCode() == 0
	})
	if !harness.Alive(shim) {
		t.Error("the shim was killed, and c hangs on it")
	}
	inject.Clear(s, p, 60*time.Second)
}

// F37: a Delete takes longer than it is waited for, before its work or after it, so that the retry finds no task. The shim goes all the same.
func TestF37ADeleteOutlivesItsDeadline(t *testing.T) {
	t.Parallel()
	for when, act := range map[string]inject.Act{"before its work": {Before: 14 * time.Second}, "after its work": {After: 14 * time.Second}} {
		t.Run("F37 "+when, func(t *testing.T) {
			t.Parallel()
			runc := inject.Runc(t)
			s := story.Alone(t, harness.Crid{Config: runc.Table()})
			watch.Others(s)
			p := inject.Pod(s, "slow")
			a := p.Go(story.Shell("a", "trap 'exit 4' TERM; echo ready; while :; do sleep 1 & wait $!; done"))
			b := p.Go(story.Sleeper("b"))
			a.Heard("ready")
			shim := a.ShimPid()
			runc.Do(map[string]inject.Act{"delete": act})
			inject.Within(t, "the stop", a.Stop(10), 5*time.Second)
			if st := a.WantState(exited); st.GetExitCode() != 4 {
				t.Errorf("code %d", st.GetExitCode())
			}
			start := time.Now()
			a.Remove()
			took := time.Since(start)
			inject.Within(t, "the removal", took, 40*time.Second)
			b.WantState(running)
			runc.Well()
			b.Sh("true")
			inject.Clear(s, p, 60*time.Second)
			s.Eventually("the shim has gone", 10*time.Second, func() bool { return !harness.Alive(shim) && len(runc.Left()) == 0 })
			if took < 5*time.Second {
				t.Errorf("the removal took %s: the delete was not late, and this proves nothing", took)
			}
		})
	}
}

// The same in crid itself: its own unmounts take 12 seconds, and ends are told at once.
func TestUnmountsOfCridTakeTwelveSeconds(t *testing.T) {
	t.Parallel()
	s := alone(t)
	p, other := s.Pod("slow"), s.Pod("other")
	a, b := p.Go(story.Shell("a", "trap 'exit 4' TERM; echo ready; while :; do sleep 1 & wait $!; done")), p.Go(story.Sleeper("b"))
	bystander := other.Go(story.Sleeper("bystander"))
	a.Heard("ready")
	pid := a.Pid()
	end := inject.Slow(t, s.Daemon.Pid(), "umount2", 12*time.Second)
	w := watch.Others(s)
	inject.Signal(t, pid, syscall.SIGTERM)
	s.Eventually("the end", 4*time.Second, func() bool { return inject.States(s)["a"] == exited })
	inject.Within(t, "a stop meanwhile", b.Stop(5), 5*time.Second)
	start := time.Now()
	bystander.Sh("true")
	bystander.Stop(5)
	bystander.WantState(exited)
	inject.Within(t, "exec and stop of somebody else", time.Since(start), 10*time.Second)
	w.End(t)
	if inject.Count(s, "mount ", a.ID+"/rootfs") == 0 {
		t.Error("its root file system is unmounted already: this proves nothing")
	}
	end()
	for _, p := range []*story.Pod{p, other} {
		inject.Clear(s, p, 60*time.Second)
	}
}

// Row 17: the OCI runtime has lost what it knew of a container that runs. It runs.
func TestTheRuntimesStateIsWiped(t *testing.T) {
	t.Parallel()
	s := alone(t)
	for _, restart := range []bool{false, true} {
		w := watch.Others(s)
		p := s.Pod("wiped")
		a, b := p.Go(story.Shell("a", deaf)), p.Go(story.Shell("b", "trap 'exit 6' TERM; echo ready; while :; do sleep 1 & wait $!; done"))
		a.Heard("ready")
		b.Heard("ready")
		pids := []int{a.Pid(), b.Pid()}
		for _, c := range []*story.Container{a, b} {
			dirs, err := filepath.Glob(filepath.Join(s.Home.State(), "runc", "*", c.ID))
			if err != nil || len(dirs) != 1 {
				t.Fatalf("the runtime's state of a container: %v (%v)", dirs, err)
			}
			if err := os.RemoveAll(dirs[0]); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err := inject.Tasks(a).Kill(ctx, &task.KillRequest{ID: a.ID, Signal: 15})
		cancel()
		if err == nil || !strings.Contains(strings.ToLower(err.Error()), "not") {
			t.Logf("the shim's answer to a kill: %v", err)
		}
		a.WantState(running)
		if restart {
			w.End(t)
			inject.Crash(s)
			inject.Again(s)
			a.WantState(running)
		}
		inject.Within(t, "the stop", a.Stop(1), 31*time.Second)
		b.Stop(10)
		if x, y := a.WantState(exited).GetExitCode(), b.WantState(exited).GetExitCode(); x != 137 || y != 6 {
			t.Errorf("codes %d and %d", x, y)
		}
		for _, pid := range pids {
			if harness.Alive(pid) {
				t.Errorf("process %d lives", pid)
			}
		}
		inject.Clear(s, p, 60*time.Second)
		w.End(t)
	}
}

// Row 16: the container has ended while crid was down, and the shim has forgotten it: nobody can tell the code.
func TestTheShimHasForgottenAContainerThatEnded(t *testing.T) {
	t.Parallel()
	s := alone(t)
	p := s.Pod("forgotten")
	a, b := p.Go(story.Shell("a", "while [ ! -e /end ]; do sleep 0.05; done; exit 5")), p.Go(story.Sleeper("b"))
	pid, shim := a.Pid(), inject.Tasks(a)
	inject.Crash(s)
	inject.Write(t, filepath.Join("/proc", itoa(pid), "root/end"), "")
	s.Eventually("its end", 10*time.Second, func() bool { return inject.State(pid) == "" })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	s.Eventually("the shim has seen it and forgets it", 10*time.Second, func() bool {
		_, err := shim.Delete(ctx, &task.DeleteRequest{ID: a.ID})
		return err == nil
	})
	inject.Within(t, "the start", inject.Again(s), 10*time.Second)
	if st := a.WantState(exited); st.GetExitCode() != 255 {
		t.Errorf("code %d, known from %v", st.GetExitCode(), a.Info("exitCodeFrom"))
	}
	b.WantState(running)
	b.Sh("true")
	if st := p.Status().GetState(); st != isReady {
		t.Errorf("the pod is %s", st)
	}
	inject.Clear(s, p, 30*time.Second)
}

// F27: somebody tidies /run while everything is up. What is connected stays connected.
func TestF27TheSocketOfAShimIsRemovedUnderARunningCrid(t *testing.T) {
	t.Parallel()
	s := alone(t)
	p := s.Pod("socket")
	a := p.Go(story.Sleeper("a"))
	address, _ := a.Info("shimAddress").(string)
	if err := os.Remove(strings.TrimPrefix(address, "unix://")); err != nil {
		t.Fatal(err)
	}
	a.Sh("true")
	b := p.Go(story.Sleeper("b"))
	b.Sh("true")
	inject.Within(t, "the stop", a.Stop(5), 10*time.Second)
	inject.Clear(s, p, 20*time.Second)
}
