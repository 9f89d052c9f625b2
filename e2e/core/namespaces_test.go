//go:build e2e

package core

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/story"
)

func pidMode(m runtimeapi.NamespaceMode) func(*runtimeapi.PodSandboxConfig) {
	return func(c *runtimeapi.PodSandboxConfig) { c.Linux.SecurityContext.NamespaceOptions.Pid = m }
}

func inPID(c *runtimeapi.ContainerConfig, m runtimeapi.NamespaceMode, target string) *runtimeapi.ContainerConfig {
	o := c.Linux.SecurityContext.NamespaceOptions
	o.Pid, o.TargetId = m, target
	return c
}

func inode(t *testing.T, c *story.Container, kind string) string {
	t.Helper()
	link, err := os.Readlink("/proc/" + strconv.Itoa(c.Pid()) + "/ns/" + kind)
	if err != nil {
		t.Fatal(err)
	}
	return link
}

// Containers of a pod share network, IPC, host name and /dev/shm, and nothing else; those of another pod share none of it.
func TestWhatContainersOfAPodShare(t *testing.T) {
	s := story.Begin(t)
	p, other := s.Pod("shared"), s.Pod("other")
	a, b, c := p.Go(story.Sleeper("a")), p.Go(story.Sleeper("b")), other.Go(story.Sleeper("c"))
	for _, kind := range []string{"net", "ipc", "uts"} {
		if inode(t, a, kind) != inode(t, b, kind) {
			t.Errorf("two containers of a pod have different namespaces: %s", kind)
		}
		if inode(t, a, kind) == inode(t, c, kind) {
			t.Errorf("two pods share a namespace: %s", kind)
		}
	}
	for _, kind := range []string{"pid", "mnt"} {
		if inode(t, a, kind) == inode(t, b, kind) {
			t.Errorf("two containers of a pod share a namespace that is each one's own: %s", kind)
		}
	}
	a.Sh("echo hello > /dev/shm/note; echo private > /tmp/note")
	if got := b.Sh("cat /dev/shm/note; ls /tmp"); got != "hello" {
		t.Errorf("the neighbour sees %q", got)
	}
	if n, _ := c.Try("test -e /dev/shm/note"); n == 0 {
		t.Error("another pod sees this one's shared memory")
	}
	a.Sh("(nc -l -p 4321 -e echo over-loopback >/dev/null 2>&1 &)")
	s.Eventually("the neighbour over loopback", 5*time.Second, func() bool {
		_, out := b.Try("nc -w 2 127.0.0.1 4321 </dev/null")
		return strings.Contains(out, "over-loopback")
	})
	ip := p.Status().GetNetwork().GetIp()
	a.Sh("(nc -l -p 4322 -e echo over-network >/dev/null 2>&1 &)")
	s.Eventually("another pod over the network", 5*time.Second, func() bool {
		_, out := c.Try("nc -w 2 " + ip + " 4322 </dev/null")
		return strings.Contains(out, "over-network")
	})
}

func TestAPodWideProcessNamespace(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("podpid", pidMode(runtimeapi.NamespaceMode_POD))
	a := p.Go(inPID(story.Sleeper("a"), runtimeapi.NamespaceMode_POD, ""))
	b := p.Go(inPID(story.Shell("b", "exec sleep 12345"), runtimeapi.NamespaceMode_POD, ""))
	if inode(t, a, "pid") != inode(t, b, "pid") {
		t.Fatal("two containers of a pod with one process namespace have two")
	}
	s.Eventually("a sees b's process", 5*time.Second, func() bool { n, _ := a.Try("pgrep -f 'sleep 12345'"); return n == 0 })
	if one := a.Sh("tr '\\0' ' ' < /proc/1/cmdline"); !strings.Contains(one, "pause") {
		t.Errorf("process 1 of the pod is %q", one)
	}
	// orphans are the pod's to reap
	a.Sh("sh -c '(sleep 0.2 &)'")
	s.Eventually("no zombie stays", 10*time.Second, func() bool { n, _ := a.Try("grep -l 'State:.Z' /proc/[0-9]*/status"); return n != 0 })
	b.Stop(0)
	a.WantState(running)
}

// A pod is asked for its process namespace by its first container only, as a shell user does with crictl: the pause comes late.
func TestALatePause(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("late") // the pod says: each its own
	a := p.Go(inPID(story.Sleeper("a"), runtimeapi.NamespaceMode_POD, ""))
	b := p.Go(inPID(story.Sleeper("b"), runtimeapi.NamespaceMode_POD, ""))
	c := p.Go(inPID(story.Sleeper("c"), runtimeapi.NamespaceMode_CONTAINER, ""))
	if inode(t, a, "pid") != inode(t, b, "pid") || inode(t, a, "pid") == inode(t, c, "pid") {
		t.Errorf("process namespaces: a %s, b %s, c %s", inode(t, a, "pid"), inode(t, b, "pid"), inode(t, c, "pid"))
	}
}

// kubectl debug --target: the guest sees the target's processes, and its end does not end the target.
func TestATargetsProcessNamespace(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("target")
	a := p.Go(story.Shell("a", "exec sleep 54321"))
	guest := p.Go(inPID(story.Sleeper("guest"), runtimeapi.NamespaceMode_TARGET, a.ID))
	if inode(t, a, "pid") != inode(t, guest, "pid") {
		t.Fatal("the guest is in another namespace")
	}
	guest.Sh("pgrep -f 'sleep 54321'")
	guest.Stop(0)
	a.WantState(running)
	guest = p.Go(inPID(story.Sleeper("second"), runtimeapi.NamespaceMode_TARGET, a.ID))
	a.Stop(0)
	guest.Exited() // its process 1 is gone: the kernel ends the namespace
	if _, err := s.Create(t.Context(), p.ID, inPID(story.Sleeper("third"), runtimeapi.NamespaceMode_TARGET, unknown), p.Config); err == nil {
		t.Error("a target that is not there")
	}
	if _, err := s.Create(t.Context(), p.ID, inPID(story.Sleeper("fourth"), runtimeapi.NamespaceMode_TARGET, ""), p.Config); err == nil {
		t.Error("a target without an id")
	}
	other := s.Pod("stranger").Go(story.Sleeper("x"))
	if _, err := s.Create(t.Context(), p.ID, inPID(story.Sleeper("fifth"), runtimeapi.NamespaceMode_TARGET, other.ID), p.Config); err == nil {
		t.Error("a target in another pod: its processes would be seen from here")
	}
}

func TestTheHostsNamespaces(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("host", func(c *runtimeapi.PodSandboxConfig) {
		o := c.Linux.SecurityContext.NamespaceOptions
		o.Network, o.Pid, o.Ipc = runtimeapi.NamespaceMode_NODE, runtimeapi.NamespaceMode_NODE, runtimeapi.NamespaceMode_NODE
		c.Hostname = ""
	})
	config := story.Sleeper("c")
	o := config.Linux.SecurityContext.NamespaceOptions
	o.Network, o.Pid, o.Ipc = runtimeapi.NamespaceMode_NODE, runtimeapi.NamespaceMode_NODE, runtimeapi.NamespaceMode_NODE
	c := p.Go(config)
	for _, kind := range []string{"net", "pid", "ipc", "uts"} {
		own, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil {
			t.Fatal(err)
		}
		if got := inode(t, c, kind); got != own {
			t.Errorf("%s: %s, the host's is %s", kind, got, own)
		}
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Sh("hostname"); got != host {
		t.Errorf("host name %q, the host's is %q", got, host)
	}
	r, err := s.Runtime.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: p.ID})
	if err != nil || r.GetStatus().GetLinux().GetNamespaces().GetOptions().GetNetwork() != runtimeapi.NamespaceMode_NODE {
		t.Errorf("the status tells of %v (%v)", r.GetStatus().GetLinux().GetNamespaces().GetOptions(), err)
	}
	if err := s.StopContainer(t.Context(), c.ID, 5); err != nil {
		t.Fatal(err)
	}
	if st := c.WantState(exited); st.GetExitCode() != 0 {
		t.Errorf("ended with %d: TERM did not reach it", st.GetExitCode())
	}
}

func TestDNSHostnameAndHosts(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("naming", func(c *runtimeapi.PodSandboxConfig) {
		c.Hostname = "given-name"
		c.DnsConfig = &runtimeapi.DNSConfig{Servers: []string{"10.96.0.10", "fd00::10"}, Searches: []string{"a.example", "b.example"}, Options: []string{"ndots:5", "timeout:2"}}
	})
	c := p.Go(story.Sleeper("c"))
	if got := c.Sh("hostname; cat /etc/hostname"); got != "given-name\ngiven-name" {
		t.Errorf("host name: %q", got)
	}
	resolv := c.Sh("cat /etc/resolv.conf")
	for _, want := range []string{"nameserver 10.96.0.10", "nameserver fd00::10", "search a.example b.example", "options ndots:5 timeout:2"} {
		if !strings.Contains(resolv, want) {
			t.Errorf("resolv.conf lacks %q: %q", want, resolv)
		}
	}
	if hosts := c.Sh("cat /etc/hosts"); !strings.Contains(hosts, "localhost") {
		t.Errorf("/etc/hosts: %q", hosts)
	}
	// without DNS of its own a pod has the node's
	node, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Skip("no /etc/resolv.conf here to compare with")
	}
	plain := s.Pod("plain").Go(story.Sleeper("c"))
	if got := plain.Sh("cat /etc/resolv.conf"); got != strings.TrimSpace(string(node)) {
		t.Errorf("resolv.conf %q, the node's is %q", got, node)
	}
	// a container sees what another one of the pod writes there, as with every other runtime
	d := p.Go(story.Sleeper("d"))
	c.Sh("echo '# mark' >> /etc/resolv.conf")
	if !strings.Contains(d.Sh("cat /etc/resolv.conf"), "# mark") {
		t.Error("two containers of a pod have two resolv.conf")
	}
}

func TestSysctls(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("sysctl", func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.Sysctls = map[string]string{"net.ipv4.ip_local_port_range": "2000 3000", "kernel.shm_rmid_forced": "1", "net.ipv4.ping_group_range": "0 7"}
	})
	c := p.Go(story.Sleeper("c"))
	if got := strings.Join(strings.Fields(c.Sh("cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ping_group_range")), " "); got != "2000 3000 1 0 7" {
		t.Errorf("inside: %q", got)
	}
	if host, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err != nil || strings.Join(strings.Fields(string(host)), " ") == "2000 3000" {
		t.Errorf("the host's has changed: %q (%v)", host, err)
	}
	config := s.Home.Pod("sysctl-host")
	config.Linux.Sysctls = map[string]string{"vm.swappiness": "1"}
	if _, err := s.RunPod(t.Context(), config, ""); err == nil {
		t.Error("a sysctl of the whole machine was set by a pod")
	}
}
