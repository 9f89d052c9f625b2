//go:build e2e

package kernel

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/faults/inject"
	"github.com/crid-project/crid/e2e/faults/watch"
	"github.com/crid-project/crid/e2e/story"
)

// F48 and F49: OOMKilled, every time and in the first status that shows the end, when the kernel killed the main process; never for a child.
func TestF48OutOfMemory(t *testing.T) {
	t.Parallel()
	s := alone(t)
	p := s.Pod("oom")
	rounds := watch.Times(20, 200)
	for _, kind := range []struct {
		name, line, reason string
		code               int32
		rounds             int
	}{
		{"main", "exec tail /dev/zero", "OOMKilled", 137, rounds},
		{"child-0", "tail /dev/zero; exit 0", "Completed", 0, rounds / 5},
		{"child-1", "tail /dev/zero; exit 1", "Error", 1, rounds / 5},
		{"child-137", "tail /dev/zero; exit 137", "Error", 137, rounds / 5},
	} {
		right := 0
		var mu sync.Mutex
		var wait sync.WaitGroup
		next := make(chan int)
		for range 2 {
			wait.Go(func() {
				for n := range next {
					c := limited(fmt.Sprintf("%s-%d", kind.name, n), kind.line, 32<<20)
					id, err := s.Run(t.Context(), p.ID, c, p.Config)
					if err != nil {
						t.Error(err)
						continue
					}
					st, err := s.WaitState(t.Context(), id, exited, 30*time.Second)
					if err != nil {
						t.Error(err)
					} else if st.GetReason() != kind.reason || st.GetExitCode() != kind.code {
						t.Errorf("F48, F49: %s %d: the first status says %q, %d", kind.name, n, st.GetReason(), st.GetExitCode())
					} else {
						mu.Lock()
						right++
						mu.Unlock()
					}
					if err := s.RemoveContainer(t.Context(), id); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for n := range kind.rounds {
			next <- n
		}
		close(next)
		wait.Wait()
		t.Logf("%s: %d of %d right", kind.name, right, kind.rounds)
	}
}

// F50: an exec that is out of memory is not the container; a limit too small to start with is named as the reason.
func TestF50OutOfMemoryInAnExecAndInAStart(t *testing.T) {
	t.Parallel()
	s := alone(t)
	p := s.Pod("oom")
	c := p.Go(limited("c", "trap 'exit 0' TERM; echo ready; while :; do sleep 1 & wait $!; done", 32<<20))
	c.Heard("ready")
	r, err := s.Exec(t.Context(), c.ID, "tail", "/dev/zero")
	if err != nil || r.GetExitCode() != 137 {
		t.Errorf("the exec: code %d (%v)", r.GetExitCode(), err)
	}
	c.WantState(running)
	c.Stop(10)
	if st := c.WantState(exited); st.GetExitCode() != 0 || st.GetReason() != "Completed" {
		t.Errorf("the container: code %d, reason %q", st.GetExitCode(), st.GetReason())
	}
	tiny := p.Make(limited("tiny", "sleep 1000", 1<<20))
	start := time.Now()
	err = s.StartContainer(t.Context(), tiny.ID)
	inject.Within(t, "the failing start", time.Since(start), 20*time.Second)
	if err == nil || !strings.Contains(strings.ToLower(err.Error()), "memory") {
		t.Errorf("the start with 1 MiB: %v", err)
	}
	if st := tiny.WantState(exited); st.GetExitCode() == 0 {
		t.Errorf("code %d, reason %q", st.GetExitCode(), st.GetReason())
	}
	p.Go(story.Sleeper("after")).Sh("true")
}

// F53: programs that stay in the background of an exec and hold its output.
func TestF53ExecsThatLeaveSomebodyBehind(t *testing.T) {
	t.Parallel()
	s := alone(t)
	watch.Others(s)
	c := s.Pod("behind").Go(story.Sleeper("c"))
	c.Sh("true")
	threads := watch.Field(t, s.Daemon.Pid(), "Threads")
	var wait sync.WaitGroup
	next := make(chan int)
	for range 10 {
		wait.Go(func() {
			for range next {
				start := time.Now()
				r, err := s.Runtime.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: c.ID, Cmd: []string{"sh", "-c", "sleep 1000 & echo hi"}, Timeout: 10})
				if err != nil || r.GetExitCode() != 0 || string(r.GetStdout()) != "hi\n" {
					t.Errorf("%d, %q (%v)", r.GetExitCode(), r.GetStdout(), err)
				}
				inject.Within(t, "an exec", time.Since(start), 15*time.Second)
			}
		})
	}
	for n := range watch.Times(50, 1000) {
		next <- n
	}
	close(next)
	wait.Wait()
	// Its pipes are let go of though those who hold the other ends live.
	s.Eventually("crid holds none of their pipes", 15*time.Second, func() bool { return inject.Count(s, "open file ", "/execs/") == 0 })
	if now := watch.Field(t, s.Daemon.Pid(), "Threads"); now > threads+16 {
		t.Errorf("crid had %d threads, now %d", threads, now)
	}
	c.WantState(running)
}

// F54: the main process ends under many execs. Each of them is answered, and the end is told at once.
func TestF54TheMainProcessEndsUnderManyExecs(t *testing.T) {
	t.Parallel()
	s := alone(t)
	watch.Others(s)
	c := s.Pod("storm").Go(story.Shell("c", polite))
	c.Heard("ready")
	n := watch.Times(30, 200)
	answers := make(chan error, n)
	for range n {
		go func() {
			r, err := s.Runtime.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: c.ID, Cmd: []string{"sleep", "60"}, Timeout: 90})
			if err == nil && r.GetExitCode() == 0 {
				err = fmt.Errorf("it says that it ended well")
			} else {
				err = nil
			}
			answers <- err
		}()
	}
	s.Eventually("most of them run", 60*time.Second, func() bool { return len(inject.Procs(c, "pids")) > n*3/4 })
	start := time.Now()
	inject.Signal(t, c.Pid(), 15)
	s.Eventually("the end is told", 10*time.Second, func() bool { return inject.States(s)["c"] == exited })
	t.Logf("told after %s", time.Since(start))
	if st := c.Status(); st.GetExitCode() != 5 {
		t.Errorf("code %d", st.GetExitCode())
	}
	for range n {
		select {
		case err := <-answers:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(60 * time.Second):
			t.Fatal("an exec is not answered")
		}
	}
}

// F55: a program that prints for ever costs 16 MiB.
func TestF55AnExecThatPrintsForEver(t *testing.T) {
	t.Parallel()
	s := alone(t)
	watch.Others(s)
	c := s.Pod("prints").Go(story.Sleeper("c"))
	c.Sh("true")
	before := watch.Field(t, s.Daemon.Pid(), "VmHWM")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	r, err := s.Runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: c.ID, Timeout: 590,
		Cmd: []string{"sh", "-c", fmt.Sprintf("head -c %d /dev/zero; exit 3", int64(watch.Times(400, 10240))<<20)}})
	if err != nil || r.GetExitCode() != 3 || len(r.GetStdout()) > 16<<20 || len(r.GetStdout()) < 15<<20 {
		t.Errorf("%d bytes, code %d (%v)", len(r.GetStdout()), r.GetExitCode(), err)
	}
	after := watch.Field(t, s.Daemon.Pid(), "VmHWM")
	t.Logf("crid's memory at most: %d kB before, %d kB after", before, after)
	if after-before > 80<<10 {
		t.Errorf("it cost crid %d kB", after-before)
	}
	start := time.Now()
	_, err = s.Runtime.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: c.ID, Timeout: 2, Cmd: []string{"yes", "for ever"}})
	if err == nil {
		t.Error("an exec that never ends has ended")
	}
	inject.Within(t, "its end at the timeout", time.Since(start), 15*time.Second)
}
