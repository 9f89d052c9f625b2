// Package plan is the contract between what a CRI PodSandboxConfig asks for
// and the hands that do it: sandbox/spec opens the sealed configuration and
// answers a [Pod], package sandbox acts on it. No CRI type crosses.
//
// It owns types and pure functions on them, and does nothing. It refuses to
// know CRI messages, disks and processes.
package plan

import (
	oci "github.com/opencontainers/runtime-spec/specs-go"
)

// Pod is what one pod's configuration asks of the hands.
type Pod struct {
	// Name, Namespace, UID, Attempt identify the pod to the kubelet.
	Name, Namespace, UID string
	Attempt              uint32
	// Hostname is the UTS hostname; empty with HostNetwork, and where none was
	// given (both: the node's).
	Hostname string
	// LogDirectory is absolute or empty.
	LogDirectory string
	// CgroupParent is as asked for: a path (cgroupfs) or a slice name
	// (systemd); empty: crid's own parent.
	CgroupParent string
	// HostNetwork, HostIPC, HostPID: the node's namespace is used. HostNetwork
	// also means the node's UTS namespace.
	HostNetwork, HostIPC, HostPID bool
	// PodPID is true if the containers share one process namespace, which
	// needs a process to hold it (the pause form).
	PodPID bool
	// UserNS is the pod's user namespace; nil: the host's.
	UserNS *IDMap
	// DNS is resolv.conf's content; nil: a copy of the node's.
	DNS *DNS
	// Sysctls are allow-listed, namespaced keys in dotted form; see SysctlPath.
	Sysctls map[string]string
	// Ports are the port mappings with a host port.
	Ports []Port
	// Ingress, Egress are bandwidth limits in bits per second, 0: none.
	Ingress, Egress uint64
	// CNIArgs are extra CNI_ARGS (none of K8S_POD_*, which the hands add).
	CNIArgs map[string]string
	// Annotations are the pod's, for network plugins that ask for them.
	Annotations map[string]string
	// Privileged is true if privileged containers may run in the pod.
	Privileged bool
	// Overhead, Resources are pod-level limits; nil where not given.
	Overhead, Resources *oci.LinuxResources
	// ProcessLabel, MountLabel are SELinux labels; empty without SELinux. They
	// may differ each time a plan is made: the record keeps the first ones.
	ProcessLabel, MountLabel string
	// PauseSpec builds the OCI spec of the sandbox container, for the pause form.
	PauseSpec func(Facts) (*oci.Spec, error) `json:"-"`
}

// IDMap is a user namespace mapping.
type IDMap struct {
	UIDs, GIDs []oci.LinuxIDMapping
}

// DNS is the content of resolv.conf.
type DNS struct {
	Servers, Searches, Options []string
}

// Port is one port mapping.
type Port struct {
	Protocol      string // "tcp", "udp", "sctp"
	ContainerPort int32
	HostPort      int32
	HostIP        string
}

// Facts are what the hands made, for PauseSpec.
type Facts struct {
	ID          string
	Rootfs      string
	CgroupsPath string
	// NetNS, IPCNS, UTSNS, UserNS are paths to join; empty: the host's.
	NetNS, IPCNS, UTSNS, UserNS string
	ShmDir                      string
	ResolvFile                  string
	MinOOMScoreAdj              int
	SystemdCgroup, CgroupV2     bool
	Seccomp                     bool
	OCIVersion                  string
}
