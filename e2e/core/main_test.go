//go:build e2e

// Package core tests the life of pods and containers, their logs, streams, resources and events, on one daemon that all its tests share.
package core

import (
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/story"
)

func TestMain(m *testing.M) { story.Main(m) }

const (
	created = runtimeapi.ContainerState_CONTAINER_CREATED
	running = runtimeapi.ContainerState_CONTAINER_RUNNING
	exited  = runtimeapi.ContainerState_CONTAINER_EXITED
	unknown = "00000000000000000000000000000000000000000000000000000000deadbeef"
)

// names of the containers that the daemon lists.
func names(s *story.Story) map[string]int {
	s.T.Helper()
	list, err := s.Containers(s.T.Context())
	if err != nil {
		s.T.Fatal(err)
	}
	found := map[string]int{}
	for _, c := range list {
		found[c.GetMetadata().GetName()]++
	}
	return found
}
