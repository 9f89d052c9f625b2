// Package plan is the contract between what a CRI ContainerConfig asks for and
// the hands that do it.
//
// container/spec opens the sealed configuration and answers a [Container]; the
// hands in package container act on it, gather [Facts] on the way (paths, the
// resolved user, the image's configuration) and hand those back to
// [Container.Spec], which builds the OCI runtime spec. No CRI type crosses.
//
// It owns types and pure functions on them, and does nothing. It refuses to
// know CRI messages, disks and processes.
package plan

import (
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	oci "github.com/opencontainers/runtime-spec/specs-go"
)

// Container is what one container's configuration asks of the hands. It is
// made once per CreateContainer (and again from the record where needed) and
// never changed after.
type Container struct {
	// Name is the container's name in the pod.
	Name string
	// Image is the reference the user wrote in image.image; the hands resolve it.
	Image string
	// LogPath is the absolute path of the CRI log file; empty: no log is kept.
	// It lies inside the pod's log directory (checked by the spec package).
	LogPath string
	// Stdin, StdinOnce and TTY are ContainerConfig's.
	Stdin, StdinOnce, TTY bool
	// StopSignal is the name or number asked for by the config ("SIGUSR1");
	// empty: the image's, else SIGTERM.
	StopSignal string
	// User is whom to run as, before the image's passwd has been read.
	User User
	// PID says whose process namespace is used.
	PID PIDMode
	// TargetID is the container whose process namespace is shared, with PIDTarget.
	TargetID string
	// UserNS is the user namespace mapping; nil: the host's.
	UserNS *IDMap
	// ImageMounts are the image volumes to prepare before the spec is built.
	ImageMounts []ImageMount
	// ReadonlyRootfs is true if the root is mounted read-only.
	ReadonlyRootfs bool
	// HostNetwork, HostIPC tell which pod namespaces are the node's.
	HostNetwork, HostIPC bool
	// CgroupParent is the pod's cgroup parent as asked for ("" = crid's own).
	CgroupParent string
	// Resources are the limits as asked for at creation; never nil.
	Resources *oci.LinuxResources
	// HostDirs are host paths of bind mounts that must exist; a missing one is
	// made as a directory (the kubelet's and the peers' behaviour).
	HostDirs []string
	// SharedPaths are host paths whose mount must be shared (bidirectional
	// propagation), SlavePaths those whose mount must be shared or a slave;
	// else nothing would ever propagate and the container is refused.
	SharedPaths, SlavePaths []string
	// Relabel are host paths to give the spec's mount label; only with SELinux.
	Relabel []string
	// Privileged is ContainerConfig's.
	Privileged bool
	// Volumes returns the places of the image's VOLUME list that need a
	// directory in Facts.VolumeDirs: clean absolute paths in the container,
	// sorted, without those that the configuration mounts itself. An image with
	// hostile ones is refused.
	Volumes func(imagespec.ImageConfig) ([]string, error) `json:"-"`
	// Spec builds the OCI spec from the facts. It is pure: same facts, same
	// spec. Errors name the field of the configuration.
	Spec func(Facts) (*oci.Spec, error) `json:"-"`
}

// PIDMode says which process namespace a container gets.
type PIDMode int

// The process namespaces, as CRI's NamespaceMode has them.
const (
	PIDContainer PIDMode = iota // one of its own
	PIDPod                      // the pod's
	PIDNode                     // the host's
	PIDTarget                   // that of another container of the pod
)

// User is who a container runs as, as asked for. At most one of UID and Name is set.
type User struct {
	UID  *int64
	GID  *int64
	Name string
	// SupplementalGroups are added to (or, with Strict, replace) the image's.
	SupplementalGroups []int64
	// Strict is SupplementalGroupsPolicy Strict: groups of the image's
	// /etc/group are not merged in.
	Strict bool
}

// IDMap is a user namespace mapping.
type IDMap struct {
	UIDs, GIDs []oci.LinuxIDMapping
}

// ImageMount is one image volume.
type ImageMount struct {
	// Index is the position in ContainerConfig.mounts.
	Index int
	// Image is the reference or id of the image to mount.
	Image string
	// SubPath is a clean relative path inside the image; empty: its root.
	SubPath string
}

// Facts are what the hands found out or made, for Spec.
type Facts struct {
	// ID, PodID are the container's and the pod's.
	ID, PodID string
	// Pod, Name say which pod and container, for the annotations.
	PodName, PodNamespace, PodUID, Name string
	// Rootfs is the path of the root, absolute.
	Rootfs string
	// CgroupsPath is linux.cgroupsPath in the form of the cgroup driver.
	CgroupsPath string
	// NetNS, IPCNS, UTSNS, PIDNS, UserNS are paths of namespaces to join; an
	// empty one is the host's, except PIDNS (own one) and UserNS (none).
	NetNS, IPCNS, UTSNS, PIDNS, UserNS string
	// Image is the image's configuration.
	Image imagespec.ImageConfig
	// ImageName, ImageID are for the annotations.
	ImageName, ImageID string
	// User is the resolved user.
	User oci.User
	// Home is HOME of that user from the image's passwd, else "/".
	Home string
	// Hostname is the pod's; with the host network the node's.
	Hostname string
	// HostnameFile, HostsFile, ResolvFile, ShmDir are files and directories of
	// the pod that are bound into /etc/hostname, /etc/hosts, /etc/resolv.conf
	// and /dev/shm unless the configuration mounts something there.
	HostnameFile, HostsFile, ResolvFile, ShmDir string
	// ImageMounts maps the index of a mount to the host path of its content.
	ImageMounts map[int]string
	// VolumeDirs maps a path of the image's VOLUME list to a host directory to
	// bind there; the hands made them (and copied the image's content in).
	VolumeDirs map[string]string
	// ProcessLabel, MountLabel are the pod's SELinux labels, used where the
	// container asks for none of its own; empty without SELinux.
	ProcessLabel, MountLabel string
	// Kernel tells what this machine and runtime can do.
	Kernel Kernel
}

// Kernel is what the machine and the OCI runtime offer. It is found out once.
type Kernel struct {
	// CgroupV2 is true on a unified hierarchy.
	CgroupV2 bool
	// SystemdCgroup is true if the handler uses the systemd driver.
	SystemdCgroup bool
	// AppArmor, SELinux, Seccomp tell whether the kernel has (and has on) each.
	AppArmor, SELinux, Seccomp bool
	// Swap is true if swap can be limited.
	Swap bool
	// HugepageSizes are the sizes the hugetlb controller knows, e.g. "2MB".
	HugepageSizes []string
	// Capabilities are those this process has in its bounding set, as
	// "CAP_NET_ADMIN"; "all capabilities" means these.
	Capabilities []string
	// CgroupMountOptions are options of the host's cgroup2 mount ("nsdelegate",
	// "memory_recursiveprot") that a container without a cgroup namespace of
	// its own must repeat: it mounts the same superblock, and leaving them out
	// would switch them off for the node. Empty on v1.
	CgroupMountOptions []string
	// MaskedPaths are further paths to mask by default, those that depend on
	// the machine (one thermal_throttle directory per possible CPU).
	MaskedPaths []string
	// MinOOMScoreAdj is the lowest oom_score_adj that may be asked for; lower
	// wishes are raised to it (the kernel would refuse them).
	MinOOMScoreAdj int
	// RecursiveReadOnly, IDMapMounts: features of kernel and runtime.
	RecursiveReadOnly, IDMapMounts bool
	// OCIVersion is the newest spec version the runtime accepts, e.g. "1.2.0".
	OCIVersion string
}
