//go:build e2e

package v2

import (
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/story"
)

// Somebody has frozen a container (a debugger, a checkpoint that failed): a stop must not wait for a process that cannot act.
func TestAFrozenContainerCanBeStopped(t *testing.T) {
	s := begin(t)
	p := s.Pod("frozen")
	polite := p.Go(story.Shell("polite", "trap 'exit 5' TERM; echo ready; while :; do sleep 1 & wait $!; done"))
	polite.Heard("ready")
	write(t, dirOf(p, polite.ID), "cgroup.freeze", "1")
	polite.Stop(20)
	if st := polite.WantState(exited); st.GetExitCode() != 5 {
		t.Errorf("thawed, it would have ended with 5, told is %d", st.GetExitCode())
	}
	killed := p.Go(story.Sleeper("killed"))
	write(t, dirOf(p, killed.ID), "cgroup.freeze", "1")
	killed.Stop(0)
	if st := killed.WantState(exited); st.GetExitCode() != 137 {
		t.Errorf("killed while frozen: code %d", st.GetExitCode())
	}
}

// The whole cgroup is killed from outside, as systemd-oomd does it: that is seen without anybody asking, and only of that container.
func TestTheKernelKillsAWholeCgroup(t *testing.T) {
	s := begin(t)
	p := s.Pod("killed")
	a, b := p.Go(story.Shell("a", "sleep 1000 & sleep 1000")), p.Go(story.Sleeper("b"))
	write(t, dirOf(p, a.ID), "cgroup.kill", "1")
	if st := a.Exited(); st.GetExitCode() != 137 || st.GetReason() != "Error" {
		t.Errorf("ended with %d, %s", st.GetExitCode(), st.GetReason())
	}
	b.WantState(running)
}

// Without a process namespace of its own a container's children survive its main process; they are the container all the same.
func TestChildrenInTheHostsProcessNamespaceEndWithTheContainer(t *testing.T) {
	s := begin(t)
	node := func(o *runtimeapi.NamespaceOption) { o.Pid = runtimeapi.NamespaceMode_NODE }
	p := s.Pod("orphans", func(c *runtimeapi.PodSandboxConfig) { node(c.Linux.SecurityContext.NamespaceOptions) })
	config := story.Shell("c", "for i in 1 2 3; do (trap '' TERM HUP; exec sleep 4242) & done; echo ready; trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done")
	node(config.Linux.SecurityContext.NamespaceOptions)
	c := p.Go(config)
	c.Heard("ready")
	dir := dirOf(p, c.ID)
	if n := len(strings.Fields(read(t, dir, "cgroup.procs"))); n < 4 {
		t.Fatalf("%d processes in the cgroup", n)
	}
	c.Stop(20)
	c.WantState(exited)
	s.Eventually("nobody is left in the cgroup", 10*time.Second, func() bool { return !populated(dir) })
}

// crid is killed and started again: what runs is the same, and limits can still be changed and containers stopped.
func TestARestartWithRunningPods(t *testing.T) {
	s := begin(t)
	p := s.Pod("restart")
	c := p.Go(limited("c", &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20}))
	short := p.Go(story.Shell("short", "sleep 3; exit 9"))
	pid := c.Pid()
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	s.Eventually("the short one's end", 30*time.Second, func() bool { return !populated(dirOf(p, short.ID)) })
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st := short.Exited(); st.GetExitCode() != 9 {
		t.Errorf("what ended meanwhile ended with 9, told is %d", st.GetExitCode())
	}
	c.WantState(running)
	if now := c.Pid(); now != pid {
		t.Errorf("process %d has become %d", pid, now)
	}
	if got := c.Sh("echo alive"); got != "alive" {
		t.Errorf("exec: %q", got)
	}
	_, err := s.Runtime.UpdateContainerResources(t.Context(), &runtimeapi.UpdateContainerResourcesRequest{ContainerId: c.ID, Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 80 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "after the restart", c.CgroupDir("memory"), map[string]string{"memory.max": "83886080"})
	c.Stop(10)
	c.WantState(exited)
}
