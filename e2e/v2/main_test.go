//go:build e2e

// Package v2 tests what only cgroup v2, AppArmor or systemd can show: limits and pressure in the kernel's own files, the freezer, cgroup.kill,
// crun, profiles, slices and scopes, and the shipped unit. Elsewhere all of it is skipped; `make test-v2` runs it in the guest.
package v2

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/story"
)

func TestMain(m *testing.M) { story.Main(m) }

const (
	running = runtimeapi.ContainerState_CONTAINER_RUNNING
	exited  = runtimeapi.ContainerState_CONTAINER_EXITED
)

// begin is story.Begin on a machine with cgroup v2.
func begin(t *testing.T) *story.Story {
	t.Helper()
	needV2(t)
	return story.Begin(t)
}

func needV2(t *testing.T) {
	t.Helper()
	if !story.V2() {
		t.Skip("needs cgroup v2")
	}
}

// limited is a container that sleeps within limits.
func limited(name string, r *runtimeapi.LinuxContainerResources) *runtimeapi.ContainerConfig {
	config := story.Sleeper(name)
	config.Linux.Resources = r
	return config
}

// read is a one-line file of the kernel.
func read(t *testing.T, dir, file string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// want fails the test for each file that holds something else.
func want(t *testing.T, when, dir string, files map[string]string) {
	t.Helper()
	for file, value := range files {
		if got := read(t, dir, file); got != value {
			t.Errorf("%s: %s is %q, not %q", when, file, got, value)
		}
	}
}

// write changes a file of the kernel, as somebody else on the machine might.
func write(t *testing.T, dir, file, value string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// podDir is the folder of the pod's own cgroup.
func podDir(p *story.Pod) string {
	return "/sys/fs/cgroup" + p.Home.ParentPath(p.Config.GetLinux().GetCgroupParent())
}

// dirOf is a container's folder by its id, also when its process is gone.
func dirOf(p *story.Pod, id string) string {
	found, err := filepath.Glob(podDir(p) + "/*" + id + "*")
	if err != nil || len(found) == 0 {
		return ""
	}
	return found[0]
}

// populated tells whether a live process is in a cgroup; one that is not there has none.
func populated(dir string) bool {
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
	return err == nil && strings.Contains(string(data), "populated 1")
}
