package netns

import (
	"errors"
	"fmt"
	"math"
	"syscall"

	"github.com/containerd/errdefs"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// makeWithUser makes the namespaces as children of a new user namespace, so
// that the pod's root owns them (may configure its network, and nobody else's).
//
// A thread cannot enter a user namespace, so a process is cloned into it. It
// asks to be traced and is stopped by its own exec, before the new program's
// first instruction: none of it ever runs. It lives for as long as the pins
// take, and is then killed and reaped here. Tracing belongs to the thread, so
// all of this runs on one locked thread.
func makeWithUser(dir string, spec Spec) error {
	uids, err := sysIDs("uid", spec.IDMap.UIDs)
	if err != nil {
		return err
	}
	gids, err := sysIDs("gid", spec.IDMap.GIDs)
	if err != nil {
		return err
	}
	flags := spec.flags()
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"crid-namespaces"}, &syscall.ProcAttr{
		Dir: "/",
		Sys: &syscall.SysProcAttr{
			Cloneflags:                 uintptr(unix.CLONE_NEWUSER | flags),
			UidMappings:                uids,
			GidMappings:                gids,
			GidMappingsEnableSetgroups: true,
			Pdeathsig:                  unix.SIGKILL,
			Ptrace:                     true,
		},
	})
	if err != nil {
		return fmt.Errorf("clone into a user namespace: %w", err)
	}
	defer reap(pid)
	if err := waitStopped(pid); err != nil {
		return err
	}
	source := fmt.Sprintf("/proc/%d/ns", pid)
	if err := pinAll(dir, source, unix.CLONE_NEWUSER|flags); err != nil {
		return err
	}
	if flags == 0 {
		return nil
	}
	p := Paths(dir, spec)
	if err := enter(p); err != nil {
		return err
	}
	return furnish(spec)
}

func waitStopped(pid int) error {
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &status, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait for the namespace process: %w", err)
		}
		if !status.Stopped() {
			return fmt.Errorf("wait for the namespace process: it ended (status %#x) instead of stopping", uint32(status))
		}
		return nil
	}
}

// reap ends the process. It is our unreaped child, so the pid cannot be
// somebody else's.
func reap(pid int) {
	_ = unix.Kill(pid, unix.SIGKILL)
	for {
		var status unix.WaitStatus
		_, err := unix.Wait4(pid, &status, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || status.Exited() || status.Signaled() {
			return
		}
	}
}

func sysIDs(what string, ids []oci.LinuxIDMapping) ([]syscall.SysProcIDMap, error) {
	out := make([]syscall.SysProcIDMap, 0, len(ids))
	for _, id := range ids {
		if id.Size == 0 || uint64(id.ContainerID)+uint64(id.Size) > math.MaxUint32 || uint64(id.HostID)+uint64(id.Size) > math.MaxUint32 {
			return nil, fmt.Errorf("%s mapping %d:%d:%d is out of range: %w", what, id.ContainerID, id.HostID, id.Size, errdefs.ErrInvalidArgument)
		}
		out = append(out, syscall.SysProcIDMap{ContainerID: int(id.ContainerID), HostID: int(id.HostID), Size: int(id.Size)})
	}
	return out, nil
}
