package seal

import (
	oci "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/container/plan"
	containerspec "github.com/crid-project/crid/container/spec"
	"github.com/crid-project/crid/container/spec/resources"
	podplan "github.com/crid-project/crid/sandbox/plan"
	podspec "github.com/crid-project/crid/sandbox/spec"
	"github.com/crid-project/crid/store"
)

// Specs seals configurations by the options of their runtime handler. Its
// functions answer from memory.
type Specs struct {
	Pod       func(handler string) podspec.Options
	Container func(handler string) containerspec.Options
	Kernel    func(handler string) plan.Kernel
}

// SealPod checks a pod's configuration.
func (s *Specs) SealPod(handler string, c *cri.PodSandboxConfig) (store.Sealed, *podplan.Pod, error) {
	plan, err := podspec.New(c, s.Pod(handler))
	if err != nil {
		return nil, nil, err
	}
	return podspec.Seal(c), plan, nil
}

// SealContainer checks a container's configuration against its pod's.
func (s *Specs) SealContainer(handler string, pod *cri.PodSandboxConfig, c *cri.ContainerConfig) (store.Sealed, *plan.Container, error) {
	plan, err := containerspec.New(c, pod, s.Container(handler))
	if err != nil {
		return nil, nil, err
	}
	return containerspec.Seal(c), plan, nil
}

// Limits turns CRI limits into OCI's; nil stays nil.
func (s *Specs) Limits(handler, field string, in *cri.LinuxContainerResources) (*oci.LinuxResources, error) {
	if in == nil {
		return nil, nil //nolint:nilnil // nothing was asked for, nothing is to be set
	}
	return resources.Resources(field, in, s.Kernel(handler))
}

// OpenPod and OpenContainer read what the ledger keeps; they are its
// store.Config functions.
func OpenPod(b []byte) (store.Sealed, error) {
	c, err := podspec.Open(b)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// OpenContainer is OpenPod for containers.
func OpenContainer(b []byte) (store.Sealed, error) {
	c, err := containerspec.Open(b)
	if err != nil {
		return nil, err
	}
	return c, nil
}
