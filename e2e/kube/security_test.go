//go:build e2e

package kube

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crid-project/crid/hack/kube/cluster"
)

func freePort(t *testing.T) int {
	t.Helper()
	ports, err := cluster.Ports(1)
	if err != nil {
		t.Fatal(err)
	}
	return ports[0]
}

// userNamespace: root in the pod is somebody else on the machine, also for files in volumes.
func userNamespace(t *testing.T, s *space) {
	p := s.run("main", "hostUsers: false\ncontainers:\n"+sleeper("main", "volumeMounts: [{name: tmp, mountPath: /scratch}]")+"\nvolumes: [{name: tmp, emptyDir: {}}]")
	var inside, outside, length int
	if _, err := fmt.Sscan(s.sh("main", "main", "cat /proc/self/uid_map"), &inside, &outside, &length); err != nil || inside != 0 || outside < 65536 || length < 65536 {
		t.Errorf("the map is %d %d %d (%v)", inside, outside, length, err)
	}
	if got := s.sh("main", "main", "touch /scratch/file; stat -c %u /scratch/file /bin/busybox; id -u"); got != "0\n0\n0" {
		t.Errorf("owners as seen inside: %q", got)
	}
	status, err := s.cri().Status(t.Context(), bare(p.container("main").ContainerID))
	if err != nil {
		t.Fatal(err)
	}
	if status.GetUser().GetLinux().GetUid() != 0 {
		t.Errorf("its user is %v", status.GetUser())
	}
	procs := strings.Fields(s.cgroupFile(t, p, "main", "memory/cgroup.procs"))
	if len(procs) == 0 {
		t.Fatal("nobody runs in its cgroup")
	}
	if info := read(t, "/proc/"+procs[0]+"/status"); !strings.Contains(info, fmt.Sprintf("Uid:\t%d\t", outside)) {
		t.Errorf("on the machine it is not user %d: %s", outside, info)
	}
	s.unchanged(p)
}

func hostPort(t *testing.T, s *space) {
	port := freePort(t)
	s.run("main", "containers:\n"+script("main", "mkdir /www; echo here > /www/index.html; exec httpd -f -p 80 -h /www", fmt.Sprintf("ports: [{containerPort: 80, hostPort: %d}]", port)))
	url := fmt.Sprintf("http://127.0.0.1:%d/", port)
	await(t, time.Minute, url, func(context.Context) error {
		if got := fetch(t, url); got != "here\n" {
			return errorf("it serves %q", got)
		}
		return nil
	})
	s.must("delete", "pod", "main")
	await(t, time.Minute, url+" closed", func(context.Context) error {
		if got := fetch(t, url); got == "here\n" {
			return errorf("it serves %q", got)
		}
		return nil
	})
}

func hostNetwork(t *testing.T, s *space) {
	port := freePort(t)
	p := s.run("main", "hostNetwork: true\ncontainers:\n"+script("main", fmt.Sprintf("mkdir /www; echo host > /www/index.html; exec httpd -f -p 127.0.0.1:%d -h /www", port), ""))
	if p.Status.PodIP != p.Status.HostIP || p.Status.PodIP == "" {
		t.Errorf("the pod's address is %s, the node's %s", p.Status.PodIP, p.Status.HostIP)
	}
	await(t, time.Minute, "its port on the machine", func(context.Context) error {
		if got := fetch(t, "http://"+net.JoinHostPort("127.0.0.1", fmt.Sprint(port))+"/"); got != "host\n" {
			return errorf("it serves %q", got)
		}
		return nil
	})
}

func sharedProcesses(t *testing.T, s *space) {
	s.run("main", "shareProcessNamespace: true\ncontainers:\n"+script("one", "exec sleep 11111", "")+"\n"+sleeper("two", ""))
	got := s.sh("main", "two", "ps -o pid,args")
	if !strings.Contains(got, "sleep 11111") || strings.Contains(got, " 1 sleep") {
		t.Errorf("one sees\n%s", got)
	}
}

func sysctls(t *testing.T, s *space) {
	s.run("main", "securityContext: {sysctls: [{name: net.ipv4.ip_unprivileged_port_start, value: '80'}, {name: kernel.shm_rmid_forced, value: '1'}, {name: net.core.somaxconn, value: '77'}]}\ncontainers:\n"+sleeper("main", ""))
	if got := s.sh("main", "main", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced /proc/sys/net/core/somaxconn"); got != "80\n1\n77" {
		t.Errorf("they are %q", got)
	}
	s.create("unsafe", "securityContext: {sysctls: [{name: kernel.msgmax, value: '65536'}]}\ncontainers:\n"+sleeper("main", ""))
	if p := s.over("unsafe"); p.Status.Reason != "SysctlForbidden" {
		t.Errorf("an unsafe sysctl: %s", p.Status.Reason)
	}
}

func seccomp(t *testing.T, s *space) {
	profile := `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}`
	if err := os.WriteFile(filepath.Join(s.k.SeccompRoot(), "nomkdir.json"), []byte(profile), 0o644); err != nil {
		t.Fatal(err)
	}
	s.run("main", "containers:\n"+sleeper("default", "securityContext: {seccompProfile: {type: RuntimeDefault}}")+"\n"+
		sleeper("local", "securityContext: {seccompProfile: {type: Localhost, localhostProfile: nomkdir.json}}")+"\n"+
		sleeper("none", "securityContext: {seccompProfile: {type: Unconfined}}"))
	mode := "grep Seccomp: /proc/self/status | tr -d '[:space:]'"
	try := "unshare -U true 2>/dev/null && echo -n new user namespace, || echo -n refused,; mkdir /tmp/d 2>/dev/null && echo folder || echo refused"
	for name, want := range map[string][2]string{"default": {"Seccomp:2", "refused,folder"}, "local": {"Seccomp:2", "new user namespace,refused"}, "none": {"Seccomp:0", "new user namespace,folder"}} {
		if got := s.sh("main", name, mode); got != want[0] {
			t.Errorf("%s: %s", name, got)
		}
		if got := s.sh("main", name, try); got != want[1] {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// supplementalGroups: root is in group wheel (10) by the image's /etc/group, which Strict leaves out.
func supplementalGroups(t *testing.T, s *space) {
	for policy, want := range map[string]string{"Merge": "0 10 4321", "Strict": "0 4321"} {
		name := strings.ToLower(policy)
		s.create(name, "securityContext: {supplementalGroups: [4321], supplementalGroupsPolicy: "+policy+"}\ncontainers:\n"+sleeper("main", ""))
		s.ready(name)
		if got := s.sh(name, "main", "id -G"); got != want {
			t.Errorf("%s: groups %q, not %q", policy, got, want)
		}
		s.until(name, "its user in the status", func(p *pod) error {
			if got := strings.Trim(fmt.Sprint(p.container("main").User.Linux.SupplementalGroups), "[]"); got != want {
				return errorf("groups %q", got)
			}
			return nil
		})
	}
}

func runtimeClasses(t *testing.T, s *space) {
	class := func(name, handler string) {
		s.apply(fmt.Sprintf("apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: %s}\nhandler: %s\n", name, handler))
		t.Cleanup(func() { s.must("delete", "runtimeclass", name) })
	}
	class("by-name", "runc")
	s.run("main", "runtimeClassName: by-name\ncontainers:\n"+sleeper("main", ""))
	class("unknown", "nobody")
	s.create("lost", "runtimeClassName: unknown\ncontainers:\n"+sleeper("main", ""))
	await(t, 2*time.Minute, "an event that names the handler", func(ctx context.Context) error {
		out, err := s.kubectl(ctx, "get", "events", "--field-selector=involvedObject.name=lost", "-o", "jsonpath={.items[*].message}")
		if err != nil || !strings.Contains(out, "nobody") {
			return errorf("%q (%v)", out, err)
		}
		return nil
	})
}

func runtimeClassCrun(t *testing.T, s *space) {
	if crun() == "" {
		t.Skip("crun is not installed")
	}
	if _, err := os.Stat("/sys/fs/cgroup/unified"); err == nil {
		t.Skip("Debian 12's crun (1.8.1) refuses a machine with both cgroup versions mounted")
	}
	s.apply("apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: crun}\nhandler: crun\n")
	t.Cleanup(func() { s.must("delete", "runtimeclass", "crun") })
	s.run("main", "runtimeClassName: crun\ncontainers:\n"+sleeper("main", ""))
}
