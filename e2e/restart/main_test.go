//go:build e2e

// Package restart tests what is left of pods when something dies: crid, a shim, a disk, a record. Each test has a daemon of its own.
package restart

import (
	"os"
	"syscall"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/story"
)

func TestMain(m *testing.M) { story.Main(m) }

const (
	created  = runtimeapi.ContainerState_CONTAINER_CREATED
	running  = runtimeapi.ContainerState_CONTAINER_RUNNING
	exited   = runtimeapi.ContainerState_CONTAINER_EXITED
	ready    = runtimeapi.PodSandboxState_SANDBOX_READY
	notReady = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
)

// crash ends the daemon without a word.
func crash(s *story.Story) {
	s.T.Helper()
	if err := s.Kill(); err != nil {
		s.T.Fatal(err)
	}
}

// again starts it, and tells how long that took.
func again(s *story.Story) time.Duration {
	s.T.Helper()
	start := time.Now()
	if err := s.Daemon.Start(s.T.Context()); err != nil {
		s.T.Fatal(err)
	}
	return time.Since(start)
}

// signal sends a signal to a process that the test knows to be its own: a shim or a container's first process.
func signal(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	p, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	if err := p.Signal(sig); err != nil {
		t.Fatalf("signal %d to %d: %v", sig, pid, err)
	}
}

// first is the first list of containers after a start, by name: there is no grace for it.
func first(s *story.Story) map[string]runtimeapi.ContainerState {
	s.T.Helper()
	list, err := s.Containers(s.T.Context())
	if err != nil {
		s.T.Fatal(err)
	}
	got := map[string]runtimeapi.ContainerState{}
	for _, c := range list {
		got[c.GetMetadata().GetName()] = c.GetState()
	}
	return got
}

func alone(t *testing.T) *story.Story { t.Helper(); return story.Alone(t, harness.Crid{}) }

func within(t *testing.T, what string, took, limit time.Duration) {
	t.Helper()
	if took > limit {
		t.Errorf("%s took %s, more than %s", what, took, limit)
	}
}
