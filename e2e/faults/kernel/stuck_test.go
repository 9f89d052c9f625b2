//go:build e2e

package kernel

import (
	"context"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/faults/inject"
	"github.com/crid-project/crid/e2e/faults/watch"
	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/story"
)

// reader is the configuration of a container that reads from a file system that hangs.
func reader(name string, h *inject.Hung) *runtimeapi.ContainerConfig {
	c := harness.Container(name, "cat", "/hung/f")
	c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/hung", HostPath: h.Dir}}
	return c
}

// F43 and row 28: a process that nobody can kill. What asks for its end ends at its own deadline and hurts nobody; nothing is taken from under
// the process; and when the kernel lets go of it, its end is told without a call.
func TestF43AProcessThatCannotBeKilled(t *testing.T) {
	t.Parallel()
	hung, second := inject.Hang(t), inject.Hang(t)
	s := alone(t)
	t.Cleanup(hung.Release) // also if the test fails, or its end would wait for them
	t.Cleanup(second.Release)
	stopped, removed, other := s.Pod("stopped"), s.Pod("removed"), s.Pod("other")
	a, b := stopped.Go(reader("a", hung)), removed.Go(reader("b", second))
	beside := stopped.Go(story.Shell("beside", polite))
	bystander := other.Go(story.Sleeper("bystander"))
	beside.Heard("ready")
	pid, address := a.Pid(), stopped.Status().GetNetwork().GetIp()
	s.Eventually("both read", 15*time.Second, func() bool { return hung.Waiting() > 0 && second.Waiting() > 0 })
	threads := watch.Field(t, s.Daemon.Pid(), "Threads")

	w := watch.Others(s)
	late := func(what string, limit time.Duration, call func(ctx context.Context) error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		start := time.Now()
		err := call(ctx)
		s.WantCode(what, err, codes.DeadlineExceeded)
		inject.Within(t, what, time.Since(start), limit+5*time.Second)
	}
	stop := func(ctx context.Context) error { return s.StopContainer(ctx, a.ID, 1) }
	late("StopContainer", 8*time.Second, stop)
	if st := inject.State(pid); st != "D" {
		t.Errorf("the process is in state %q: this proves nothing", st)
	}
	a.WantState(running)
	late("the retry of StopContainer", 2*time.Second, stop)
	late("RemovePodSandbox", 3*time.Second, func(ctx context.Context) error { return s.RemovePod(ctx, removed.ID) })
	late("RemoveContainer", 2*time.Second, func(ctx context.Context) error { return s.RemoveContainer(ctx, b.ID) })
	inject.Within(t, "the stop of a container beside it", beside.Stop(10), 5*time.Second)
	if st := beside.WantState(exited); st.GetExitCode() != 5 {
		t.Errorf("beside it: code %d", st.GetExitCode())
	}
	bystander.Sh("true")
	extra := s.Pod("extra")
	extra.Go(story.Sleeper("extra")).Sh("true")
	inject.Clear(s, extra, 20*time.Second)
	for _, c := range []*story.Container{a, b} {
		if inject.Count(s, "mount ", c.ID+"/rootfs") == 0 {
			t.Error("the root file system is gone from under a process")
		}
	}
	if inject.Count(s, "mount ", removed.ID+"/ns/net") == 0 || inject.Count(s, "address lease ", "") < 3 {
		t.Error("network or address of a pod with a live process are given back")
	}
	w.End(t)

	inject.Crash(s)
	inject.Within(t, "the start", inject.Again(s), 10*time.Second)
	w = watch.Others(s)
	if got := inject.States(s); got["a"] != running || got["bystander"] != running {
		t.Errorf("the first list after a restart: %v", got)
	}
	late("StopContainer after a restart", 3*time.Second, stop)
	s.Eventually("crid check names it", 60*time.Second, func() bool {
		text, err := story.Ask(s.Daemon, "/check")
		return err == nil && strings.Contains(text, a.ID) && strings.Contains(text, "processes do not die: pid "+strconv.Itoa(pid))
	})
	if now := watch.Field(t, s.Daemon.Pid(), "Threads"); now > threads+8 {
		t.Errorf("crid had %d threads, now %d", threads, now)
	}
	bystander.Sh("true")
	if st := stopped.Status(); st.GetState() != isReady || st.GetNetwork().GetIp() != address {
		t.Errorf("the pod of the stuck container: %s, %s", st.GetState(), st.GetNetwork().GetIp())
	}
	hung.Release()
	second.Release()
	s.Eventually("its end, without a call", 5*time.Second, func() bool { return inject.States(s)["a"] == exited })
	if st := a.Status(); st.GetExitCode() != 137 {
		t.Errorf("code %d", st.GetExitCode())
	}
	s.Eventually("the pod that was to be removed is gone, without a call", 40*time.Second, func() bool {
		pods, err := s.Pods(t.Context())
		return err == nil && len(pods) == 2
	})
	w.End(t)
	inject.Clear(s, stopped, 30*time.Second)
}

// F44: a volume whose file system hangs when it is looked at. Only the call that needs it waits, and no number of retries costs more threads.
func TestF44AVolumeThatHangs(t *testing.T) {
	t.Parallel()
	hung := inject.Hang(t)
	s := alone(t)
	t.Cleanup(hung.Release)
	watch.Others(s)
	p, other := s.Pod("volume"), s.Pod("other")
	bystander := other.Go(story.Sleeper("bystander"))
	config := story.Sleeper("c")
	config.Mounts = []*runtimeapi.Mount{{ContainerPath: "/data", HostPath: filepath.Join(hung.Dir, "elsewhere")}}
	before := watch.Field(t, s.Daemon.Pid(), "Threads")
	for n := range watch.Times(8, 40) {
		ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
		start := time.Now()
		_, err := s.Create(ctx, p.ID, config, p.Config)
		cancel()
		s.WantCode("CreateContainer", err, codes.DeadlineExceeded)
		inject.Within(t, "a create", time.Since(start), 5*time.Second)
		if n == 0 && hung.Waiting() == 0 {
			t.Fatal("nothing hangs: this proves nothing")
		}
	}
	if now := watch.Field(t, s.Daemon.Pid(), "Threads"); now > before+6 {
		t.Errorf("%d retries: crid had %d threads, now %d", watch.Times(8, 40), before, now)
	}
	start := time.Now()
	if _, err := s.Runtime.ListContainerStats(t.Context(), &runtimeapi.ListContainerStatsRequest{}); err != nil {
		t.Error(err)
	}
	if _, err := s.Images.ImageFsInfo(t.Context(), &runtimeapi.ImageFsInfoRequest{}); err != nil {
		t.Error(err)
	}
	inject.Within(t, "statistics", time.Since(start), 3*time.Second)
	beside := p.Go(story.Sleeper("beside")) // also in the same pod
	beside.Sh("true")
	bystander.Sh("true")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if err := s.StopPod(ctx, p.ID); err != nil {
		s.WantCode("StopPodSandbox", err, codes.DeadlineExceeded)
	}
	hung.Release()
	inject.Clear(s, p, 60*time.Second)
}
