package spec

import (
	"testing"

	cplan "github.com/crid-project/crid/container/plan"
	"github.com/crid-project/crid/sandbox/plan"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func options() Options {
	return Options{
		Kernel: cplan.Kernel{CgroupV2: true, Seccomp: true, Swap: true, HugepageSizes: []string{"2MB"}, MinOOMScoreAdj: -500},
		ReadFile: func(string, int64) ([]byte, error) {
			return []byte(`{"defaultAction":"SCMP_ACT_ALLOW"}`), nil
		},
		PodAnnotations: []string{"census.io/*"},
	}
}

func facts() plan.Facts {
	return plan.Facts{
		ID: "p1", Rootfs: "/run/crid/pods/p1/rootfs", CgroupsPath: "/kubepods/pod1/p1",
		NetNS: "/run/crid/pods/p1/ns/net", IPCNS: "/run/crid/pods/p1/ns/ipc", UTSNS: "/run/crid/pods/p1/ns/uts",
		ShmDir: "/run/crid/pods/p1/shm", ResolvFile: "/run/crid/pods/p1/resolv.conf",
		MinOOMScoreAdj: -500, CgroupV2: true, Seccomp: true, OCIVersion: "1.2.0",
	}
}

func small() *runtime.PodSandboxConfig {
	return &runtime.PodSandboxConfig{Metadata: &runtime.PodSandboxMetadata{Name: "web", Namespace: "default", Uid: "uid-1"}}
}

// full sets every field that can be set together.
func full() *runtime.PodSandboxConfig {
	res := func() *runtime.LinuxContainerResources {
		return &runtime.LinuxContainerResources{
			CpuPeriod: 100000, CpuQuota: 50000, CpuShares: 512, MemoryLimitInBytes: 64 << 20, MemorySwapLimitInBytes: 96 << 20, OomScoreAdj: 5,
			CpusetCpus: "0-1", CpusetMems: "0", HugepageLimits: []*runtime.HugepageLimit{{PageSize: "2MB", Limit: 4 << 20}},
			Unified: map[string]string{"memory.high": "60000000"},
		}
	}
	c := small()
	c.Metadata.Attempt = 3
	c.Hostname, c.LogDirectory = "web-0", "/var/log/pods/default_web_uid-1/"
	c.DnsConfig = &runtime.DNSConfig{Servers: []string{"10.96.0.10", "fd00::a"}, Searches: []string{"default.svc.cluster.local"}, Options: []string{"ndots:5"}}
	c.PortMappings = []*runtime.PortMapping{
		{Protocol: runtime.Protocol_UDP, ContainerPort: 53, HostPort: 5353, HostIp: "127.0.0.1"}, {ContainerPort: 80},
	}
	c.Labels = map[string]string{"app": "web"}
	c.Annotations = map[string]string{"census.io/a": "1", "other": "2", "kubernetes.io/ingress-bandwidth": "10M", "kubernetes.io/egress-bandwidth": "1.5Gi"}
	c.Linux = &runtime.LinuxPodSandboxConfig{
		CgroupParent: "/kubepods/pod1", Sysctls: map[string]string{"net.ipv4.ip_unprivileged_port_start": "0", "kernel/shmmax": "1000000"},
		Overhead: res(), Resources: res(),
		SecurityContext: &runtime.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtime.NamespaceOption{UsernsOptions: userns()},
			RunAsUser:        &runtime.Int64Value{Value: 1000}, RunAsGroup: &runtime.Int64Value{Value: 1001}, SupplementalGroups: []int64{2000, 1001},
			Seccomp:  &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_Localhost, LocalhostRef: "/profiles/strict.json"},
			Apparmor: &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_Unconfined},
		},
	}
	return c
}

func userns() *runtime.UserNamespace {
	m := func() []*runtime.IDMapping {
		return []*runtime.IDMapping{{HostId: 100000, ContainerId: 0, Length: 65536}}
	}
	return &runtime.UserNamespace{Mode: runtime.NamespaceMode_POD, Uids: m(), Gids: m()}
}

func pause(t *testing.T, c *runtime.PodSandboxConfig, f plan.Facts) *oci.Spec {
	t.Helper()
	p, err := New(c, options())
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.PauseSpec(f)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
