//go:build e2e

package v2

import (
	"os"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/story"
)

// Every limit of CRI is a file of cgroup v2; a kubelet that finds another value there cannot tell who is wrong.
func TestEveryLimitIsInItsFile(t *testing.T) {
	s := begin(t)
	p := s.Pod("limits")
	c := p.Go(limited("c", &runtimeapi.LinuxContainerResources{
		CpuPeriod: 50000, CpuQuota: 20000, CpuShares: 512, CpusetCpus: "0", CpusetMems: "0",
		MemoryLimitInBytes: 96 << 20, MemorySwapLimitInBytes: 128 << 20,
		HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: 4 << 20}},
		Unified:        map[string]string{"memory.high": "83886080", "memory.min": "4194304", "pids.max": "77"},
	}))
	files := map[string]string{
		"cpu.max": "20000 50000", "cpuset.cpus": "0", "cpuset.mems": "0", "memory.max": "100663296", "memory.high": "83886080", "memory.min": "4194304",
		"pids.max": "77", "hugetlb.2MB.max": "4194304",
	}
	dir := c.CgroupDir("memory")
	if _, err := os.Stat(dir + "/memory.swap.max"); err == nil {
		files["memory.swap.max"] = "33554432" // CRI counts memory in, the kernel does not
	} else {
		t.Log("this kernel has no swap accounting: memory.swap.max is not looked at")
	}
	want(t, "at the start", dir, files)
	if w := read(t, dir, "cpu.weight"); w != "59" && w != "20" { // runc's conversion since 1.4, and before
		t.Errorf("512 shares have become weight %s", w)
	}
	_, err := s.Runtime.UpdateContainerResources(t.Context(), &runtimeapi.UpdateContainerResourcesRequest{ContainerId: c.ID,
		Linux: &runtimeapi.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: 70000, MemoryLimitInBytes: 128 << 20, Unified: map[string]string{"pids.max": "88"}}})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "after the update", dir, map[string]string{"cpu.max": "70000 100000", "memory.max": "134217728", "pids.max": "88", "cpuset.cpus": "0"})
	if r := c.Status().GetResources().GetLinux(); r.GetCpuQuota() != 70000 || r.GetMemoryLimitInBytes() != 128<<20 || r.GetUnified()["pids.max"] != "88" {
		t.Errorf("the status tells of %v", r)
	}
}

// A container without a limit has none: with memory.max unset, not 0, and swap as the kubelet wants it.
func TestWithoutLimits(t *testing.T) {
	s := begin(t)
	c := s.Pod("free").Go(story.Sleeper("c"))
	want(t, "without limits", c.CgroupDir("memory"), map[string]string{"cpu.max": "max 100000", "memory.max": "max", "memory.high": "max"})
}

// Raw files are the kernel's business, but only those of a controller: cgroup.* would move or kill what is not the container's.
func TestRawFilesAreThoseOfControllers(t *testing.T) {
	s := begin(t)
	p := s.Pod("raw")
	for _, key := range []string{"cgroup.procs", "cgroup.subtree_control", "../memory.max", "memory"} {
		config := limited("bad", &runtimeapi.LinuxContainerResources{Unified: map[string]string{key: "1"}})
		if id, err := s.Create(t.Context(), p.ID, config, p.Config); err == nil {
			t.Errorf("a container that writes %q is created: %s", key, id)
		} else if !strings.Contains(err.Error(), "unified") {
			t.Errorf("%q: the error does not name the field: %v", key, err)
		}
	}
}

// The sum that all containers of a pod may use is the pod's own cgroup's.
func TestLimitsOfThePod(t *testing.T) {
	s := begin(t)
	p := s.Pod("podlevel")
	c := p.Go(story.Sleeper("c"))
	_, err := s.Runtime.UpdatePodSandboxResources(t.Context(), &runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: p.ID,
		Overhead:  &runtimeapi.LinuxContainerResources{},
		Resources: &runtimeapi.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: 150000, CpuShares: 1024, MemoryLimitInBytes: 200 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "after the update", podDir(p), map[string]string{"cpu.max": "150000 100000", "memory.max": "209715200", "cpu.weight": "100"})
	want(t, "the container's own", c.CgroupDir("memory"), map[string]string{"memory.max": "max"})
}

// OOMKilled is said of a container whose main process the kernel has killed for memory; of a group that dies together, too.
func TestOutOfMemory(t *testing.T) {
	s := begin(t)
	p := s.Pod("oom")
	small := &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 24 << 20, MemorySwapLimitInBytes: 24 << 20}
	for name, test := range map[string]struct {
		line, reason string
		code         int32
		unified      map[string]string
	}{
		"main":  {"exec tail /dev/zero", "OOMKilled", 137, nil},
		"child": {"tail /dev/zero; exit 6", "Error", 6, nil},
		"group": {"tail /dev/zero; exit 6", "OOMKilled", 137, map[string]string{"memory.oom.group": "1"}},
	} {
		config := story.Shell(name, test.line)
		config.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: small.MemoryLimitInBytes, MemorySwapLimitInBytes: small.MemorySwapLimitInBytes, Unified: test.unified}
		if st := p.Go(config).Exited(); st.GetReason() != test.reason || st.GetExitCode() != test.code {
			t.Errorf("%s: ended with %d, %s, not with %d, %s", name, st.GetExitCode(), st.GetReason(), test.code, test.reason)
		}
	}
}

// Statistics come from cgroup v2's files, pressure and swap included.
func TestStatisticsWithPressure(t *testing.T) {
	s := begin(t)
	p := s.Pod("stats")
	c := p.Go(story.Shell("c", "dd if=/dev/zero of=/file bs=64k count=32 2>/dev/null; while :; do :; done"))
	var st *runtimeapi.ContainerStats
	s.Eventually("cpu in the statistics", 30*time.Second, func() bool {
		r, err := s.Runtime.ContainerStats(t.Context(), &runtimeapi.ContainerStatsRequest{ContainerId: c.ID})
		if err != nil {
			t.Fatal(err)
		}
		st = r.GetStats()
		return st.GetCpu().GetUsageCoreNanoSeconds().GetValue() > 0 && st.GetCpu().GetUsageNanoCores().GetValue() > 0
	})
	if st.GetMemory().GetWorkingSetBytes().GetValue() == 0 || st.GetMemory().GetUsageBytes().GetValue() < 2<<20 {
		t.Errorf("memory: %v", st.GetMemory())
	}
	if _, err := os.Stat("/sys/fs/cgroup/cpu.pressure"); err != nil {
		t.Log("this kernel tells of no pressure")
	} else if st.GetCpu().GetPsi().GetSome() == nil || st.GetMemory().GetPsi().GetFull() == nil || st.GetIo().GetPsi().GetSome() == nil {
		t.Errorf("pressure is missing: cpu %v, memory %v, io %v", st.GetCpu().GetPsi(), st.GetMemory().GetPsi(), st.GetIo().GetPsi())
	}
	r, err := s.Runtime.PodSandboxStats(t.Context(), &runtimeapi.PodSandboxStatsRequest{PodSandboxId: p.ID})
	if err != nil {
		t.Fatal(err)
	}
	if l := r.GetStats().GetLinux(); l.GetCpu().GetUsageCoreNanoSeconds().GetValue() == 0 || l.GetMemory().GetUsageBytes().GetValue() == 0 || l.GetProcess().GetProcessCount().GetValue() == 0 || len(l.GetContainers()) != 1 {
		t.Errorf("the pod's: %v", l)
	}
}
