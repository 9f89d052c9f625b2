package spec

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Each is refused with an error that names the field, before anything is done.
func TestRefused(t *testing.T) {
	meta := func(f func(m *runtime.PodSandboxMetadata)) func(*runtime.PodSandboxConfig) {
		return func(c *runtime.PodSandboxConfig) { f(c.Metadata) }
	}
	dns := func(d *runtime.DNSConfig) func(*runtime.PodSandboxConfig) {
		return func(c *runtime.PodSandboxConfig) { c.DnsConfig = d }
	}
	port := func(p *runtime.PortMapping) func(*runtime.PodSandboxConfig) {
		return func(c *runtime.PodSandboxConfig) { c.PortMappings = []*runtime.PortMapping{p} }
	}
	linux := func(f func(l *runtime.LinuxPodSandboxConfig)) func(*runtime.PodSandboxConfig) {
		return func(c *runtime.PodSandboxConfig) { f(c.Linux) }
	}
	sysctl := func(k, v string) func(*runtime.PodSandboxConfig) {
		return linux(func(l *runtime.LinuxPodSandboxConfig) { l.Sysctls = map[string]string{k: v} })
	}
	ns := func(n *runtime.NamespaceOption) func(*runtime.PodSandboxConfig) {
		return linux(func(l *runtime.LinuxPodSandboxConfig) { l.SecurityContext.NamespaceOptions = n })
	}
	annotation := func(k, v string) func(*runtime.PodSandboxConfig) {
		return func(c *runtime.PodSandboxConfig) { c.Annotations = map[string]string{k: v} }
	}
	const node = runtime.NamespaceMode_NODE
	for name, c := range map[string]struct {
		edit  func(*runtime.PodSandboxConfig)
		field string
	}{
		"no metadata":                {func(c *runtime.PodSandboxConfig) { c.Metadata = nil }, "config.metadata"},
		"no name":                    {meta(func(m *runtime.PodSandboxMetadata) { m.Name = "" }), "config.metadata.name"},
		"no namespace":               {meta(func(m *runtime.PodSandboxMetadata) { m.Namespace = "" }), "config.metadata.namespace"},
		"no uid":                     {meta(func(m *runtime.PodSandboxMetadata) { m.Uid = "" }), "config.metadata.uid"},
		"a name that is a path":      {meta(func(m *runtime.PodSandboxMetadata) { m.Name = "a/../b" }), "config.metadata.name"},
		"a name with CNI arguments":  {meta(func(m *runtime.PodSandboxMetadata) { m.Name = "a;IP=1.2.3.4" }), "config.metadata.name"},
		"an endless name":            {meta(func(m *runtime.PodSandboxMetadata) { m.Name = strings.Repeat("a", 100000) }), "config.metadata.name"},
		"empty label key":            {func(c *runtime.PodSandboxConfig) { c.Labels = map[string]string{"": "x"} }, "config.labels"},
		"hostname with a line":       {func(c *runtime.PodSandboxConfig) { c.Hostname = "a\n127.0.0.1 b" }, "config.hostname"},
		"long hostname":              {func(c *runtime.PodSandboxConfig) { c.Hostname = strings.Repeat("a", 65) }, "config.hostname"},
		"relative log directory":     {func(c *runtime.PodSandboxConfig) { c.LogDirectory = "var/log" }, "config.log_directory"},
		"log directory with ..":      {func(c *runtime.PodSandboxConfig) { c.LogDirectory = "/var/log/../../etc" }, "config.log_directory"},
		"log directory is the root":  {func(c *runtime.PodSandboxConfig) { c.LogDirectory = "//" }, "config.log_directory"},
		"cgroup parent with ..":      {linux(func(l *runtime.LinuxPodSandboxConfig) { l.CgroupParent = "/a/../../b" }), "cgroup_parent"},
		"cgroup parent with a colon": {linux(func(l *runtime.LinuxPodSandboxConfig) { l.CgroupParent = "a.slice:b:c" }), "cgroup_parent"},
		"cgroup parent with a line":  {linux(func(l *runtime.LinuxPodSandboxConfig) { l.CgroupParent = "/a\n" }), "cgroup_parent"},

		"DNS server by name":      {dns(&runtime.DNSConfig{Servers: []string{"10.0.0.1", "ns.example"}}), "dns_config.servers[1]"},
		"search domain injected":  {dns(&runtime.DNSConfig{Searches: []string{"a\nnameserver 6.6.6.6"}}), "dns_config.searches[0]"},
		"option of two words":     {dns(&runtime.DNSConfig{Options: []string{"ndots:5 trust-ad"}}), "dns_config.options[0]"},
		"empty option":            {dns(&runtime.DNSConfig{Options: []string{""}}), "dns_config.options[0]"},
		"too many servers":        {dns(&runtime.DNSConfig{Servers: make([]string, 33)}), "dns_config.servers"},
		"host port beyond":        {port(&runtime.PortMapping{ContainerPort: 1, HostPort: 65536}), "port_mappings[0].host_port"},
		"negative host port":      {port(&runtime.PortMapping{ContainerPort: 1, HostPort: -1}), "port_mappings[0].host_port"},
		"no container port":       {port(&runtime.PortMapping{HostPort: 80}), "port_mappings[0].container_port"},
		"container port beyond":   {port(&runtime.PortMapping{ContainerPort: 70000}), "port_mappings[0].container_port"},
		"unknown protocol":        {port(&runtime.PortMapping{Protocol: 9, ContainerPort: 1}), "port_mappings[0].protocol"},
		"host IP that is a name":  {port(&runtime.PortMapping{ContainerPort: 1, HostPort: 1, HostIp: "localhost"}), "port_mappings[0].host_ip"},
		"host IP with a zone":     {port(&runtime.PortMapping{ContainerPort: 1, HostPort: 1, HostIp: "fe80::1%eth0"}), "port_mappings[0].host_ip"},
		"bandwidth of words":      {annotation(annotationIngress, "fast"), "ingress-bandwidth"},
		"bandwidth below 1k":      {annotation(annotationEgress, "999"), "egress-bandwidth"},
		"bandwidth beyond 1P":     {annotation(annotationEgress, "1.1P"), "egress-bandwidth"},
		"bandwidth beyond 64 bit": {annotation(annotationEgress, "99E99"), "egress-bandwidth"},

		// CVE-2022-0811 and its like.
		"sysctl of the node":           {sysctl("kernel.core_pattern", "|/bin/sh"), "sysctls"},
		"sysctl that only looks right": {sysctl("kernel.shm_rmid_forced=1+kernel.core_pattern", "1"), "sysctls"},
		"sysctl value with a line":     {sysctl("kernel.shm_rmid_forced", "1\n2"), "sysctls"},
		"sysctl with ..":               {sysctl("net/../kernel/core_pattern", "x"), "sysctls"},
		"sysctl with .. in dots":       {sysctl("net....kernel.core_pattern", "x"), "sysctls"},
		"sysctl with .. by slashes":    {sysctl("net.//.kernel", "x"), "sysctls"},
		"sysctl that is absolute":      {sysctl("/net/ipv4/ip_forward", "1"), "sysctls"},
		"sysctl without a name":        {sysctl("", "1"), "sysctls"},
		"sysctl of one element":        {sysctl("net", "1"), "sysctls"},
		"sysctl vm":                    {sysctl("vm/swappiness", "1"), "sysctls"},
		"sysctl twice": {linux(func(l *runtime.LinuxPodSandboxConfig) {
			l.Sysctls = map[string]string{"kernel.shmmax": "1", "kernel/shmmax": "2"}
		}), "sysctls"},
		"net sysctl, node's network": {linux(func(l *runtime.LinuxPodSandboxConfig) { // CVE-2022-0532
			l.Sysctls, l.SecurityContext.NamespaceOptions = map[string]string{"net.ipv4.ip_forward": "1"}, &runtime.NamespaceOption{Network: node}
		}), "sysctls"},
		"IPC sysctl, node's IPC": {linux(func(l *runtime.LinuxPodSandboxConfig) {
			l.Sysctls, l.SecurityContext.NamespaceOptions = map[string]string{"fs/mqueue/msg_max": "1"}, &runtime.NamespaceOption{Ipc: node}
		}), "sysctls"},

		"own network":           {ns(&runtime.NamespaceOption{Network: runtime.NamespaceMode_CONTAINER}), "namespace_options.network"},
		"target IPC":            {ns(&runtime.NamespaceOption{Ipc: runtime.NamespaceMode_TARGET}), "namespace_options.ipc"},
		"target processes":      {ns(&runtime.NamespaceOption{Pid: runtime.NamespaceMode_TARGET}), "namespace_options.pid"},
		"target id":             {ns(&runtime.NamespaceOption{TargetId: "x"}), "namespace_options.target_id"},
		"user ns, node's pids":  {ns(&runtime.NamespaceOption{Pid: node, UsernsOptions: userns()}), "userns_options"},
		"user ns, two mappings": {ns(&runtime.NamespaceOption{UsernsOptions: &runtime.UserNamespace{Uids: append(userns().Uids, userns().Uids...), Gids: userns().Gids}}), "userns_options.uids"},
		"user ns, no groups":    {ns(&runtime.NamespaceOption{UsernsOptions: &runtime.UserNamespace{Uids: userns().Uids}}), "userns_options.gids"},
		"nil mapping":           {ns(&runtime.NamespaceOption{UsernsOptions: &runtime.UserNamespace{Uids: []*runtime.IDMapping{nil}, Gids: userns().Gids}}), "userns_options.uids[0].length"},
		"group without user":    {linux(func(l *runtime.LinuxPodSandboxConfig) { l.SecurityContext.RunAsGroup = &runtime.Int64Value{} }), "run_as_group"},
		"user beyond": {linux(func(l *runtime.LinuxPodSandboxConfig) {
			l.SecurityContext.RunAsUser = &runtime.Int64Value{Value: 1 << 31}
		}), "run_as_user"},
		"groups policy":    {linux(func(l *runtime.LinuxPodSandboxConfig) { l.SecurityContext.SupplementalGroupsPolicy = 5 }), "supplemental_groups_policy"},
		"relative seccomp": {linux(func(l *runtime.LinuxPodSandboxConfig) { l.SecurityContext.SeccompProfilePath = "localhost/x" }), "seccomp_profile_path"}, //nolint:staticcheck // deprecated is what is tested
		"SELinux role": {linux(func(l *runtime.LinuxPodSandboxConfig) {
			l.SecurityContext.SelinuxOptions = &runtime.SELinuxOption{Role: "a b"}
		}), "selinux_options.role"},
		"overhead":  {linux(func(l *runtime.LinuxPodSandboxConfig) { l.Overhead = &runtime.LinuxContainerResources{CpuQuota: 1} }), "config.linux.overhead.cpu_quota"},
		"resources": {linux(func(l *runtime.LinuxPodSandboxConfig) { l.Resources = &runtime.LinuxContainerResources{CpuPeriod: 1} }), "config.linux.resources.cpu_period"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := small()
			cfg.Linux = &runtime.LinuxPodSandboxConfig{SecurityContext: &runtime.LinuxSandboxSecurityContext{}}
			c.edit(cfg)
			_, err := New(cfg, options())
			if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), c.field) {
				t.Errorf("want %q and an invalid argument, got %v", c.field, err)
			}
			if err != nil && len(err.Error()) > 600 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
	if _, err := New(nil, options()); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("nil config: %v", err)
	}
}
