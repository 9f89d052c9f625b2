package spec

import (
	"reflect"
	"strings"
	"testing"

	"github.com/crid-project/crid/sandbox/plan"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestSysctlKeysInBothForms(t *testing.T) {
	c := small()
	c.Linux = &runtime.LinuxPodSandboxConfig{Sysctls: map[string]string{
		"net.ipv4.tcp_rmem": "4096 87380 1", "net/ipv4/conf/eth0.100/rp_filter": "1", "net.ipv6.conf.eth1/7.forwarding": "0",
		"kernel/shm_rmid_forced": "1", "kernel.sem": "1 2 3 4", "fs.mqueue.msg_max": "5", "kernel.msgmax": "6",
	}}
	p, err := New(c, options())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"net.ipv4.tcp_rmem": "4096 87380 1", "net.ipv4.conf.eth0/100.rp_filter": "1", "net.ipv6.conf.eth1/7.forwarding": "0",
		"kernel.shm_rmid_forced": "1", "kernel.sem": "1 2 3 4", "fs.mqueue.msg_max": "5", "kernel.msgmax": "6",
	}
	if !reflect.DeepEqual(p.Sysctls, want) {
		t.Errorf("got %v", p.Sysctls)
	}
	if got := plan.SysctlPath("net.ipv4.conf.eth0/100.rp_filter"); got != "net/ipv4/conf/eth0.100/rp_filter" {
		t.Errorf("path %q", got)
	}
}

func TestQuantities(t *testing.T) {
	for in, want := range map[string]uint64{
		"10M": 10_000_000, "1": 1, "+5": 5, "1.5Gi": 1_610_612_736, "1e6": 1_000_000, "1E3": 1000, "2E": 2_000_000_000_000_000_000, "0.5": 1, "1500m": 2,
		"1k": 1000, "1Ki": 1024, ".5k": 500, "5.": 5, "1e-1": 1, "1n": 1, "0": 0,
	} {
		if got, ok := quantity(in); !ok || got != want {
			t.Errorf("%q: got %d, %v", in, got, ok)
		}
	}
	for _, in := range []string{"", "M", "-1", "1 M", "1mi", "10MB", "1e", "e5", "0x10", "1e999999999", "100E", "1_000", "Inf", strings.Repeat("9", 100), "1M\n"} {
		if got, ok := quantity(in); ok {
			t.Errorf("%q: got %d", in, got)
		}
	}
}

func TestPorts(t *testing.T) {
	c := small()
	c.PortMappings = []*runtime.PortMapping{
		{ContainerPort: 80, HostPort: 8080}, {ContainerPort: 81}, {ContainerPort: 80, HostPort: 8080}, {},
		{Protocol: runtime.Protocol_SCTP, ContainerPort: 9, HostPort: 65535, HostIp: "::1"}, nil,
	}
	p, err := New(c, options())
	want := []plan.Port{{Protocol: "tcp", ContainerPort: 80, HostPort: 8080}, {Protocol: "sctp", ContainerPort: 9, HostPort: 65535, HostIP: "::1"}}
	if err != nil || !reflect.DeepEqual(p.Ports, want) {
		t.Errorf("got %+v, %v", p, err)
	}
}

func TestWithTheNodesNetworkNothingIsMappedNamedOrShaped(t *testing.T) {
	c := full()
	c.Linux.Sysctls = nil
	c.Linux.SecurityContext.NamespaceOptions = &runtime.NamespaceOption{Network: runtime.NamespaceMode_NODE}
	p, err := New(c, options())
	if err != nil || !p.HostNetwork || p.Hostname != "" || len(p.Ports) != 0 || p.Ingress+p.Egress != 0 {
		t.Errorf("got %+v, %v", p, err)
	}
}

// With no clusterDomain the kubelet sends "web-0.sub.ns.svc." as the hostname of a pod with setHostnameAsFQDN. Refused, the pod never starts.
func TestAHostnameMayBeFullyQualified(t *testing.T) {
	for _, name := range []string{"web-0", "web-0.sub.ns.svc.cluster.local", "web-0.sub.ns.svc."} {
		c := small()
		c.Hostname = name
		if p, err := New(c, options()); err != nil || p.Hostname != name {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestCgroupParents(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "/kubepods/burstable/pod1/": "/kubepods/burstable/pod1", "test": "/test", "kubepods-pod1.slice": "kubepods-pod1.slice",
		"/kubepods.slice/kubepods-besteffort.slice": "/kubepods.slice/kubepods-besteffort.slice",
	} {
		c := small()
		c.Linux = &runtime.LinuxPodSandboxConfig{CgroupParent: in}
		p, err := New(c, options())
		if err != nil || p.CgroupParent != want {
			t.Errorf("%q: got %+v, %v", in, p, err)
		}
	}
}

func TestCRIsDefaultIsAPodWideProcessNamespace(t *testing.T) {
	p, err := New(small(), options())
	if err != nil || !p.PodPID || p.HostPID {
		t.Errorf("got %+v, %v", p, err)
	}
	c := small()
	c.Linux = &runtime.LinuxPodSandboxConfig{SecurityContext: &runtime.LinuxSandboxSecurityContext{
		NamespaceOptions: &runtime.NamespaceOption{Pid: runtime.NamespaceMode_CONTAINER},
	}}
	if p, err = New(c, options()); err != nil || p.PodPID || p.HostPID {
		t.Errorf("the kubelet's default: %+v, %v", p, err)
	}
}

func TestThePauseHasNothingItDoesNotNeed(t *testing.T) {
	s := pause(t, small(), facts())
	p := s.Process
	if !s.Root.Readonly || !p.NoNewPrivileges || len(p.Capabilities.Bounding)+len(p.Capabilities.Effective)+len(p.Capabilities.Permitted) != 0 {
		t.Errorf("process %+v", p)
	}
	if *p.OOMScoreAdj != -500 {
		t.Errorf("oom_score_adj %d: the kernel would refuse less than -500", *p.OOMScoreAdj)
	}
	var own bool
	for _, n := range s.Linux.Namespaces {
		own = own || n.Type == oci.PIDNamespace && n.Path == ""
	}
	if !own {
		t.Error("does not hold a process namespace")
	}
}

func TestReservedAnnotationsDoNotComeFromThePod(t *testing.T) {
	c, o := small(), options()
	c.Annotations = map[string]string{"io.kubernetes.cri.sandbox-id": "other", "org.systemd.property.X": "y", "census.io/a": "1"}
	o.PodAnnotations = []string{"*"}
	p, err := New(c, o)
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.PauseSpec(facts())
	if err != nil || s.Annotations["io.kubernetes.cri.sandbox-id"] != "p1" || s.Annotations["org.systemd.property.X"] != "" || s.Annotations["census.io/a"] != "1" {
		t.Errorf("got %v, %v", s.Annotations, err)
	}
}

func FuzzConfig(f *testing.F) {
	for _, c := range []*runtime.PodSandboxConfig{full(), small(), {}} {
		raw, err := proto.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, "net/ipv4/x", "1", "10M")
	}
	f.Fuzz(func(t *testing.T, raw []byte, key, value, rate string) {
		sealed, err := Open(raw)
		if err != nil {
			return
		}
		c := sealed.CRI()
		if c.Linux == nil {
			c.Linux = &runtime.LinuxPodSandboxConfig{}
		}
		c.Linux.Sysctls = map[string]string{key: value}
		c.Annotations = map[string]string{annotationIngress: rate}
		p, err := New(c, options())
		if err != nil {
			return
		}
		for k, v := range p.Sysctls {
			file := plan.SysctlPath(k)
			if strings.Contains("/"+file+"/", "/../") || strings.Contains(file, "//") || strings.ContainsAny(v, "\n\r\x00") {
				t.Errorf("sysctl %q is %q: %q", k, file, v)
			}
			if !strings.HasPrefix(file, "net/") && !strings.HasPrefix(file, "kernel/") && !strings.HasPrefix(file, "fs/mqueue/") {
				t.Errorf("sysctl %q", file)
			}
			if p.HostNetwork && strings.HasPrefix(file, "net/") || p.HostIPC && !strings.HasPrefix(file, "net/") {
				t.Errorf("sysctl %q of the node", file)
			}
		}
		if p.Ingress != 0 && (p.Ingress < minBandwidth || p.Ingress > maxBandwidth) {
			t.Errorf("%q is %d", rate, p.Ingress)
		}
		if strings.ContainsAny(p.Name+p.Namespace+p.UID, "/;=\n") || strings.Contains(p.CgroupParent, "..") && strings.Contains(p.CgroupParent, "/../") {
			t.Errorf("%+v", p)
		}
		if _, err := p.PauseSpec(facts()); err != nil && p.PauseSpec == nil {
			t.Error(err)
		}
	})
}
