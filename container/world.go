package container

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"

	oci "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/container/cgroup"
	"github.com/crid-project/crid/container/plan"
	"github.com/crid-project/crid/image"
	"github.com/crid-project/crid/image/user"
	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/pidfd"
	"github.com/crid-project/crid/store"
)

// Shims finds the shim that a pod's containers are tasks of.
type Shims interface {
	// Of answers the connected shim of a pod; errdefs.ErrUnavailable while it
	// cannot be reached, errdefs.ErrNotFound once it is gone.
	Of(podID string) (shimclient.Tasks, error)
	// PIDNamespace answers the process namespace that the pod's containers
	// share, as a path to join; it is made if need be.
	PIDNamespace(ctx context.Context, podID string) (string, error)
	// Unstick kills OCI runtime commands for a container that have hung under
	// the pod's shim, and with it for the whole pod. For a container that is dead
	// it kills them early and goes on for a while to look for further ones.
	Unstick(ctx context.Context, podID, id string, dead bool)
	// EndHung kills the pod's shim if it does not answer. A shim that hangs does
	// not reap, and the first process of a process namespace cannot end before
	// all others in it have been reaped.
	EndHung(ctx context.Context, podID string)
	// DeleteTask runs the shim's delete sub-command for one container. Nothing
	// that it answers is trusted; what counts is what the kernel shows after.
	DeleteTask(ctx context.Context, handler, bundle, id string) error
}

// Handlers answers what a runtime handler is.
type Handlers interface {
	// Runtime answers the shim and options of a handler.
	Runtime(handler string) (shimclient.Runtime, error)
	// Kernel answers what machine and runtime offer.
	Kernel(handler string) plan.Kernel
}

// Images is what containers need of the image store.
type Images interface {
	Resolve(ref string) (image.Image, error)
	PrepareRootfs(ctx context.Context, id string, img image.Image, opt image.RootfsOptions) (image.Rootfs, error)
	RemoveRootfs(ctx context.Context, id string) error
	MountImage(ctx context.Context, key string, img image.Image, target, subPath string) error
	UnmountImage(ctx context.Context, key string) error
}

// Users resolves whom to run as, from the image's own files.
type Users func(root, imageUser string, want user.Want) (user.Resolved, error)

// Tail is one followed stream. *logs.Tail is one.
type Tail interface {
	// Drain waits until the stream has ended, within the context.
	Drain(ctx context.Context) error
}

// Proc is one process that cannot be mistaken for another. *pidfd.Handle is one.
type Proc interface {
	Process() pidfd.Process
	Signal(sig unix.Signal) error
	Exited() bool
	Status() (pidfd.Status, bool)
	Close() error
}

// Cgroup is one container's cgroup. *cgroup.Cgroup is one.
type Cgroup interface {
	Populated() (bool, error)
	Procs() ([]int, error)
	Kill() error
	Thaw() error
	OOMKills() (uint64, error)
	Remove(ctx context.Context) error
}

// Kernel is what the kernel tells and does. The real one is [RealKernel].
type Kernel interface {
	// Identify names the process that has the pid now; pidfd.ErrGone if none lives.
	Identify(pid int) (pidfd.Process, error)
	// Open takes hold of a process; pidfd.ErrGone if it has been reaped.
	Open(p pidfd.Process) (Proc, error)
	// Watch calls fn once, when the process has exited.
	Watch(p Proc, fn func()) error
	// Cgroup names a cgroup.
	Cgroup(path string) Cgroup
	// Unmount unmounts everything at and below a path; nothing there is no error.
	Unmount(path string) error
	// Mount mounts a file system, one on top of the other if they are several.
	Mount(mounts []image.Mount, target string) error
	// Mounts lists the mount points at and below a path.
	Mounts(path string) ([]string, error)
	// MakeCgroup makes a cgroup with its parents. Idempotent.
	MakeCgroup(path string) error
	// CgroupChildren lists the names of the cgroups directly below one.
	CgroupChildren(path string) []string
	// RuntimeInit reports whether a process is still the OCI runtime's, waiting
	// to become the workload.
	RuntimeInit(pid int) bool
	// Now is the time in nanoseconds since boot, suspended time included: it
	// never jumps, and means the same after a restart of crid.
	Now() int64
}

// RealKernel is the kernel of this machine.
type RealKernel struct{ Watcher *pidfd.Watcher }

// Identify implements Kernel.
func (RealKernel) Identify(pid int) (pidfd.Process, error) { return pidfd.Identify(pid) }

// Open implements Kernel.
func (RealKernel) Open(p pidfd.Process) (Proc, error) {
	h, err := pidfd.Open(p)
	if err != nil {
		return nil, err
	}
	return h, nil
}

// Watch implements Kernel.
func (k RealKernel) Watch(p Proc, fn func()) error {
	h, ok := p.(*pidfd.Handle)
	if !ok {
		return errors.New("watch: not a handle of this kernel")
	}
	return k.Watcher.Watch(h, fn)
}

// Cgroup implements Kernel.
func (RealKernel) Cgroup(path string) Cgroup { return cgroup.Load(path) }

// MakeCgroup implements Kernel.
func (RealKernel) MakeCgroup(path string) error {
	_, err := cgroup.Ensure(path)
	return err
}

// CgroupChildren implements Kernel.
func (RealKernel) CgroupChildren(path string) []string { return cgroup.Children(path) }

// RuntimeInit implements Kernel.
func (RealKernel) RuntimeInit(pid int) bool {
	comm, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	if bytes.HasPrefix(comm, []byte("runc:[")) {
		return true
	}
	args, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	argv := bytes.Split(args, []byte{0})
	return len(argv) > 1 && (filepath.Base(string(argv[0])) == "runc" && string(argv[1]) == "init" || filepath.Base(string(argv[0])) == "crun")
}

// Alive reports whether the kernel has this very process, and not as a zombie.
func Alive(k Kernel, p store.Process) (bool, error) {
	if !p.Known() {
		return false, nil
	}
	now, err := k.Identify(p.Pid)
	if errors.Is(err, pidfd.ErrGone) {
		return false, nil
	}
	return err == nil && now == asPidfd(p), err
}

// Now implements Kernel.
func (RealKernel) Now() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // cannot fail for this clock
	return ts.Nano()
}

// asStore and asPidfd translate between the two names of the same thing: the
// ledger does not know package pidfd.
func asStore(p pidfd.Process) store.Process { return store.Process{Pid: p.Pid, StartTime: p.StartTime} }
func asPidfd(p store.Process) pidfd.Process { return pidfd.Process{Pid: p.Pid, StartTime: p.StartTime} }

// CreateRequest is what CreateContainer asks for.
type CreateRequest struct {
	PodID  string
	Name   store.ContainerName
	Config store.Sealed
	Plan   *plan.Container
}

// Update is what UpdateContainerResources asks for.
type Update struct {
	Resources *oci.LinuxResources
	// Before are the limits as they were, to be put back if the update fails; nil:
	// none were set.
	Before *oci.LinuxResources
	// Annotations are passed to the shim.
	Annotations map[string]string
	// Config is the container's configuration with the new resources in it.
	Config store.Sealed
}
