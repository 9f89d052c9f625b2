//go:build e2e

package shims

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/faults/inject"
	"github.com/crid-project/crid/e2e/faults/watch"
	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/story"
)

// F22: a stopped shim keeps no call from doing what it is for.
func TestF22AStoppedShimKeepsNobodyFromEnding(t *testing.T) {
	t.Parallel()
	s := alone(t)
	watch.Others(s)
	for name, end := range map[string]func(p *story.Pod, c *story.Container) error{
		"StopContainer": func(p *story.Pod, c *story.Container) error {
			if err := s.StopContainer(t.Context(), c.ID, 5); err != nil {
				return err
			}
			if st := c.WantState(exited); st.GetExitCode() != 137 {
				t.Errorf("StopContainer: code %d", st.GetExitCode())
			}
			return s.RemoveContainer(t.Context(), c.ID)
		},
		"StopPodSandbox":   func(p *story.Pod, _ *story.Container) error { return s.StopPod(t.Context(), p.ID) },
		"RemovePodSandbox": func(p *story.Pod, _ *story.Container) error { return s.RemovePod(t.Context(), p.ID) },
	} {
		t.Run("F22 "+name, func(t *testing.T) {
			t.Parallel()
			p := s.Pod("hung-" + fmt.Sprint(len(name)))
			c, d := p.Go(story.Shell("c", deaf)), p.Go(story.Sleeper("d"))
			c.Heard("ready")
			// The first process of a process namespace cannot end before the shim has reaped what it started in there.
			go func() { _, _ = s.Exec(context.Background(), c.ID, "sleep", "4343") }() // it ends with the container
			s.Eventually("an exec runs", 15*time.Second, func() bool {
				r, err := s.Exec(t.Context(), c.ID, "pgrep", "-f", "^sleep 4343")
				return err == nil && r.GetExitCode() == 0
			})
			pids, shim := []int{c.Pid(), d.Pid()}, c.ShimPid()
			inject.Stop(t, shim)
			start := time.Now()
			if err := end(p, c); err != nil {
				t.Error(err)
			}
			inject.Within(t, name+" with a stopped shim", time.Since(start), 35*time.Second)
			inject.Clear(s, p, 60*time.Second)
			for _, pid := range append(pids, shim) {
				if harness.Alive(pid) {
					t.Errorf("process %d lives on", pid)
				}
			}
		})
	}
}

// Row 19 of the state table, and row 18: a shim that hangs for good is killed once nobody lives in its pod, and never before.
func TestF21AShimThatHangsForGood(t *testing.T) {
	t.Parallel()
	s := alone(t)
	watch.Others(s)
	idle, busy := s.Pod("idle"), s.Pod("busy")
	a := idle.Go(story.Shell("a", "trap 'exit 3' TERM; echo ready; while :; do sleep 1 & wait $!; done"))
	a.Heard("ready")
	b, dead := busy.Go(story.Sleeper("b")), busy.Go(story.Sleeper("dead"))
	pid, shim, other := a.Pid(), a.ShimPid(), b.ShimPid()
	inject.Stop(t, shim)
	inject.Stop(t, other)
	stopped := time.Now()
	inject.Signal(t, pid, syscall.SIGTERM)
	inject.Signal(t, dead.Pid(), syscall.SIGKILL)
	s.Eventually("their ends, by the kernel's word", 4*time.Second, func() bool {
		got := inject.States(s)
		return got["a"] == exited && got["dead"] == exited
	})
	if st := a.Status(); st.GetExitCode() != 3 {
		t.Errorf("a ended with %d", st.GetExitCode())
	}
	s.Eventually("the shim without anybody is killed", 130*time.Second, func() bool { return !harness.Alive(shim) })
	if took := time.Since(stopped); took < 55*time.Second {
		t.Errorf("it is killed after %s: one that answers late is not hung", took)
	}
	s.Eventually("its pod is not ready", 5*time.Second, func() bool { return idle.Status().GetState() == notReady })
	time.Sleep(5 * time.Second) // the other one was looked at in the same round
	if !harness.Alive(other) {
		t.Fatal("a shim with a live container was killed for not answering")
	}
	b.WantState(running)
	if st := busy.Status().GetState(); st != isReady {
		t.Errorf("the pod whose shim only hangs is %s", st)
	}
	inject.Signal(t, other, syscall.SIGCONT)
	s.Eventually("an exec, now that the shim is back", 40*time.Second, func() bool {
		r, err := s.Exec(t.Context(), b.ID, "true")
		return err == nil && r.GetExitCode() == 0
	})
	b.WantState(running)
	inject.Clear(s, idle, 20*time.Second)
	inject.Clear(s, busy, 20*time.Second)
}

// F23 and F35, with many pods: one hung shim costs a restart nothing, and the death of all shims is cleared up by itself.
func TestF23FiftyPodsWithOneHungShim(t *testing.T) {
	t.Parallel()
	s := alone(t)
	const n = 50
	pods, ctrs := make([]*story.Pod, n), make([]*story.Container, n)
	var wait sync.WaitGroup
	for w := range 4 {
		wait.Go(func() {
			for i := w; i < n; i += 4 {
				config := harness.HostNetwork(s.Home.Pod(fmt.Sprintf("p%d", i)))
				if i%10 == 0 {
					config = s.Home.Pod(fmt.Sprintf("p%d", i))
				}
				id, err := s.RunPod(t.Context(), config, "")
				if err != nil {
					t.Error(err)
					return
				}
				pods[i] = &story.Pod{Story: s, ID: id, Config: config}
				ctr, err := s.Run(t.Context(), id, story.Sleeper(fmt.Sprintf("c%d", i)), config)
				if err != nil {
					t.Error(err)
					return
				}
				ctrs[i] = &story.Container{Pod: pods[i], ID: ctr, Config: story.Sleeper("c")}
			}
		})
	}
	wait.Wait()
	if t.Failed() {
		return
	}
	t.Run("F23 one hung shim among 50 at a restart", func(t *testing.T) {
		hung, pid := ctrs[7].ShimPid(), ctrs[7].Pid()
		inject.Crash(s)
		inject.Stop(t, hung)
		inject.Within(t, "the start", inject.Again(s), 10*time.Second)
		got := inject.States(s)
		for i := range n {
			if name := fmt.Sprintf("c%d", i); got[name] != running {
				t.Errorf("the first list says %s is %s", name, got[name])
			}
		}
		w := watch.Others(s)
		for i := 0; i < n; i += 9 {
			if i != 7 {
				ctrs[i].Sh("true")
			}
		}
		_, err := s.Runtime.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: ctrs[7].ID, Cmd: []string{"true"}, Timeout: 2})
		s.WantCode("exec through the hung shim", err, codes.DeadlineExceeded, codes.Unavailable)
		if !harness.Alive(pid) {
			t.Error("the workload of the hung shim is gone")
		}
		w.End(t)
		inject.Signal(t, hung, syscall.SIGCONT)
	})
	t.Run("F35 all 50 shims are killed at once", func(t *testing.T) {
		var shims []int
		for _, c := range ctrs {
			shims = append(shims, c.ShimPid())
		}
		for _, pid := range shims {
			inject.Signal(t, pid, syscall.SIGKILL)
		}
		start := time.Now()
		s.Eventually("all have exited", 30*time.Second, func() bool {
			for _, state := range inject.States(s) {
				if state != exited {
					return false
				}
			}
			return true
		})
		t.Logf("all 50 have exited after %s", time.Since(start))
		s.Eventually("all are not ready", 10*time.Second, func() bool {
			list, err := s.Pods(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range list {
				if p.GetState() != notReady {
					return false
				}
			}
			return len(list) == n
		})
		for _, c := range ctrs {
			if st := c.Status(); st.GetExitCode() != 137 {
				t.Errorf("%s: code %d", st.GetMetadata().GetName(), st.GetExitCode())
			}
		}
	})
}
