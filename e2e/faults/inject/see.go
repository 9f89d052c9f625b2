package inject

import (
	"context"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/story"
)

// States are those of all containers, by name.
func States(s *story.Story) map[string]runtimeapi.ContainerState {
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

// Within fails the test if something took longer.
func Within(t testing.TB, what string, took, limit time.Duration) {
	t.Helper()
	if took > limit {
		t.Errorf("%s took %s, more than %s", what, took, limit)
	}
}

// Clear stops and removes a pod, in time.
func Clear(s *story.Story, p *story.Pod, limit time.Duration) {
	s.T.Helper()
	start := time.Now()
	if err := s.RemovePodFully(s.T.Context(), p.ID); err != nil {
		s.T.Errorf("remove pod %s: %v", p.Config.GetMetadata().GetName(), err)
	}
	Within(s.T, "the removal of pod "+p.Config.GetMetadata().GetName(), time.Since(start), limit)
}

// Count counts what a census has of one kind: lines with a beginning and a text somewhere in them.
func Count(s *story.Story, kind, text string) int {
	n := 0
	for thing, times := range s.Census(context.Background()) {
		if strings.HasPrefix(thing, kind) && strings.Contains(thing, text) {
			n += times
		}
	}
	return n
}
