//go:build e2e

package v2

import (
	"os/exec"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/story"
)

// crun behind the same shim: an older release (Debian's 1.8.1 tells no features) must be given a spec that it accepts.
func TestCrun(t *testing.T) {
	needV2(t)
	crun, err := exec.LookPath("crun")
	if err != nil {
		t.Skip("needs crun")
	}
	s := story.Alone(t, harness.Crid{Crun: crun})
	p := &story.Pod{Story: s, Config: s.Home.Pod("crun")}
	if p.ID, err = s.RunPod(t.Context(), p.Config, "crun"); err != nil {
		t.Fatal(err)
	}
	c := p.Go(limited("c", &runtimeapi.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: 30000, MemoryLimitInBytes: 64 << 20, CpusetCpus: "0"}))
	if got := c.Sh("cat /proc/self/cgroup; id -u; grep Seccomp: /proc/self/status | tr -d '\t'"); got != "0::/\n0\nSeccomp:0" && got != "0::/\n0\nSeccomp:2" {
		t.Errorf("inside: %q", got)
	}
	files := map[string]string{"cpu.max": "30000 100000", "memory.max": "67108864", "cpuset.cpus": "0"}
	want(t, "under crun", c.CgroupDir("memory"), files)
	if n, out := c.Try("exit 3"); n != 3 {
		t.Errorf("exec ends with %d: %s", n, out)
	}
	_, err = s.Runtime.UpdateContainerResources(t.Context(), &runtimeapi.UpdateContainerResourcesRequest{ContainerId: c.ID, Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 80 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "after the update", c.CgroupDir("memory"), map[string]string{"memory.max": "83886080"})
	small := story.Shell("oom", "exec tail /dev/zero")
	small.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 24 << 20, MemorySwapLimitInBytes: 24 << 20}
	if st := p.Go(small).Exited(); st.GetReason() != "OOMKilled" || st.GetExitCode() != 137 {
		t.Errorf("out of memory: %d, %s", st.GetExitCode(), st.GetReason())
	}
	if r, err := s.Runtime.ContainerStats(t.Context(), &runtimeapi.ContainerStatsRequest{ContainerId: c.ID}); err != nil || r.GetStats().GetMemory().GetUsageBytes().GetValue() == 0 ||
		r.GetStats().GetMemory().GetAvailableBytes().GetValue() == 0 {
		t.Errorf("statistics: %v (%v)", r.GetStats().GetMemory(), err)
	}
	c.Stop(10)
	c.WantState(exited)
}
