package status

import (
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/store"
)

// The sealed configurations of sandbox/spec and container/spec give their CRI
// message back to the server and to nobody else. The message is shared and
// must not be changed.
type (
	podMessage       interface{ CRI() *cri.PodSandboxConfig }
	containerMessage interface{ CRI() *cri.ContainerConfig }
)

// PodConfig opens a pod's configuration; nil if it is of another kind, which
// the getters of CRI's messages take in good part.
func PodConfig(s store.Sealed) *cri.PodSandboxConfig {
	if c, ok := s.(podMessage); ok {
		return c.CRI()
	}
	return nil
}

// ContainerConfig opens a container's configuration; as PodConfig.
func ContainerConfig(s store.Sealed) *cri.ContainerConfig {
	if c, ok := s.(containerMessage); ok {
		return c.CRI()
	}
	return nil
}
