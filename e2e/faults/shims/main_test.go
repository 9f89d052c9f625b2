//go:build e2e

package shims

import (
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/faults/inject"
	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/story"
)

func TestMain(m *testing.M) { inject.Main(m) }

const (
	running  = runtimeapi.ContainerState_CONTAINER_RUNNING
	exited   = runtimeapi.ContainerState_CONTAINER_EXITED
	notReady = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	isReady  = runtimeapi.PodSandboxState_SANDBOX_READY
)

const deaf = "trap '' TERM; echo ready; while :; do sleep 1; done"

func alone(t *testing.T) *story.Story { t.Helper(); return story.Alone(t, harness.Crid{}) }

// states are those of all containers, by name.
func states(s *story.Story) map[string]runtimeapi.ContainerState {
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

func within(t *testing.T, what string, took, limit time.Duration) {
	t.Helper()
	if took > limit {
		t.Errorf("%s took %s, more than %s", what, took, limit)
	}
}

// clear removes a pod, in time.
func clear(s *story.Story, p *story.Pod, limit time.Duration) {
	s.T.Helper()
	start := time.Now()
	if err := s.RemovePodFully(s.T.Context(), p.ID); err != nil {
		s.T.Errorf("remove pod %s: %v", p.Config.GetMetadata().GetName(), err)
	}
	within(s.T, "the removal of pod "+p.Config.GetMetadata().GetName(), time.Since(start), limit)
}
