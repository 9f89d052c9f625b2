package conformance

import (
	"errors"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/shimclient"
)

func pause(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	pid := run(t, w, s, "app", "sleep")
	must(t, "pause", s.Pause(ctx, "app"))
	wantState(t, s, "app", shimclient.State{Pid: pid, Status: shimclient.StatusPaused})
	must(t, "resume", s.Resume(ctx, "app"))
	wantState(t, s, "app", shimclient.State{Pid: pid, Status: shimclient.StatusRunning})
}

func update(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	run(t, w, s, "app", "sleep")
	limit := int64(77)
	resources := &oci.LinuxResources{Pids: &oci.LinuxPids{Limit: &limit}}
	must(t, "update", s.Update(ctx, "app", resources, nil))
	if err := s.Update(ctx, "nobody", resources, nil); !errors.Is(err, errdefs.ErrNotFound) {
		t.Fatalf("update of nobody: %v", err)
	}
	must(t, "kill", s.Kill(ctx, "app", uint32(unix.SIGKILL), false))
	_, err := s.Wait(ctx, "app")
	must(t, "wait", err)
	if err := s.Update(ctx, "app", resources, nil); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Fatalf("update of a stopped container: %v", err)
	}
}

func paused(t *testing.T, w World) {
	ctx := t.Context()
	s := w.Launch(t, "pod1")
	pid := run(t, w, s, "app", "sleep")
	if err := s.Resume(ctx, "app"); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("resume of a running container: %v", err)
	}
	must(t, "exec", s.Exec(ctx, execOf("app", "e1", "exit", "0")))
	must(t, "pause", s.Pause(ctx, "app"))
	for name, call := range map[string]func() error{
		"pause":  func() error { return s.Pause(ctx, "app") },
		"start":  func() error { _, err := s.Start(ctx, "app"); return err },
		"delete": func() error { _, err := s.Delete(ctx, "app"); return err },
		"exec":   func() error { return s.Exec(ctx, execOf("app", "e2", "exit", "0")) },
	} {
		if err := call(); !errors.Is(err, errdefs.ErrFailedPrecondition) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.StartExec(ctx, "app", "e1"); err == nil {
		t.Error("an exec was started in a paused container")
	}
	must(t, "SIGTERM", s.Kill(ctx, "app", uint32(unix.SIGTERM), false))
	time.Sleep(300 * time.Millisecond)
	wantState(t, s, "app", shimclient.State{Pid: pid, Status: shimclient.StatusPaused})
	must(t, "resume", s.Resume(ctx, "app"))
	exit, err := s.Wait(ctx, "app")
	must(t, "wait", err)
	if exit.Code != 143 {
		t.Errorf("%+v", exit)
	}
	for name, call := range map[string]func() error{
		"pause":  func() error { return s.Pause(ctx, "app") },
		"resume": func() error { return s.Resume(ctx, "app") },
	} {
		if err := call(); !errors.Is(err, errdefs.ErrFailedPrecondition) {
			t.Errorf("%s of a stopped container: %v", name, err)
		}
	}
}
