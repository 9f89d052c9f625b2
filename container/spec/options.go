package spec

import (
	"github.com/crid-project/crid/container/plan"
	"github.com/crid-project/crid/container/spec/confine"
	oci "github.com/opencontainers/runtime-spec/specs-go"
)

// Options are what a container's spec needs beside its configuration: what the
// node can do, what its runtime handler allows, and the few looks at the node
// that cannot be made ahead. A nil function means that the node cannot do it;
// a configuration that needs it is then refused. host.Options fills them in.
type Options struct {
	// Kernel is what the machine and the handler's runtime offer; the same
	// that the hands put into the facts.
	Kernel plan.Kernel
	// ReadFile reads a file of the node, at most limit bytes (a seccomp profile).
	ReadFile func(path string, limit int64) ([]byte, error)
	// SeccompProfile is the file of the profile for RuntimeDefault; empty is
	// the built-in one.
	SeccompProfile string
	// Devices returns the device at path (symbolic links followed), or all
	// devices below it if it is a directory, under their paths on the node.
	Devices func(path string) ([]oci.LinuxDevice, error)
	// HostDevices returns all of the node's devices, for privileged containers.
	HostDevices func() ([]oci.LinuxDevice, error)
	// CDI edits the spec for fully qualified CDI device names.
	CDI func(*oci.Spec, []string) error
	// SELinux makes labels; nil where SELinux is off.
	SELinux confine.LabelFunc
	// AppArmor looks up and loads profiles.
	AppArmor confine.AppArmorSource
	// PodAnnotations, ContainerAnnotations are the handler's allow-lists of
	// annotations that go into the spec: exact keys, or patterns with "*".
	PodAnnotations, ContainerAnnotations []string
	// DeviceOwnership gives the devices that a container asks for to its
	// run_as_user and run_as_group, so that who is not root can use them.
	DeviceOwnership bool
	// PrivilegedWithoutHostDevices keeps the node's devices from privileged
	// containers (handlers whose containers have devices of their own).
	PrivilegedWithoutHostDevices bool
	// Rlimits are set for every container; CRI has no field for them.
	Rlimits []oci.POSIXRlimit
}
