//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/harness"
)

func withPort(port int32) func(*runtimeapi.PodSandboxConfig) {
	return func(c *runtimeapi.PodSandboxConfig) {
		c.PortMappings = []*runtimeapi.PortMapping{{Protocol: runtimeapi.Protocol_TCP, ContainerPort: 80, HostPort: port}}
	}
}

// cgroupV2 tells which of the two the machine has.
func cgroupV2() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

// limit reads a limit where the kernel keeps it for a container of the pod.
func (p *pod) limit(id, v1, v2 string) string {
	p.t.Helper()
	pattern := "/sys/fs/cgroup/" + strings.SplitN(v1, ".", 2)[0] + p.d.Home.ParentPath(p.config.GetLinux().GetCgroupParent()) + "/*" + id + "*/" + v1
	if cgroupV2() {
		pattern = "/sys/fs/cgroup" + p.d.Home.ParentPath(p.config.GetLinux().GetCgroupParent()) + "/*" + id + "*/" + v2
	}
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) != 1 {
		p.t.Fatalf("no one file %s: %v (%v)", pattern, files, err)
	}
	return strings.TrimSpace(readFile(p.t, files[0]))
}

func TestLimitsReachTheKernel(t *testing.T) {
	d := harness.Start(t, harness.Options{})
	p := run(t, d, "limits", nil)
	config := harness.Container("c")
	config.Linux.Resources = &runtimeapi.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: 50000, CpuShares: 512, MemoryLimitInBytes: 64 << 20,
		// a kubelet names every size that the machine has, also where no controller counts them
		HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB"}, {PageSize: "1GB"}}}
	id := p.start(config)
	check := func(when, quota, memory string) {
		t.Helper()
		want := quota
		if cgroupV2() {
			want += " 100000"
		}
		if got := p.limit(id, "cpu.cfs_quota_us", "cpu.max"); got != want {
			t.Errorf("%s: cpu quota is %q, not %q", when, got, want)
		}
		if got := p.limit(id, "memory.limit_in_bytes", "memory.max"); got != memory {
			t.Errorf("%s: memory limit is %q, not %q", when, got, memory)
		}
	}
	check("at the start", "50000", "67108864")
	_, err := d.Runtime.UpdateContainerResources(t.Context(), &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id,
		Linux: &runtimeapi.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: 20000, MemoryLimitInBytes: 128 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	check("after the update", "20000", "134217728")
	s, err := d.Status(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if l := s.GetResources().GetLinux(); l.GetCpuQuota() != 20000 || l.GetMemoryLimitInBytes() != 128<<20 {
		t.Errorf("the status tells of quota %d, memory %d", l.GetCpuQuota(), l.GetMemoryLimitInBytes())
	}
}

func TestOutOfMemoryIsTheReasonOnlyForTheMainProcess(t *testing.T) {
	d := harness.Start(t, harness.Options{})
	p := run(t, d, "oom", nil)
	small := &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 24 << 20, MemorySwapLimitInBytes: 24 << 20}
	main := harness.Container("main", "sh", "-c", "exec tail /dev/zero")
	main.Linux.Resources = small
	s := p.exited(p.start(main))
	if s.GetReason() != "OOMKilled" || s.GetExitCode() != 137 {
		t.Errorf("a main process out of memory: %s, %d", s.GetReason(), s.GetExitCode())
	}
	child := harness.Container("child", "sh", "-c", "tail /dev/zero; exit 6")
	child.Linux.Resources = small
	s = p.exited(p.start(child))
	if s.GetExitCode() != 6 {
		t.Errorf("a child out of memory: the main process ends with 6, told is %d", s.GetExitCode())
	}
	if d.Kind.Name() == "crid" && s.GetReason() != "Error" {
		t.Errorf("a child's end is not the container's: reason %s", s.GetReason())
	}
}

func TestStatistics(t *testing.T) {
	d := harness.Start(t, harness.Options{})
	p := run(t, d, "stats", nil)
	id := p.start(harness.Container("c", "sh", "-c", "echo ready; dd if=/dev/zero of=/file bs=1M count=3 2>/dev/null; while :; do :; done"))
	ctx := t.Context()
	var first, second *runtimeapi.ContainerStats
	eventually(t, "cpu and disk in the statistics", 15*time.Second, func() bool {
		r, err := d.Runtime.ContainerStats(ctx, &runtimeapi.ContainerStatsRequest{ContainerId: id})
		if err != nil {
			t.Fatal(err)
		}
		first = r.GetStats()
		return first.GetCpu().GetUsageCoreNanoSeconds().GetValue() > 0 && (first.GetWritableLayer().GetUsedBytes().GetValue() >= 3<<20 || d.Kind.Name() != "crid")
	})
	eventually(t, "more cpu", 15*time.Second, func() bool {
		r, err := d.Runtime.ContainerStats(ctx, &runtimeapi.ContainerStatsRequest{ContainerId: id})
		if err != nil {
			t.Fatal(err)
		}
		second = r.GetStats()
		return second.GetCpu().GetUsageCoreNanoSeconds().GetValue() > first.GetCpu().GetUsageCoreNanoSeconds().GetValue()
	})
	if second.GetMemory().GetWorkingSetBytes().GetValue() == 0 {
		t.Error("a container that runs uses no memory")
	}
	pods, err := d.Runtime.ListPodSandboxStats(ctx, &runtimeapi.ListPodSandboxStatsRequest{})
	if err != nil || len(pods.GetStats()) != 1 {
		t.Fatalf("statistics of %d pods (%v)", len(pods.GetStats()), err)
	}
	l := pods.GetStats()[0].GetLinux()
	if len(l.GetContainers()) != 1 || l.GetNetwork().GetDefaultInterface().GetName() != "eth0" || l.GetCpu().GetUsageCoreNanoSeconds().GetValue() == 0 {
		t.Errorf("a pod's statistics: %d containers, interface %q, cpu %d", len(l.GetContainers()), l.GetNetwork().GetDefaultInterface().GetName(),
			l.GetCpu().GetUsageCoreNanoSeconds().GetValue())
	}
}

func TestUserNamespace(t *testing.T) {
	d := harness.Start(t, harness.Options{})
	const base, size = 200000, 65536
	userns := &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD,
		Uids: []*runtimeapi.IDMapping{{HostId: base, ContainerId: 0, Length: size}}, Gids: []*runtimeapi.IDMapping{{HostId: base, ContainerId: 0, Length: size}}}
	p := run(t, d, "userns", func(c *runtimeapi.PodSandboxConfig) { c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = userns })
	config := harness.Container("c")
	config.Linux.SecurityContext.NamespaceOptions.UsernsOptions = userns
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(host), 0o755); err != nil {
		t.Fatal(err)
	}
	config.Mounts = []*runtimeapi.Mount{{HostPath: host, ContainerPath: "/volume", UidMappings: userns.Uids, GidMappings: userns.Gids}}
	id := p.start(config)
	if got := strings.Fields(p.sh(id, "cat /proc/self/uid_map")); strings.Join(got, " ") != "0 200000 65536" {
		t.Errorf("uid map is %v", got)
	}
	if got := p.sh(id, "stat -c %u /bin/busybox /volume/file | tr '\\n' ' '"); got != "0 0" {
		t.Errorf("owners of the image's and the volume's files inside are %q", got)
	}
	p.sh(id, "touch /volume/made /made")
	if info, err := os.Stat(filepath.Join(host, "made")); err != nil || !ownedByRoot(info) {
		t.Errorf("a file made through an idmapped mount does not belong to root on the host (%v)", err)
	}
}
