//go:build e2e

package crash

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/harness"
)

// UpdateContainerResources: F14, F15, F16.
type update struct{ ctr }

const (
	oldMemory, newMemory = 64 << 20, 96 << 20
	oldShares, newShares = 200, 400
)

func (s *update) set(t *testing.T) {
	s.runPod(t)
	s.workload(t, politely)
	s.spec.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: oldMemory, CpuShares: oldShares}
	s.started(t)
}

func (s *update) call(ctx context.Context) error {
	_, err := s.Runtime.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: s.cid,
		Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: newMemory, CpuShares: newShares}})
	return err
}

func (s *update) over(*testing.T) {}

// inCgroup reads a limit of the container, in the layout of cgroup v1; v2 has another file and no shares.
func (s *update) inCgroup(t *testing.T) (memory, shares int64) {
	t.Helper()
	parent := s.Home.ParentPath(s.config.GetLinux().GetCgroupParent())
	number := func(paths ...string) int64 {
		for _, p := range paths {
			if n, err := strconv.ParseInt(strings.TrimSpace(read(p)), 10, 64); err == nil {
				return n
			}
		}
		return 0
	}
	memory = number("/sys/fs/cgroup/memory"+parent+"/"+s.cid+"/memory.limit_in_bytes", "/sys/fs/cgroup"+parent+"/"+s.cid+"/memory.max")
	shares = number("/sys/fs/cgroup/cpu" + parent + "/" + s.cid + "/cpu.shares")
	if memory == 0 {
		t.Fatalf("no memory limit of container %s is found below %s", s.cid, parent)
	}
	return memory, shares
}

// true fails the test unless what is shown is what holds.
func (s *update) told(t *testing.T) (memory int64) {
	t.Helper()
	var shown *runtimeapi.LinuxContainerResources
	var shares int64
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		shown = s.status(t).GetResources().GetLinux()
		memory, shares = s.inCgroup(t)
		if shown.GetMemoryLimitInBytes() == memory && (shares == 0 || shown.GetCpuShares() == shares) || time.Now().After(end) {
			break
		}
	}
	if shown.GetMemoryLimitInBytes() != memory || shares != 0 && shown.GetCpuShares() != shares {
		t.Errorf("shown: %d bytes and %d shares; the cgroup's: %d and %d", shown.GetMemoryLimitInBytes(), shown.GetCpuShares(), memory, shares)
	}
	return memory
}

func (s *update) crashed(t *testing.T, answered bool) {
	if memory := s.told(t); answered && memory != newMemory {
		t.Errorf("the update was answered and the limit is %d", memory)
	}
}

func (s *update) failed(t *testing.T, err error) {
	if err == nil {
		t.Error("the step failed and the call did not")
	}
	s.told(t)
}

func (s *update) done(t *testing.T) {
	if memory := s.told(t); memory != newMemory {
		t.Errorf("the limit is %d after the update", memory)
	}
}

// ExecSync: F14, F15, F16. A retry is another exec, as it is for a kubelet's probe.
type execute struct {
	ctr
	calls int
}

func (s *execute) set(t *testing.T) {
	s.runPod(t)
	s.workload(t, politely)
	s.started(t)
	if _, err := s.Exec(t.Context(), s.cid, "true"); err != nil { // the first one makes a folder for all
		t.Fatal(err)
	}
	s.before = s.whole(t)
}

// The first command runs on where the point comes before its end.
func (s *execute) call(ctx context.Context) error {
	s.calls++
	line, want := "echo said; exit 3", int32(3)
	if s.calls == 1 && s.run.number() <= 3 {
		line = "echo said; sleep 1234"
	}
	r, err := s.Runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: s.cid, Cmd: []string{"sh", "-c", line}, Timeout: 3})
	if err != nil {
		return err
	}
	if r.GetExitCode() != want || string(r.GetStdout()) != "said\n" {
		return fmt.Errorf("it ends with %d and says %q", r.GetExitCode(), r.GetStdout())
	}
	return nil
}

func (s *execute) over(*testing.T) {}

// alone waits until the workload is by itself again: no process of an exec, and nothing that was made for one.
func (s *execute) alone(t *testing.T) {
	t.Helper()
	var left []string
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		left = slices.DeleteFunc(s.before.Leaks(s.Census(t.Context())), func(l string) bool { return strings.Contains(l, "sleep 0.05") }) // the workload's own
		if len(left) == 0 || time.Now().After(end) {
			break
		}
	}
	for _, leak := range left {
		t.Errorf("left behind by an exec: %s", leak)
	}
	if st := s.status(t); st.GetState() != running {
		t.Errorf("the container is %s", st.GetState())
	}
}

func (s *execute) crashed(t *testing.T, _ bool) { s.alone(t) }
func (s *execute) failed(t *testing.T, err error) {
	if err == nil {
		t.Error("the step failed and the call did not")
	}
	s.alone(t)
}
func (s *execute) done(t *testing.T) { s.alone(t) }

// PullImage: F13, F15, F16.
type pull struct{ pod }

func (p *pod) has(t *testing.T, image string) bool {
	t.Helper()
	r, err := p.Images.ImageStatus(t.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: image}})
	if err != nil {
		t.Fatal(err)
	}
	return r.GetImage() != nil
}

// runs runs a container of an image that is shown: all its layers have to be there.
func (p *pod) runs(t *testing.T) {
	t.Helper()
	p.runPod(t)
	config := harness.Container("hello")
	config.Image.Image, config.Command = pulled, nil
	if _, err := p.Run(t.Context(), p.id, config, p.config); err != nil {
		t.Fatalf("an image that is shown does not run: %v", err)
	}
	log := p.config.GetLogDirectory() + "/hello_0.log"
	eventually(t, "the image says hello", 20*time.Second, func() bool { return strings.Contains(read(log), "hello from") })
	if err := p.RemovePodFully(t.Context(), p.id); err != nil {
		t.Error(err)
	}
}

func (p *pod) drop(t *testing.T) {
	t.Helper()
	if _, err := p.Images.RemoveImage(t.Context(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: pulled}}); err != nil {
		t.Error(err)
	}
}

// kept counts layers in the store.
func (p *pod) kept(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(p.Home.Root(), "images", "l"))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func (s *pull) set(t *testing.T) { s.drop(t) }

func (s *pull) call(ctx context.Context) error {
	_, err := s.Pull(ctx, pulled)
	return err
}

func (s *pull) crashed(t *testing.T, answered bool) {
	switch {
	case s.has(t, pulled):
		s.runs(t)
	case answered:
		t.Error("the pull was answered and the image is not there")
	}
	for _, leak := range s.layers(t) {
		t.Errorf("left behind by a pull that was cut short: %s", leak)
	}
}

func (s *pull) failed(t *testing.T, err error) {
	if err == nil {
		t.Error("the step failed and the call did not")
	}
	s.crashed(t, false)
}

func (s *pull) done(t *testing.T) {
	if !s.has(t, pulled) {
		t.Fatal("the image is not there after its pull")
	}
	s.runs(t)
	s.drop(t)
}

// RemoveImage: F13, F15, F16.
type removeImage struct {
	pod
	without int // layers there without the image
}

func (s *removeImage) set(t *testing.T) {
	s.drop(t)
	s.without = s.kept(t)
	if _, err := s.Pull(t.Context(), pulled); err != nil {
		t.Fatal(err)
	}
}

func (s *removeImage) call(ctx context.Context) error {
	_, err := s.Images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: pulled}})
	return err
}

func (s *removeImage) crashed(t *testing.T, answered bool) {
	switch there := s.has(t, pulled); {
	case there && answered:
		t.Error("the removal was answered and the image is there")
	case there:
		s.runs(t)
	}
}

func (s *removeImage) failed(t *testing.T, err error) { s.crashed(t, err == nil) }

func (s *removeImage) done(t *testing.T) {
	if s.has(t, pulled) {
		t.Error("the image is there after its removal")
	}
	for _, leak := range s.layers(t) {
		t.Errorf("left behind by the removal: %s", leak)
	}
	eventually(t, "the layer store is as it was without the image", 10*time.Second, func() bool { return s.kept(t) == s.without })
	if _, err := s.Pull(t.Context(), pulled); err != nil {
		t.Fatalf("pull it again: %v", err)
	}
	s.runs(t)
	s.drop(t)
}
