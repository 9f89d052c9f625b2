//go:build e2e

package kube

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func (s *space) cgroupBecomes(p *pod, container, file, want string) {
	s.t.Helper()
	await(s.t, 2*time.Minute, file+" of "+container, func(context.Context) error {
		if got := s.cgroupFile(s.t, p, container, file); got != want {
			return errorf("it is %q, not %q", got, want)
		}
		return nil
	})
}

// resize changes limits of a running container, up and down, and the container goes on.
func resize(t *testing.T, s *space) {
	p := s.run("main", "containers:\n"+sleeper("main", "resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {cpu: 200m, memory: 64Mi}}")+"\n"+sleeper("other", ""))
	s.cgroupBecomes(p, "main", "cpu/cpu.cfs_quota_us", "20000")
	s.cgroupBecomes(p, "main", "memory/memory.limit_in_bytes", "67108864")
	for _, step := range []struct{ request, cpu, memory, quota, bytes string }{
		{"100m", "500m", "128Mi", "50000", "134217728"}, {"50m", "100m", "48Mi", "10000", "50331648"},
	} {
		s.must("patch", "pod", "main", "--subresource=resize", "-p", fmt.Sprintf(
			`{"spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": %q, "memory": "32Mi"}, "limits": {"cpu": %q, "memory": %q}}}]}}`, step.request, step.cpu, step.memory))
		s.cgroupBecomes(p, "main", "cpu/cpu.cfs_quota_us", step.quota)
		s.cgroupBecomes(p, "main", "memory/memory.limit_in_bytes", step.bytes)
		s.until("main", "resized, by its status", func(p *pod) error {
			if got := p.container("main").Resources.Limits; got["cpu"] != step.cpu || got["memory"] != step.memory || p.condition("PodResizeInProgress") == "True" {
				return errorf("limits %v, conditions %+v", got, p.Status.Conditions)
			}
			return nil
		})
	}
	s.unchanged(p)
}

func podLevelResources(t *testing.T, s *space) {
	p := s.run("main", "resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {cpu: 400m, memory: 96Mi}}\ncontainers:\n"+sleeper("one", "")+"\n"+
		sleeper("two", "resources: {limits: {memory: 32Mi}}"))
	parent := func(file string) string {
		controller, name, _ := strings.Cut(file, "/")
		return strings.TrimSpace(read(t, filepath.Join("/sys/fs/cgroup", controller, s.d.Home.Cgroup, "kubepods", "burstable", "pod"+p.Metadata.UID, name)))
	}
	if quota, memory := parent("cpu/cpu.cfs_quota_us"), parent("memory/memory.limit_in_bytes"); quota != "40000" || memory != "100663296" {
		t.Errorf("the pod's quota is %s, its memory %s", quota, memory)
	}
	s.cgroupBecomes(p, "two", "memory/memory.limit_in_bytes", "33554432")
}

// overQuota: what a container writes into its own file system is measured by the runtime, and too much ends the pod.
func overQuota(t *testing.T, s *space) {
	s.create("layer", "restartPolicy: Never\ncontainers:\n"+script("main", "dd if=/dev/zero of=/big bs=1M count=30; exec sleep 3600", "resources: {limits: {ephemeral-storage: 10Mi}}"))
	s.create("scratch", "restartPolicy: Never\ncontainers:\n"+script("main", "dd if=/dev/zero of=/scratch/big bs=1M count=30; exec sleep 3600", "volumeMounts: [{name: scratch, mountPath: /scratch}]")+
		"\nvolumes: [{name: scratch, emptyDir: {sizeLimit: 10Mi}}]")
	for _, name := range []string{"layer", "scratch"} {
		if p := s.over(name); p.Status.Reason != "Evicted" {
			t.Errorf("%s: %s, %s", name, p.Status.Reason, p.Status.Message)
		}
	}
}

func outOfMemory(t *testing.T, s *space) {
	s.create("main", "restartPolicy: Never\ncontainers:\n"+script("main", "tail /dev/zero", "resources: {limits: {memory: 24Mi}}"))
	p := s.over("main")
	if end := p.container("main").State.Terminated; end == nil || end.Reason != "OOMKilled" || end.ExitCode != 137 {
		t.Errorf("it ended with %+v", end)
	}
}

// stopSignal: the pod says by which signal it wants to be told, and the image's is another.
func stopSignal(t *testing.T, s *space) {
	p := s.run("main", "os: {name: linux}\ncontainers:\n"+script("main",
		"trap 'echo USR1 > /host/told; exit 0' USR1; trap 'echo TERM > /host/told; exit 0' TERM; while :; do sleep 3600 & wait $!; done",
		"lifecycle: {stopSignal: SIGUSR1}, volumeMounts: [{name: host, mountPath: /host}]")+
		fmt.Sprintf("\nvolumes: [{name: host, hostPath: {path: %s, type: DirectoryOrCreate}}]", filepath.Join(s.hostDir, "stopsignal")))
	if got := p.container("main").StopSignal; got != "SIGUSR1" {
		t.Errorf("its status says %q", got)
	}
	s.must("delete", "pod", "main")
	if got := read(t, filepath.Join(s.hostDir, "stopsignal", "told")); got != "USR1\n" {
		t.Errorf("it was told by %q", got)
	}
}

func forcedDeletion(t *testing.T, s *space) {
	p := s.run("deaf", "containers:\n"+script("main", "trap '' TERM; while :; do sleep 1; done", ""))
	s.must("delete", "pod", "deaf", "--grace-period=0", "--force")
	c := s.cri()
	await(t, 2*time.Minute, "no running container", func(ctx context.Context) error {
		status, err := c.Status(ctx, bare(p.container("main").ContainerID))
		if err == nil && status.GetState().String() == "CONTAINER_RUNNING" {
			return errorf("it runs")
		}
		return nil
	})
}
