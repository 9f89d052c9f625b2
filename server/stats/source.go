package stats

import (
	"context"

	"github.com/crid-project/crid/container/cgroup"
)

// Source reads from the kernel. Every call may block for as long as the kernel
// or a disk does; the caller gives up at its deadline.
type Source interface {
	// Cgroup reads the counters of a cgroup; errdefs.ErrNotFound if it is gone.
	Cgroup(ctx context.Context, path string) (*cgroup.Stats, error)
	// Network reads all interfaces of a network namespace.
	Network(ctx context.Context, netns string) ([]Interface, error)
	// Layer measures a container's writable layer.
	Layer(ctx context.Context, id string) (Layer, error)
	// Disk tells of the file system that the writable layers are on.
	Disk(ctx context.Context) (Disk, error)
	// Handles counts open files of all processes of a cgroup.
	Handles(ctx context.Context, path string) (files, sockets uint64, err error)
	// OpenFiles is the soft limit on open files of a process; 0: unlimited.
	OpenFiles(pid int) (uint64, error)
}

// Interface are a network interface's counters since it was made.
type Interface struct {
	Name                                    string
	Loopback                                bool
	RxBytes, RxPackets, RxDropped, RxErrors uint64
	TxBytes, TxPackets, TxDropped, TxErrors uint64
}

// Layer is what a writable layer takes.
type Layer struct {
	Bytes, Inodes uint64
}

// Disk is a file system.
type Disk struct {
	// Mountpoint identifies it to the kubelet, Device to people.
	Mountpoint, Device      string
	Bytes, Inodes, FreeNode uint64
}
