//go:build e2e

package kernel

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/faults/inject"
	"github.com/crid-project/crid/e2e/faults/watch"
	"github.com/crid-project/crid/e2e/story"
)

func freeze(c *story.Container) {
	c.Pod.T.Helper()
	if story.V2() {
		inject.Write(c.Pod.T, filepath.Join(c.CgroupDir(""), "cgroup.freeze"), "1")
		return
	}
	inject.Write(c.Pod.T, filepath.Join(c.CgroupDir("freezer"), "freezer.state"), "FROZEN")
}

// F45 and row 24: somebody has frozen a container. A stop does not wait for a process that cannot act, and an exec ends at its deadline.
func TestF45AFrozenContainer(t *testing.T) {
	t.Parallel()
	s := alone(t)
	watch.Others(s)
	p := s.Pod("frozen")
	a, b := p.Go(story.Shell("a", polite)), p.Go(story.Shell("b", deaf))
	a.Heard("ready")
	b.Heard("ready")
	freeze(a)
	freeze(b)
	start := time.Now()
	r, err := s.Runtime.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: a.ID, Cmd: []string{"true"}, Timeout: 2})
	if err == nil && r.GetExitCode() == 0 {
		t.Error("a program runs in a frozen container")
	}
	inject.Within(t, "an exec in a frozen container", time.Since(start), 15*time.Second)
	if got := inject.States(s); got["a"] != running || got["b"] != running {
		t.Errorf("frozen is not dead: %v", got)
	}
	inject.Within(t, "the stop of one that ends when told", a.Stop(20), 10*time.Second)
	if st := a.WantState(exited); st.GetExitCode() != 5 {
		t.Errorf("thawed, it ends with 5, told is %d", st.GetExitCode())
	}
	inject.Within(t, "the stop of one that is deaf", b.Stop(1), 31*time.Second)
	if st := b.WantState(exited); st.GetExitCode() != 137 {
		t.Errorf("code %d", st.GetExitCode())
	}
	c := p.Go(story.Shell("c", deaf))
	c.Heard("ready")
	freeze(c)
	start = time.Now()
	c.Remove()
	inject.Within(t, "the removal of a frozen one", time.Since(start), 31*time.Second)
	d := p.Go(story.Shell("d", deaf))
	d.Heard("ready")
	freeze(d)
	inject.Clear(s, p, 40*time.Second)
}

// F47: every process of a container is killed from outside at once.
func TestF47AWholeCgroupIsKilled(t *testing.T) {
	t.Parallel()
	s := alone(t)
	p := s.Pod("killed")
	a, b := p.Go(limited("a", "sleep 1000 & sleep 1000 & echo ready; wait", 64<<20)), p.Go(story.Sleeper("b"))
	a.Heard("ready")
	if story.V2() {
		inject.Write(t, filepath.Join(a.CgroupDir(""), "cgroup.kill"), "1")
	} else {
		pids := inject.Procs(a, "freezer")
		if len(pids) < 3 {
			t.Fatalf("%d processes in the cgroup", len(pids))
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // its namespace's first may have taken it along
		}
	}
	s.Eventually("the end", 4*time.Second, func() bool { return inject.States(s)["a"] == exited })
	if st := a.Status(); st.GetExitCode() != 137 || st.GetReason() != "Error" {
		t.Errorf("code %d, reason %q", st.GetExitCode(), st.GetReason())
	}
	b.WantState(running)
}

// Row 23: the cgroup of a container is taken away under it. It runs on, its statistics are no error, and it can be stopped.
func TestACgroupThatIsTakenAway(t *testing.T) {
	t.Parallel()
	if story.V2() {
		t.Skip("needs cgroup v1, where a process can be moved to the parent")
	}
	s := alone(t)
	p := s.Pod("moved")
	c, own := p.Go(story.Shell("c", deaf)), p.Go(story.Shell("own", polite))
	c.Heard("ready")
	own.Heard("ready")
	for _, c := range []*story.Container{c, own} {
		move(c)
	}
	c.WantState(running)
	for what, call := range map[string]func() error{
		"ContainerStats": func() error {
			_, err := s.Runtime.ContainerStats(t.Context(), &runtimeapi.ContainerStatsRequest{ContainerId: c.ID})
			return err
		},
		"ListContainerStats": func() error {
			_, err := s.Runtime.ListContainerStats(t.Context(), &runtimeapi.ListContainerStatsRequest{})
			return err
		},
		"PodSandboxStats": func() error {
			_, err := s.Runtime.PodSandboxStats(t.Context(), &runtimeapi.PodSandboxStatsRequest{PodSandboxId: p.ID})
			return err
		},
	} {
		if err := call(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	pid := c.Pid()
	inject.Crash(s)
	inject.Again(s)
	c.WantState(running)
	inject.Within(t, "the stop", c.Stop(1), 31*time.Second)
	own.Stop(10)
	if x, y := c.WantState(exited).GetExitCode(), own.WantState(exited).GetExitCode(); x != 137 || y != 5 {
		t.Errorf("codes %d and %d", x, y)
	}
	if inject.State(pid) != "" && inject.State(pid) != "Z" {
		t.Error("its process lives")
	}
	inject.Clear(s, p, 30*time.Second)
}

// move puts all processes of a container into the parent of its cgroup and removes that, in every hierarchy.
func move(c *story.Container) {
	t := c.Pod.T
	t.Helper()
	for _, controller := range []string{"cpuset", "cpu", "cpuacct", "blkio", "memory", "devices", "freezer", "pids", "systemd"} {
		if _, err := os.Stat(filepath.Join("/sys/fs/cgroup", controller)); err != nil {
			continue
		}
		dir := ""
		for _, line := range lines(c.Proc("cgroup")) {
			if hierarchy, path, ok := cut(line); ok && hierarchy[controller] {
				dir = filepath.Join("/sys/fs/cgroup", controller, path)
			}
		}
		if dir == "" || filepath.Base(dir) != c.ID {
			continue
		}
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			for _, pid := range pidsIn(dir) {
				_ = os.WriteFile(filepath.Join(filepath.Dir(dir), "cgroup.procs"), []byte(fmt.Sprint(pid)), 0o600) // it may just have ended
			}
			err := syscall.Rmdir(dir)
			if err == nil || os.IsNotExist(err) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("take %s away: %v", dir, err)
			}
		}
	}
}
