//go:build e2e

package shims

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crid-project/crid/e2e/faults/inject"
	"github.com/crid-project/crid/e2e/faults/watch"
	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/project"
	"github.com/crid-project/crid/e2e/story"
)

// crictl starts one that ends with the test at the latest; ended is closed when it has.
func crictl(s *story.Story, args ...string) (cmd *exec.Cmd, ended chan struct{}) {
	s.T.Helper()
	program, err := project.Bin("crictl")
	if err != nil {
		s.T.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	endpoint := "unix://" + s.Socket
	cmd = exec.CommandContext(ctx, program, append([]string{"--config", "/dev/null", "--runtime-endpoint", endpoint, "--image-endpoint", endpoint}, args...)...)
	if _, err := cmd.StdinPipe(); err != nil { // held open: the other side decides
		s.T.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.T.Fatal(err)
	}
	ended = make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	s.T.Cleanup(func() { cancel(); <-ended })
	return cmd, ended
}

// F17: a dead shim takes its whole pod along, with whoever is connected to it, and nobody else.
func TestF17AShimIsKilledUnderThreeContainersAnExecAndAPortForward(t *testing.T) {
	t.Parallel()
	s := alone(t)
	watch.Others(s)
	p, other := s.Pod("victim"), s.Pod("other")
	var all []*story.Container
	for n := range 3 {
		all = append(all, p.Go(story.Shell(fmt.Sprintf("c%d", n), deaf)))
	}
	own := p.Go(story.Shell("own", "exit 42"))
	own.Exited()
	bystander := other.Go(story.Sleeper("bystander"))
	exec, gone := crictl(s, "exec", "-i", all[0].ID, "sh", "-c", "echo 1; cat")
	crictl(s, "port-forward", p.ID, "12777:80")
	s.Eventually("the exec runs", 20*time.Second, func() bool {
		r, err := s.Exec(t.Context(), all[0].ID, "pgrep", "-x", "cat")
		return err == nil && r.GetExitCode() == 0
	})
	s.Eventually("the port is forwarded", 20*time.Second, func() bool {
		c, err := net.DialTimeout("tcp", "127.0.0.1:12777", time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	var pids []int
	for _, c := range all {
		pids = append(pids, c.Pid())
	}
	inject.Signal(t, all[0].ShimPid(), syscall.SIGKILL)
	s.Eventually("all its containers have exited, without a call", 10*time.Second, func() bool {
		got := inject.States(s)
		return got["c0"] == exited && got["c1"] == exited && got["c2"] == exited
	})
	for n, c := range all {
		if harness.Alive(pids[n]) {
			t.Errorf("the process of c%d lives", n)
		}
		if st := c.Status(); st.GetExitCode() != 137 || st.GetReason() != "Error" {
			t.Errorf("c%d: code %d, reason %q", n, st.GetExitCode(), st.GetReason())
		}
	}
	if st := own.Status(); st.GetExitCode() != 42 {
		t.Errorf("what had ended by itself has code %d now", st.GetExitCode())
	}
	s.Eventually("the pod is not ready", 5*time.Second, func() bool { return p.Status().GetState() == notReady })
	select {
	case <-gone:
		if exec.ProcessState.Success() {
			t.Error("the exec says that it ended well")
		}
	case <-time.After(20 * time.Second):
		t.Error("the exec's client was not told")
	}
	bystander.WantState(running)
	bystander.Sh("true")
	inject.Clear(s, p, 20*time.Second)
}

// F18: the shim dies while a start is under way. The start fails, nothing half made is left, and a pod of the same kind works at once.
func TestF18AShimDiesDuringAStart(t *testing.T) {
	t.Parallel()
	runc := inject.Runc(t)
	s := story.Alone(t, harness.Crid{Config: runc.Table()})
	watch.Others(s)
	for _, when := range []string{"before the create", "in the create", "after the create", "in the start"} {
		t.Run("F18 "+when, func(t *testing.T) {
			p := inject.Pod(s, "start-"+strings.ReplaceAll(when, " ", "-"))
			c := p.Make(story.Sleeper("c"))
			shim := c.ShimPid()
			acts := map[string]inject.Act{}
			verb := "create"
			switch when {
			case "in the create":
				acts["create"] = inject.Act{Before: 5 * time.Second}
			case "after the create":
				acts["create"] = inject.Act{After: 5 * time.Second}
			case "in the start":
				acts["start"], verb = inject.Act{Before: 5 * time.Second}, "start"
			}
			runc.Do(acts)
			before := runc.Asked(verb)
			answer := make(chan error, 1)
			if when == "before the create" {
				inject.Signal(t, shim, syscall.SIGKILL)
				s.Eventually("the pod is not ready", 10*time.Second, func() bool { return p.Status().GetState() == notReady })
				go func() { answer <- s.StartContainer(t.Context(), c.ID) }()
			} else {
				go func() { answer <- s.StartContainer(t.Context(), c.ID) }()
				s.Eventually("runc "+verb, 10*time.Second, func() bool { return runc.Asked(verb) > before })
				if when == "after the create" {
					s.Eventually("runc init", 10*time.Second, func() bool { return len(inits(s)) > 0 })
				}
				inject.Signal(t, shim, syscall.SIGKILL)
			}
			select {
			case err := <-answer:
				if err == nil {
					t.Error("the start succeeds")
				}
			case <-time.After(20 * time.Second):
				t.Error("the start is not answered")
			}
			s.Eventually("nothing of the start lives", 15*time.Second, func() bool { return len(inits(s)) == 0 && len(runc.Left()) == 0 })
			if st := c.Status().GetState(); st == running {
				t.Errorf("it is %s", st)
			}
			s.Eventually("the pod is not ready", 10*time.Second, func() bool { return p.Status().GetState() == notReady })
			runc.Well()
			inject.Clear(s, p, 30*time.Second)
			again := inject.Pod(s, "again")
			again.Go(story.Sleeper("c")).Sh("true")
			inject.Clear(s, again, 30*time.Second)
		})
	}
}

// inits are processes that runc has made and that are not the workload yet.
func inits(s *story.Story) []string {
	var found []string
	for thing := range s.Census(context.Background()) {
		if strings.HasPrefix(thing, "process in a cgroup: ") && strings.Contains(thing, "runc init") {
			found = append(found, thing)
		}
	}
	return found
}

// F19: the shim dies while its pod is being ended. The end comes all the same.
func TestF19AShimDiesDuringAStop(t *testing.T) {
	t.Parallel()
	runc := inject.Runc(t)
	s := story.Alone(t, harness.Crid{Config: runc.Table()})
	watch.Others(s)
	t.Run("F19 in the grace", func(t *testing.T) {
		p := inject.Pod(s, "grace")
		c := p.Go(story.Shell("c", deaf))
		c.Heard("ready")
		shim := c.ShimPid()
		answer := make(chan error, 1)
		go func() { answer <- s.StopContainer(t.Context(), c.ID, 60) }()
		time.Sleep(300 * time.Millisecond)
		inject.Signal(t, shim, syscall.SIGKILL)
		select {
		case err := <-answer:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(15 * time.Second):
			t.Error("the stop waits for the rest of the grace")
		}
		if st := c.WantState(exited); st.GetExitCode() != 137 {
			t.Errorf("code %d", st.GetExitCode())
		}
		inject.Clear(s, p, 30*time.Second)
	})
	t.Run("F19 in the delete", func(t *testing.T) {
		p := inject.Pod(s, "delete")
		c := p.Go(story.Shell("c", "trap 'exit 6' TERM; echo ready; while :; do sleep 1 & wait $!; done"))
		c.Heard("ready")
		shim := c.ShimPid()
		runc.Do(map[string]inject.Act{"delete": {Before: 3 * time.Second}})
		before := runc.Asked("delete")
		c.Stop(10)
		s.Eventually("runc delete", 10*time.Second, func() bool { return runc.Asked("delete") > before })
		inject.Signal(t, shim, syscall.SIGKILL)
		if st := c.WantState(exited); st.GetExitCode() != 6 {
			t.Errorf("code %d", st.GetExitCode())
		}
		runc.Well()
		inject.Clear(s, p, 30*time.Second)
	})
	t.Run("F19 in the shutdown", func(t *testing.T) {
		for round := range watch.Times(5, 30) {
			p := s.Pod(fmt.Sprintf("shutdown-%d", round))
			shim := p.Go(story.Sleeper("c")).ShimPid()
			answer := make(chan error, 1)
			go func() { answer <- s.StopPod(t.Context(), p.ID) }()
			time.Sleep(time.Duration(round*13%97) * time.Millisecond)
			_ = syscall.Kill(shim, syscall.SIGKILL) // it may have gone by itself: it is the test's own until the pod is stopped
			if err := <-answer; err != nil {
				t.Errorf("round %d: %v", round, err)
			}
			inject.Clear(s, p, 30*time.Second)
		}
	})
}

// F25: signals that shims are sent by mistake. What a shim does not survive is F17.
func TestF25SignalsThatAShimIsSent(t *testing.T) {
	t.Parallel()
	s := alone(t)
	watch.Others(s)
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGTERM, syscall.SIGINT} {
		p := s.Pod("signal-" + strings.ReplaceAll(sig.String(), " ", "-"))
		c := p.Go(story.Sleeper("c"))
		pid, shim := c.Pid(), c.ShimPid()
		inject.Signal(t, shim, sig)
		time.Sleep(300 * time.Millisecond)
		if harness.Alive(shim) {
			c.WantState(running)
			c.Sh("true")
			if st := p.Status().GetState(); st != isReady {
				t.Errorf("%s: the shim lives, the pod is %s", sig, st)
			}
		} else {
			s.Eventually(sig.String()+": the pod has gone with its shim", 10*time.Second, func() bool {
				return inject.States(s)["c"] == exited && !harness.Alive(pid) && p.Status().GetState() == notReady
			})
		}
		t.Logf("%s: the shim lives: %t", sig, harness.Alive(shim))
		inject.Clear(s, p, 20*time.Second)
	}
}

// F28 and F29: what a dead shim leaves while crid is down. What lives is killed; of what was killed, nobody is left to tell the code.
func TestF29ShimAndMembersDieWhileCridIsDown(t *testing.T) {
	t.Parallel()
	s := alone(t)
	p, other := s.Pod("all"), s.Pod("alive")
	a, b := p.Go(story.Sleeper("a")), p.Go(story.Shell("b", deaf))
	c := other.Go(story.Shell("c", deaf))
	bystander := s.Pod("bystander").Go(story.Sleeper("bystander"))
	shims, pids, last := []int{a.ShimPid(), c.ShimPid()}, []int{a.Pid(), b.Pid()}, c.Pid()
	inject.Crash(s)
	for _, pid := range append(shims, pids...) {
		inject.Signal(t, pid, syscall.SIGKILL)
	}
	for _, pid := range pids { // as long as one is not reaped its code can be read
		s.Eventually("they are reaped", 15*time.Second, func() bool { return inject.State(pid) == "" })
	}
	began := time.Now()
	inject.Within(t, "the start", inject.Again(s), 10*time.Second)
	for _, c := range []*story.Container{a, b} {
		st := c.WantState(exited) // the first list is right already
		if at := time.Unix(0, st.GetFinishedAt()); st.GetExitCode() != 255 || at.Before(began.Add(-time.Second)) {
			t.Errorf("F29: code %d, finished at %s, found after %s", st.GetExitCode(), at, began)
		}
		if from := c.Info("exitCodeFrom"); from != "assumed" {
			t.Errorf("F29: it is said to be known from %v", from)
		}
	}
	s.Eventually("F28: what lived has exited", 15*time.Second, func() bool { return inject.States(s)["c"] == exited && !harness.Alive(last) })
	if st := c.Status(); st.GetExitCode() != 137 {
		t.Errorf("F28: code %d", st.GetExitCode())
	}
	s.Eventually("the pods are not ready", 10*time.Second, func() bool {
		return p.Status().GetState() == notReady && other.Status().GetState() == notReady
	})
	bystander.WantState(running)
	bystander.Sh("true")
	for _, p := range []*story.Pod{p, other} {
		inject.Clear(s, p, 20*time.Second)
	}
}
