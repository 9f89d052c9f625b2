package store

import (
	"encoding/json"

	"github.com/crid-project/crid/store/lifecycle"
)

// Sealed is a CRI configuration that only the spec packages open.
type Sealed interface {
	// Marshal answers the bytes that go to the record.
	Marshal() ([]byte, error)
}

// Process identifies a process for as long as the machine is up.
type Process struct {
	Pid int `json:"pid"`
	// StartTime is field 22 of /proc/PID/stat, in clock ticks since boot.
	StartTime uint64 `json:"start_time"`
}

// Known reports whether it names a process at all.
func (p Process) Known() bool { return p.Pid > 0 && p.StartTime > 0 }

// ShimRef is what is needed to find a shim again.
type ShimRef struct {
	ID      string  `json:"id"`
	Address string  `json:"address"`
	Version int     `json:"version"`
	Process Process `json:"process,omitzero"`
	Binary  string  `json:"binary"`
	Bundle  string  `json:"bundle"`
}

// PodName is what the kubelet calls a pod. No two pods have the same.
type PodName struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	UID       string `json:"uid"`
	Attempt   uint32 `json:"attempt"`
}

// ContainerName is what the kubelet calls a container of a pod.
type ContainerName struct {
	Name    string `json:"name"`
	Attempt uint32 `json:"attempt"`
}

// Pod is the record of one pod sandbox. Snapshots are immutable: a change makes
// a new one.
type Pod struct {
	ID      string        `json:"id"`
	Name    PodName       `json:"name"`
	Handler string        `json:"handler"`
	Config  Sealed        `json:"-"`
	State   lifecycle.Pod `json:"state"`
	// CreatedAt is Unix nanoseconds.
	CreatedAt int64 `json:"created_at"`
	// Boot is the boot id under which the record's processes and mounts exist.
	Boot string `json:"boot"`

	// Pause is true for the form with a sandbox process.
	Pause bool `json:"pause,omitempty"`
	// PauseInit is that process.
	PauseInit Process `json:"pause_init,omitzero"`
	Shim      ShimRef `json:"shim,omitzero"`
	// NetNS, IPCNS, UTSNS, PIDNS, UserNS are the pinned namespaces; empty: the host's
	// (PIDNS: none is shared).
	NetNS  string `json:"net_ns,omitempty"`
	IPCNS  string `json:"ipc_ns,omitempty"`
	UTSNS  string `json:"uts_ns,omitempty"`
	PIDNS  string `json:"pid_ns,omitempty"`
	UserNS string `json:"user_ns,omitempty"`
	// Net is what CNI DEL needs: the result and configuration of the ADD.
	Net []byte `json:"net,omitempty"`
	// IPs are the pod's addresses, the primary first; empty with host network.
	IPs []string `json:"ips,omitempty"`
	// Cgroup is the directory that holds the cgroups of the pod, as an absolute
	// path from the root of the hierarchy.
	Cgroup string `json:"cgroup,omitempty"`
	// OwnCgroup is true if crid made it (no cgroup parent was asked for).
	OwnCgroup bool `json:"own_cgroup,omitempty"`
	// Version counts the changes; a sighting older than it is stale.
	Version uint64 `json:"changes,omitempty"`
}

// Container is the record of one container. Snapshots are immutable.
type Container struct {
	ID     string              `json:"id"`
	PodID  string              `json:"pod_id"`
	Name   ContainerName       `json:"name"`
	Config Sealed              `json:"-"`
	State  lifecycle.Container `json:"state"`
	// CreatedAt, StartedAt are Unix nanoseconds; 0: not yet.
	CreatedAt int64  `json:"created_at"`
	StartedAt int64  `json:"started_at,omitempty"`
	Boot      string `json:"boot"`

	// ImageID is the digest of the image's configuration, ImageRef the reference
	// by digest, ImageName what the user wrote.
	ImageID   string `json:"image_id"`
	ImageRef  string `json:"image_ref"`
	ImageName string `json:"image_name"`
	Handler   string `json:"handler"`
	LogPath   string `json:"log_path,omitempty"`
	// StopSignal is the signal's number.
	StopSignal int `json:"stop_signal"`
	// UID, GID, Groups: whom the first process runs as.
	UID    int64   `json:"uid"`
	GID    int64   `json:"gid"`
	Groups []int64 `json:"groups,omitempty"`

	TTY       bool `json:"tty,omitempty"`
	Stdin     bool `json:"stdin,omitempty"`
	StdinOnce bool `json:"stdin_once,omitempty"`
	// Init is the main process; unknown before Starting.
	Init Process `json:"init,omitzero"`
	// Cgroup is its directory, absolute from the root of the hierarchy.
	Cgroup string `json:"cgroup,omitempty"`
	// OOMBase is how many out-of-memory kills its parent cgroup had counted in
	// cgroups that were gone when it was made; kept for systemd's scopes only.
	OOMBase uint64 `json:"oom_base,omitempty"`
	// Updating are limits of which it is not known yet whether they hold, in the
	// words of package container; empty: what Config says holds.
	Updating json.RawMessage `json:"updating,omitempty"`
	// Version is as in Pod.
	Version uint64 `json:"changes,omitempty"`
}

// FinishedAt is when it exited, Unix nanoseconds, 0: not yet. Never before
// StartedAt or CreatedAt, whatever the wall clock did.
func (c *Container) FinishedAt() int64 {
	if c.State.Phase < lifecycle.Exited || c.State.Exit.Source == lifecycle.NoSource {
		return 0
	}
	return max(c.State.Exit.At, c.StartedAt, c.CreatedAt)
}

// containerKey is what must be unique among containers.
type containerKey struct {
	pod  string
	name ContainerName
}
