//go:build e2e

package shims

import (
	"testing"

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
