// Package worldtest makes ledgers with pods and containers in them, for the tests
// of the server's packages. The ledger and the configurations are the real ones.
package worldtest

import (
	"fmt"
	"os"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	containerspec "github.com/crid-project/crid/container/spec"
	podspec "github.com/crid-project/crid/sandbox/spec"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

// Epoch is when everything was created, in seconds.
const Epoch = 1_700_000_000

// Ledger is an empty ledger in a directory of its own.
func Ledger(t testing.TB) *store.Ledger {
	t.Helper()
	dir, err := os.MkdirTemp("", "crid-server-")
	if err != nil {
		t.Fatal(err)
	}
	l, lost, err := store.Open(store.Config{
		Dir: dir, Boot: "test",
		OpenPod:       func(b []byte) (store.Sealed, error) { return podspec.Open(b) },
		OpenContainer: func(b []byte) (store.Sealed, error) { return containerspec.Open(b) },
	})
	if err != nil || len(lost) > 0 {
		t.Fatalf("open ledger: %v, lost %v", err, lost)
	}
	t.Cleanup(func() {
		l.Close()
		// A record may still be on its way to the disk.
		for end := time.Now().Add(5 * time.Second); os.RemoveAll(dir) != nil && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
	})
	return l
}

// PodConfig is a small valid configuration.
func PodConfig(name string, labels map[string]string) *cri.PodSandboxConfig {
	return &cri.PodSandboxConfig{
		Metadata:    &cri.PodSandboxMetadata{Name: name, Namespace: "ns", Uid: "uid-" + name, Attempt: 1},
		Labels:      labels,
		Annotations: map[string]string{"note": "of " + name},
		Linux:       &cri.LinuxPodSandboxConfig{},
	}
}

// ContainerConfig is a small valid configuration.
func ContainerConfig(name string, labels map[string]string) *cri.ContainerConfig {
	return &cri.ContainerConfig{
		Metadata:    &cri.ContainerMetadata{Name: name},
		Image:       &cri.ImageSpec{Image: "sha256:abc", UserSpecifiedImage: "busybox"},
		Labels:      labels,
		Annotations: map[string]string{"note": "of " + name},
		Linux:       &cri.LinuxContainerConfig{Resources: &cri.LinuxContainerResources{CpuShares: 100}},
	}
}

// Pod adds a ready pod.
func Pod(t testing.TB, l *store.Ledger, name string, labels map[string]string) *store.Pod {
	t.Helper()
	cfg := PodConfig(name, labels)
	p, fresh := l.AddPod(&store.Pod{
		ID: store.NewID(), Handler: "runc", Config: podspec.Seal(cfg), CreatedAt: Epoch * int64(time.Second),
		Name:  store.PodName{Name: name, Namespace: "ns", UID: "uid-" + name, Attempt: 1},
		NetNS: "/run/ns/" + name, IPs: []string{"10.0.0.1", "fd00::1"}, Cgroup: "/pods/" + name,
	})
	if !fresh {
		t.Fatalf("pod %s is there already", name)
	}
	return StepPod(t, l, p.ID, lifecycle.PodMade{})
}

// StepPod puts an event to a pod.
func StepPod(t testing.TB, l *store.Ledger, id string, e lifecycle.PodEvent) *store.Pod {
	t.Helper()
	p, err := l.StepPod(id, e)
	if err != nil {
		t.Fatalf("pod: %T: %v", e, err)
	}
	return p
}

// Container adds a created container.
func Container(t testing.TB, l *store.Ledger, pod, name string, labels map[string]string) *store.Container {
	t.Helper()
	c := Making(t, l, pod, name, labels)
	return Step(t, l, c.ID, lifecycle.Made{})
}

// Making adds a container that is being made.
func Making(t testing.TB, l *store.Ledger, pod, name string, labels map[string]string) *store.Container {
	t.Helper()
	c, fresh := l.AddContainer(&store.Container{
		ID: store.NewID(), PodID: pod, Name: store.ContainerName{Name: name}, Config: containerspec.Seal(ContainerConfig(name, labels)),
		CreatedAt: (Epoch + 1) * int64(time.Second), ImageID: "sha256:abc", ImageRef: "docker.io/library/busybox@sha256:def", ImageName: "sha256:abc",
		Handler: "runc", LogPath: "/logs/" + name, StopSignal: 10, UID: 1000, GID: 2000, Groups: []int64{3000}, Cgroup: "/pods/x/" + name,
	})
	if !fresh {
		t.Fatalf("container %s is there already", name)
	}
	return c
}

// Step puts events to a container.
func Step(t testing.TB, l *store.Ledger, id string, events ...lifecycle.Event) *store.Container {
	t.Helper()
	var c *store.Container
	for _, e := range events {
		var err error
		if c, err = l.StepContainer(id, e, func(c *store.Container) {
			if _, ok := e.(lifecycle.StartDone); ok {
				c.StartedAt = (Epoch + 2) * int64(time.Second)
				c.Init = store.Process{Pid: 4242, StartTime: 7}
			}
		}); err != nil {
			t.Fatalf("container: %T: %v", e, err)
		}
	}
	return c
}

// Running adds a running container.
func Running(t testing.TB, l *store.Ledger, pod, name string, labels map[string]string) *store.Container {
	t.Helper()
	return Step(t, l, Container(t, l, pod, name, labels).ID, lifecycle.AskStart{}, lifecycle.LaunchBegun{}, lifecycle.StartDone{})
}

// Exited adds a container that has exited.
func Exited(t testing.TB, l *store.Ledger, pod, name string, how lifecycle.SeenExited) *store.Container {
	t.Helper()
	how.Empty = true
	if how.At == 0 {
		how.At = (Epoch + 3) * int64(time.Second)
	}
	return Step(t, l, Running(t, l, pod, name, nil).ID, how)
}

// Names answers one image by its id.
func Names(id string) (tags, digests []string) {
	if id != "sha256:abc" {
		return nil, nil
	}
	return []string{"docker.io/library/alias:1", "docker.io/library/busybox:latest"}, []string{"docker.io/library/busybox@sha256:def"}
}

// IDs joins the ids of items for a message.
func IDs[T interface{ GetId() string }](items []T) string {
	s := ""
	for _, i := range items {
		s += fmt.Sprintf("%.6s ", i.GetId())
	}
	return s
}
