//go:build e2e

package core

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/story"
)

// quotaOf gives the quota alone: v2 keeps quota and period in one file.
func quotaOf(c *story.Container) string {
	return strings.Fields(c.Limit("cpu.cfs_quota_us", "cpu.max"))[0]
}

func TestLimitsAreTheKernels(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("limits")
	config := story.Sleeper("c")
	config.Linux.Resources = &runtimeapi.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: 50000, CpuShares: 512, MemoryLimitInBytes: 64 << 20, MemorySwapLimitInBytes: 64 << 20,
		CpusetCpus: "0", CpusetMems: "0", OomScoreAdj: 500}
	c := p.Go(config)
	for what, got := range map[string][2]string{
		"quota":   {quotaOf(c), "50000"},
		"memory":  {c.Limit("memory.limit_in_bytes", "memory.max"), "67108864"},
		"cpuset":  {c.Limit("cpuset.cpus", "cpuset.cpus"), "0"},
		"oom adj": {strings.TrimSpace(c.Proc("oom_score_adj")), "500"},
	} {
		if got[0] != got[1] {
			t.Errorf("%s is %s, not %s", what, got[0], got[1])
		}
	}
	if !story.V2() {
		if got := c.Limit("cpu.shares", ""); got != "512" {
			t.Errorf("shares are %s", got)
		}
	}
	update := func(l *runtimeapi.LinuxContainerResources) {
		t.Helper()
		if _, err := s.Runtime.UpdateContainerResources(t.Context(), &runtimeapi.UpdateContainerResourcesRequest{ContainerId: c.ID, Linux: l}); err != nil {
			t.Fatal(err)
		}
	}
	update(&runtimeapi.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: 20000})
	update(&runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 128 << 20, MemorySwapLimitInBytes: 128 << 20})
	if q, m := quotaOf(c), c.Limit("memory.limit_in_bytes", "memory.max"); q != "20000" || m != "134217728" {
		t.Errorf("after two updates: quota %s, memory %s", q, m)
	}
	l := c.Status().GetResources().GetLinux()
	if l.GetCpuQuota() != 20000 || l.GetMemoryLimitInBytes() != 128<<20 || l.GetCpuShares() != 512 || l.GetCpusetCpus() != "0" {
		t.Errorf("the status tells of %v", l)
	}
	// what the kernel refuses changes nothing, not in the kernel and not in what is told
	if _, err := s.Runtime.UpdateContainerResources(t.Context(), &runtimeapi.UpdateContainerResourcesRequest{ContainerId: c.ID,
		Linux: &runtimeapi.LinuxContainerResources{CpusetCpus: "4095"}}); err == nil {
		t.Error("a cpu that the machine does not have")
	}
	if l := c.Status().GetResources().GetLinux(); l.GetCpusetCpus() != "0" || l.GetCpuQuota() != 20000 {
		t.Errorf("after a refused update the status tells of %v", l)
	}
	// an update of a container that was not started counts when it starts
	made := p.Make(story.Sleeper("made"))
	if _, err := s.Runtime.UpdateContainerResources(t.Context(), &runtimeapi.UpdateContainerResourcesRequest{ContainerId: made.ID,
		Linux: &runtimeapi.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: 30000}}); err != nil {
		t.Fatal(err)
	}
	made.Start()
	if q := quotaOf(made); q != "30000" {
		t.Errorf("updated before the start, quota is %s", q)
	}
}

// A pod's own limits are set by the kubelet through the pod: they must have an effect, not only an answer.
func TestThePodsResources(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("podlimits", func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.Resources = &runtimeapi.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: 80000, MemoryLimitInBytes: 256 << 20}
	})
	c := p.Go(story.Sleeper("c"))
	if _, err := s.Runtime.UpdatePodSandboxResources(t.Context(), &runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: p.ID,
		Resources: &runtimeapi.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: 60000, MemoryLimitInBytes: 300 << 20}}); err != nil {
		t.Fatal(err)
	}
	file := map[bool]string{false: "cpu.cfs_quota_us", true: "cpu.max"}[story.V2()]
	quota, err := os.ReadFile(filepath.Join(filepath.Dir(c.CgroupDir("cpu")), file))
	if err != nil || strings.Fields(string(quota))[0] != "60000" {
		t.Errorf("the pod's cgroup has a quota of %q (%v)", quota, err)
	}
	if _, err := s.Runtime.UpdatePodSandboxResources(t.Context(), &runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: unknown,
		Resources: &runtimeapi.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: 60000}}); err == nil {
		t.Error("resources of a pod that is not there are updated")
	}
}

func small(c *runtimeapi.ContainerConfig) *runtimeapi.ContainerConfig {
	c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 32 << 20, MemorySwapLimitInBytes: 32 << 20}
	return c
}

// OOMKilled when the kernel killed the main process; a child's end is not the container's. (Every time: TestF48OutOfMemory.)
func TestOutOfMemory(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("oom")
	for n := range 3 {
		c := p.Go(small(harness.Container(fmt.Sprintf("main-%d", n), "sh", "-c", "exec tail /dev/zero")))
		if st := c.Exited(); st.GetReason() != "OOMKilled" || st.GetExitCode() != 137 {
			t.Errorf("round %d: a main process out of memory: %q, %d", n, st.GetReason(), st.GetExitCode())
		}
		c.Remove()
	}
	for n := range 2 {
		c := p.Go(small(harness.Container(fmt.Sprintf("child-%d", n), "sh", "-c", "tail /dev/zero; exit 6")))
		if st := c.Exited(); st.GetReason() != "Error" || st.GetExitCode() != 6 {
			t.Errorf("round %d: a child out of memory: %q, %d", n, st.GetReason(), st.GetExitCode())
		}
		c.Remove()
	}
	// killed by somebody, with memory to spare
	c := p.Go(small(story.Shell("killed", "trap '' TERM; while :; do sleep 1; done")))
	c.Stop(0)
	if st := c.Exited(); st.GetReason() != "Error" || st.GetExitCode() != 137 {
		t.Errorf("killed by a stop: %q, %d", st.GetReason(), st.GetExitCode())
	}
}

func TestStatisticsAreTrue(t *testing.T) {
	s := story.Begin(t)
	ctx := t.Context()
	p := s.Pod("stats")
	c := p.Go(small(story.Shell("c", "dd if=/dev/zero of=/file bs=1M count=5 2>/dev/null; echo ready; while :; do :; done")))
	p.Go(story.Shell("done", "exit 0")).Exited()
	c.Heard("ready")
	stats := func() *runtimeapi.ContainerStats {
		t.Helper()
		r, err := s.Runtime.ContainerStats(ctx, &runtimeapi.ContainerStatsRequest{ContainerId: c.ID})
		if err != nil {
			t.Fatal(err)
		}
		return r.GetStats()
	}
	a := stats()
	time.Sleep(700 * time.Millisecond)
	b := stats()
	used := b.GetCpu().GetUsageCoreNanoSeconds().GetValue() - a.GetCpu().GetUsageCoreNanoSeconds().GetValue()
	if used < 50e6 || used > 3e9 {
		t.Errorf("a loop of 0.7 s used %d ns", used)
	}
	if n := b.GetCpu().GetUsageNanoCores().GetValue(); n < 50e6 || n > 4e9 {
		t.Errorf("it uses %d nanocores", n)
	}
	m := b.GetMemory()
	if m.GetWorkingSetBytes().GetValue() == 0 || m.GetWorkingSetBytes().GetValue() > 32<<20 || m.GetAvailableBytes().GetValue() == 0 || m.GetUsageBytes().GetValue() == 0 {
		t.Errorf("memory: %v", m)
	}
	s.Eventually("the written file in the statistics", 15*time.Second, func() bool { return stats().GetWritableLayer().GetUsedBytes().GetValue() >= 5<<20 })
	if stats().GetWritableLayer().GetInodesUsed().GetValue() == 0 || stats().GetAttributes().GetMetadata().GetName() != "c" {
		t.Errorf("statistics: %v", stats())
	}
	list, err := s.Runtime.ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{Filter: &runtimeapi.ContainerStatsFilter{PodSandboxId: p.ID}})
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range list.GetStats() {
		if st.GetAttributes().GetMetadata().GetName() == "done" && st.GetCpu().GetUsageCoreNanoSeconds().GetValue() > 0 {
			t.Errorf("statistics of what has ended: %v", st)
		}
	}
	pod, err := s.Runtime.PodSandboxStats(ctx, &runtimeapi.PodSandboxStatsRequest{PodSandboxId: p.ID})
	if err != nil {
		t.Fatal(err)
	}
	l := pod.GetStats().GetLinux()
	if l.GetNetwork().GetDefaultInterface().GetName() != "eth0" || l.GetCpu().GetUsageCoreNanoSeconds().GetValue() == 0 || l.GetProcess().GetProcessCount().GetValue() == 0 ||
		l.GetMemory().GetWorkingSetBytes().GetValue() == 0 {
		t.Errorf("the pod's: %v", l)
	}
	fs, err := s.Images.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{})
	if err != nil || len(fs.GetImageFilesystems()) == 0 || fs.GetImageFilesystems()[0].GetUsedBytes().GetValue() == 0 || len(fs.GetContainerFilesystems()) == 0 {
		t.Errorf("file systems: %v (%v)", fs, err)
	}
}

func TestMetricsOfPods(t *testing.T) {
	s := story.Begin(t)
	ctx := t.Context()
	p := s.Pod("metrics")
	p.Go(small(story.Sleeper("c")))
	described, err := s.Runtime.ListMetricDescriptors(ctx, &runtimeapi.ListMetricDescriptorsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string]int{}
	for _, d := range described.GetDescriptors() {
		if d.GetHelp() == "" {
			t.Errorf("%s says nothing of itself", d.GetName())
		}
		labels[d.GetName()] = len(d.GetLabelKeys())
	}
	if len(labels) < 40 {
		t.Errorf("only %d metrics are described", len(labels))
	}
	r, err := s.Runtime.ListPodSandboxMetrics(ctx, &runtimeapi.ListPodSandboxMetricsRequest{})
	if err != nil || len(r.GetPodMetrics()) != 1 || r.GetPodMetrics()[0].GetPodSandboxId() != p.ID {
		t.Fatalf("metrics of pods: %v (%v)", r.GetPodMetrics(), err)
	}
	all := r.GetPodMetrics()[0].GetMetrics()
	for _, c := range r.GetPodMetrics()[0].GetContainerMetrics() {
		all = append(all, c.GetMetrics()...)
	}
	got := map[string]uint64{}
	for _, m := range all {
		if n, known := labels[m.GetName()]; !known || n != len(m.GetLabelValues()) {
			t.Errorf("%s has %d labels, described are %d (%t)", m.GetName(), len(m.GetLabelValues()), n, known)
		}
		got[m.GetName()] = m.GetValue().GetValue()
	}
	for _, name := range []string{"container_cpu_usage_seconds_total", "container_memory_working_set_bytes", "container_network_receive_bytes_total", "container_spec_memory_limit_bytes"} {
		if _, there := got[name]; !there {
			t.Errorf("no %s", name)
		}
	}
	if got["container_spec_memory_limit_bytes"] != 32<<20 {
		t.Errorf("the memory limit is %d", got["container_spec_memory_limit_bytes"])
	}
}
