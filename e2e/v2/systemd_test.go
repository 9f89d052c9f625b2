//go:build e2e

package v2

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/story"
)

func needDriver(t *testing.T, s *story.Story) {
	t.Helper()
	if !s.Home.Systemd {
		t.Skip("needs the systemd cgroup driver")
	}
}

// systemctl runs it and gives its output; its status does not matter.
func systemctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "systemctl", args...).CombinedOutput()
	if err != nil {
		t.Logf("systemctl %s: %v", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out))
}

// Under the systemd driver a container is a scope in its pod's slice, and systemd itself knows its limits: were they only in the files, the
// next daemon-reload would take them away.
func TestScopesAndSlices(t *testing.T) {
	s := begin(t)
	needDriver(t, s)
	p := s.Pod("slices")
	c := p.Go(limited("c", &runtimeapi.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: 50000, MemoryLimitInBytes: 64 << 20}))
	scope := "crid-" + c.ID + ".scope"
	if dir := c.CgroupDir("memory"); dir != podDir(p)+"/"+scope {
		t.Errorf("the container is in %s, not in %s of %s", dir, scope, podDir(p))
	}
	_, err := s.Runtime.UpdateContainerResources(t.Context(), &runtimeapi.UpdateContainerResourcesRequest{ContainerId: c.ID, Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 80 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	systemctl(t, "daemon-reload")
	want(t, "after a reload of systemd", c.CgroupDir("memory"), map[string]string{"memory.max": "83886080", "cpu.max": "50000 100000"})
	if got := systemctl(t, "show", "-p", "MemoryMax", "--value", scope); got != "83886080" {
		t.Errorf("systemd's own MemoryMax is %s", got)
	}
	c.Stop(10)
	c.Remove()
	if got := systemctl(t, "show", "-p", "ActiveState", "--value", scope); got != "inactive" {
		t.Errorf("the scope of a removed container is %s", got)
	}
}

// A pod without a parent, as crictl makes it, gets a slice of its own, which goes with it.
func TestASliceOfItsOwn(t *testing.T) {
	s := begin(t)
	needDriver(t, s)
	p := s.Pod("own", func(c *runtimeapi.PodSandboxConfig) { c.Linux.CgroupParent = "" })
	c := p.Go(story.Sleeper("c"))
	dir := c.CgroupDir("memory")
	parts := strings.Split(strings.TrimPrefix(dir, "/sys/fs/cgroup/"), "/")
	slice := parts[len(parts)-2]
	if !strings.HasSuffix(slice, "-"+p.ID[:32]+".slice") {
		t.Fatalf("the container is in %s", dir)
	}
	if got := systemctl(t, "show", "-p", "ActiveState", "--value", slice); got != "active" {
		t.Errorf("the slice %s is %s", slice, got)
	}
	if err := s.RemovePodFully(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	if got := systemctl(t, "show", "-p", "ActiveState", "--value", slice); got != "inactive" {
		t.Errorf("the slice of a removed pod is %s", got)
	}
	if _, err := os.Stat(strings.TrimSuffix(dir, "/"+parts[len(parts)-1])); err == nil {
		t.Errorf("%s is left", slice)
	}
}

// With systemd's driver a parent must be a slice; a path is a kubelet with another driver, and it is told.
func TestAParentThatIsNoSlice(t *testing.T) {
	s := begin(t)
	needDriver(t, s)
	config := s.Home.Pod("path")
	config.Linux.CgroupParent = "/kubepods/pod1"
	if _, err := s.RunPod(t.Context(), config, ""); err == nil || !strings.Contains(err.Error(), "driver") {
		t.Errorf("a pod below a path: %v", err)
	}
}
