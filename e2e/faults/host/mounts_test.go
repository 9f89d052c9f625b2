//go:build e2e

package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/faults/watch"
	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/story"
)

// Somebody takes away what a pod stands on: root file system, namespace, network link, bridge. What runs goes on; the pod can be stopped, and gives its
// address back.
func TestF75WhatAPodStandsOnIsTaken(t *testing.T) {
	s := story.Alone(t, harness.Crid{})
	before := leases(s.Home)
	for _, c := range []struct {
		what string
		take func(*testing.T, *story.Container)
		pod  bool // stays ready
	}{
		{"its root file system", func(t *testing.T, c *story.Container) {
			t.Helper()
			if err := unix.Unmount(filepath.Join(s.Home.State(), "containers", c.ID, "rootfs"), unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"its network namespace", func(t *testing.T, c *story.Container) {
			t.Helper()
			for _, m := range mountsBelow(filepath.Join(s.Home.State(), "pods", c.Pod.ID)) {
				if strings.HasSuffix(m, "/net") {
					if err := unix.Unmount(m, unix.MNT_DETACH); err != nil {
						t.Fatal(err)
					}
					return
				}
			}
			t.Fatal("it is not pinned")
		}, false},
		{"its link", func(t *testing.T, _ *story.Container) {
			t.Helper()
			bridge, err := netlink.LinkByName(s.Home.Name)
			if err != nil {
				t.Fatal(err)
			}
			links, err := netlink.LinkList()
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range links {
				if l.Attrs().MasterIndex == bridge.Attrs().Index {
					if err := netlink.LinkDel(l); err != nil {
						t.Fatal(err)
					}
				}
			}
		}, true},
		{"the bridge", func(t *testing.T, _ *story.Container) {
			t.Helper()
			bridge, err := netlink.LinkByName(s.Home.Name)
			if err != nil {
				t.Fatal(err)
			}
			if err := netlink.LinkDel(bridge); err != nil {
				t.Fatal(err)
			}
		}, true},
	} {
		p := s.Pod("stands")
		x := p.Go(story.Shell("c", "trap 'exit 3' TERM; while :; do sleep 0.2; done"))
		x.Sh("true")
		c.take(t, x)
		if !c.pod {
			s.Eventually(c.what+": the pod is not ready", 5*time.Second, func() bool { return p.Status().GetState() == notReady })
		}
		x.WantState(running)
		x.Stop(10)
		if st := x.WantState(exited); st.GetExitCode() != 3 {
			t.Errorf("%s: it ended with %d", c.what, st.GetExitCode())
		}
		if err := s.RemovePodFully(t.Context(), p.ID); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if n := leases(s.Home); n != before {
			t.Errorf("%s: %d leases, %d before", c.what, n, before)
		}
	}
	s.Pod("after").Go(story.Sleeper("c")).Sh("true")
}

// Mounts that a workload or somebody on the host leaves inside a container's folder: a removal unmounts them, and deletes nothing behind them.
func TestF76MountsThatAreLeftBehind(t *testing.T) {
	s := story.AloneIn(t, harness.Crid{}, shared)
	host := filepath.Join(s.Home.Tmp(), "shared")
	precious := filepath.Join(t.TempDir(), "precious")
	sentinel := filepath.Join(precious, "sentinel")
	for _, d := range []string{host, precious} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(sentinel, []byte(victimText), 0o600); err != nil {
		t.Fatal(err)
	}
	p := s.Pod("leaves", func(p *runtimeapi.PodSandboxConfig) { p.Linux.SecurityContext.Privileged = true })
	for n := range watch.Times(6, 1000) {
		config := story.Shell("c", "mkdir -p /shared/in /mnt; mount -t tmpfs in /shared/in && mount --bind /precious /shared/in && mount --bind /precious /mnt; while :; do sleep 1; done")
		config.Linux.SecurityContext.Privileged = true
		config.Mounts = []*runtimeapi.Mount{{ContainerPath: "/shared", HostPath: host, Propagation: runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL},
			{ContainerPath: "/precious", HostPath: precious}}
		c := p.Go(config)
		s.Eventually("it has mounted", 10*time.Second, func() bool { return len(mountsBelow(filepath.Join(host, "in"))) > 1 })
		dir := filepath.Join(s.Home.State(), "containers", c.ID)
		for _, at := range []string{filepath.Join(dir, "rootfs", "mnt"), filepath.Join(dir, "left")} { // somebody on the host
			if err := os.MkdirAll(at, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount(precious, at, "", unix.MS_BIND, ""); err != nil {
				t.Fatal(err)
			}
		}
		if n%2 == 0 {
			c.Stop(0)
		}
		c.Remove()
		if left := mountsBelow(dir); len(left) > 0 {
			t.Errorf("round %d: still mounted: %q", n, left)
		}
		if text, err := os.ReadFile(sentinel); err != nil || string(text) != victimText {
			t.Fatalf("round %d: the sentinel: %q (%v)", n, text, err)
		}
		for _, m := range mountsBelow(filepath.Join(host, "in")) { // the workload's, which are not crid's to take
			if err := unix.Unmount(m, unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
		}
	}
}
