package streaming

import (
	"context"

	"github.com/crid-project/crid/container/stdio"
)

// Runtime does the work behind a connection.
type Runtime interface {
	// Exec runs a command in a container and returns its exit code. It must end soon after ctx does.
	Exec(ctx context.Context, containerID string, req stdio.ExecRequest) (exitCode int, err error)
	// Attach connects a client to a container until either ends. It must end soon after ctx does.
	Attach(ctx context.Context, containerID string, req stdio.AttachRequest) error
	// PodNetNS returns the path of a ready pod's network namespace, empty for a pod on the node's own network.
	PodNetNS(podID string) (path string, err error)
}

// ExecMessage is the CRI's ExecRequest by its getters.
type ExecMessage interface {
	AttachMessage
	GetCmd() []string
}

// AttachMessage is the CRI's AttachRequest by its getters.
type AttachMessage interface {
	GetContainerId() string
	GetStdin() bool
	GetStdout() bool
	GetStderr() bool
	GetTty() bool
}

// PortForwardMessage is the CRI's PortForwardRequest by its getters.
type PortForwardMessage interface {
	GetPodSandboxId() string
	GetPort() []int32
}
