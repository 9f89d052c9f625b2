package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/crid-project/crid/failpoint"
	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

// reap sees to it that no process, no task, no shim entry, no mount and no
// cgroup of the container is left. The shim is asked first; if it cannot or
// does not answer, the container is fenced off (its bundle moves, so that a
// start still in the pipe finds nothing to start) and cleared away without it.
func (c *Containers) reap(ctx context.Context, v *store.Container) error {
	ctx, cancel := context.WithTimeout(ctx, cleanDeadline)
	defer cancel()
	// A kill freezes the cgroup for a moment, and an OCI runtime does not delete
	// what it finds frozen.
	if err := c.desk.Clear(ctx, v.ID, lifecycle.Kill); err != nil {
		return err
	}
	dead, err := c.nothingLives(v)
	if err != nil {
		return fmt.Errorf("look for processes: %w", err)
	}
	if !dead {
		// An exited container with a live process: the law forbids going back,
		// so it is killed.
		c.Log.Error("a process of an exited container lives; killing it", "container", v.ID)
		if err := c.killAll(v); err != nil {
			return err
		}
	}
	if v.State.Phase == lifecycle.Exited {
		// Task and cgroup are the last to tell how it ended: if crid dies before
		// that is on disk, its next run asks them. A removal needs it no more.
		if err := c.Ledger.FlushContainer(ctx, v.ID); err != nil {
			return err
		}
		if err := failpoint.At("t9"); err != nil {
			return err
		}
	}
	if err := c.deleteTask(ctx, v); err != nil {
		return err
	}
	if v.State.Phase >= lifecycle.Exited {
		c.fence(v.ID) // what is still on its way to the shim must not revive it
	}
	if err := c.Kernel.Cgroup(v.Cgroup).Remove(ctx); err != nil {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	for _, dir := range []string{c.Bundle(v.ID), c.fenced(v.ID)} {
		if err := c.Kernel.Unmount(filepath.Join(dir, "rootfs")); err != nil {
			return fmt.Errorf("unmount root file system: %w", err)
		}
	}
	c.release(v.ID)
	c.closeStreams(v.ID)
	_, err = c.step(v.ID, lifecycle.ReapDone{})
	return err
}

// deleteTask makes shim and OCI runtime forget the container.
func (c *Containers) deleteTask(ctx context.Context, v *store.Container) error {
	shim, err := c.Shims.Of(v.PodID)
	if err == nil {
		if err = failpoint.Sending("t7"); err == nil {
			err = DeleteFrom(ctx, shim, v.ID)
		}
		if err == nil {
			err = failpoint.At("t8")
		}
		if err == nil || isNotFound(err) && !c.runtimeState(v) {
			return c.scrubRuntime(v) // an OCI runtime may say so and have done nothing
		}
	}
	if !c.runtimeState(v) && !c.fencedOff(v.ID) && isNotFound(err) {
		return nil
	}
	c.Log.Warn("the shim did not delete the task; clearing it away without the shim", "container", v.ID, "err", err)
	if unclear(err) {
		c.Shims.Unstick(ctx, v.PodID, v.ID, true)
	}
	c.fence(v.ID)
	rpc, cancel := context.WithTimeout(ctx, rpcDeadline)
	defer cancel()
	if err := c.Shims.DeleteTask(rpc, v.Handler, c.fenced(v.ID), v.ID); err != nil {
		c.Log.Warn("the shim's delete command failed", "container", v.ID, "err", err)
	}
	if dead, err := c.nothingLives(v); err != nil || !dead {
		return errors.New("a process came back while its task was deleted")
	}
	return c.scrubRuntime(v)
}

// scrubRuntime removes what the OCI runtime remembers of a container that is dead.
func (c *Containers) scrubRuntime(v *store.Container) error {
	rt, err := c.Handlers.Runtime(v.Handler)
	if err != nil {
		return err
	}
	return RemoveRuntimeState(rt, v.ID)
}

// DeleteFrom has the shim delete a task of which the kernel says that it is
// dead. A shim that has not heard of the death yet refuses; it is given the
// time to hear of it.
func DeleteFrom(ctx context.Context, shim shimclient.Tasks, id string) error {
	ctx, cancel := context.WithTimeout(ctx, rpcDeadline)
	defer cancel()
	_, err := shim.Delete(ctx, id)
	if !errors.Is(err, errdefs.ErrFailedPrecondition) {
		return err
	}
	wait, done := context.WithTimeout(ctx, rpcDeadline/2)
	defer done()
	if _, err := shim.Wait(wait, id); err != nil {
		return err
	}
	_, err = shim.Delete(ctx, id)
	return err
}

// fence moves the bundle aside. Idempotent.
func (c *Containers) fence(id string) {
	if err := os.MkdirAll(filepath.Dir(c.fenced(id)), 0o700); err != nil {
		c.Log.Warn("move bundle aside", "container", id, "err", err)
		return
	}
	if err := os.Rename(c.Bundle(id), c.fenced(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.Log.Warn("move bundle aside", "container", id, "err", err)
	}
}

// unfence brings the bundle of a container back that is to be started again. Not
// before that: a request of an interrupted start may take effect until then.
func (c *Containers) unfence(id string) error {
	if err := os.Rename(c.fenced(id), c.Bundle(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("bring bundle back: %w", err)
	}
	return c.sweepBundle(id)
}

// sweepBundle removes what shim and OCI runtime wrote into the bundle during a
// start that never ran the workload (pid files, logs): the next one would take
// offence at it.
func (c *Containers) sweepBundle(id string) error {
	entries, err := os.ReadDir(c.Bundle(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a reboot took it
	}
	if err != nil {
		return fmt.Errorf("read bundle: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() || e.Name() == "config.json" || e.Name() == mountsFile {
			continue
		}
		if err := os.Remove(filepath.Join(c.Bundle(id), e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("clear bundle: %w", err)
		}
	}
	return nil
}

// HasBundle reports whether the container's bundle is there, fenced or not.
func (c *Containers) HasBundle(id string) bool {
	_, err := os.Stat(filepath.Join(c.Bundle(id), "config.json"))
	if err != nil {
		_, err = os.Stat(filepath.Join(c.fenced(id), "config.json"))
	}
	return err == nil
}

func (c *Containers) fencedOff(id string) bool {
	_, err := os.Lstat(c.fenced(id))
	return err == nil
}

// fenced is where a fenced bundle lies. Its last part is the id, as the shim's
// delete command wants it.
func (c *Containers) fenced(id string) string { return filepath.Join(c.StateDir, "fenced", id) }

// Namespace is the part of an OCI runtime's state directory that is crid's: the
// namespace that shims are started with.
const Namespace = "crid"

// runtimeDir is the folder in which the OCI runtime keeps a container's state;
// empty if that is not known for the handler.
func runtimeDir(rt shimclient.Runtime, id string) string {
	root, _ := rt.Options["Root"].(string)
	if root == "" || !store.ValidID(id) {
		return ""
	}
	return filepath.Join(root, Namespace, id)
}

// RemoveRuntimeState removes what the OCI runtime remembers of a container of
// which nothing lives. Idempotent.
func RemoveRuntimeState(rt shimclient.Runtime, id string) error {
	dir := runtimeDir(rt, id)
	if dir == "" {
		return nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the OCI runtime's state: %w", err)
	}
	return nil
}

// runtimeState reports whether the OCI runtime may remember the container.
func (c *Containers) runtimeState(v *store.Container) bool {
	rt, err := c.Handlers.Runtime(v.Handler)
	if err != nil {
		return true
	}
	dir := runtimeDir(rt, v.ID)
	if dir == "" {
		return true
	}
	_, err = os.Lstat(dir)
	return err == nil
}

// erase removes the writable layer, the bundle and the record; the name is free
// when it is done.
func (c *Containers) erase(ctx context.Context, v *store.Container) error {
	ctx, cancel := context.WithTimeout(ctx, cleanDeadline)
	defer cancel()
	if err := c.Ledger.FlushContainer(ctx, v.ID); err != nil {
		// On a full disk removing is what helps, and cannot wait for room.
		c.Log.Warn("remove a container whose record cannot be written", "container", v.ID, "err", err)
	}
	if err := failpoint.At("r1"); err != nil {
		return err
	}
	for _, dir := range []string{c.Bundle(v.ID), c.fenced(v.ID)} {
		if err := c.Kernel.Unmount(dir); err != nil {
			return fmt.Errorf("unmount: %w", err)
		}
		if err := c.unmountImages(ctx, v.ID, dir); err != nil {
			return err
		}
	}
	if err := c.Images.RemoveRootfs(ctx, v.ID); err != nil {
		return fmt.Errorf("remove writable layer: %w", err)
	}
	if err := failpoint.At("r2"); err != nil {
		return err
	}
	for _, dir := range []string{c.Bundle(v.ID), c.fenced(v.ID), c.volumes(v.ID)} {
		if err := RemoveTree(c.Kernel, dir); err != nil {
			return fmt.Errorf("remove files: %w", err)
		}
	}
	if err := failpoint.At("r3"); err != nil {
		return err
	}
	c.forget(v.ID)
	return c.Ledger.EraseContainer(ctx, v.ID)
}

// stuckWhy names what keeps processes from dying, for the log: their state and
// where in the kernel they wait.
func (c *Containers) stuckWhy(v *store.Container) string {
	pids, err := c.Kernel.Cgroup(v.Cgroup).Procs()
	if err != nil || len(pids) == 0 {
		return "no process is listed in the cgroup"
	}
	var b strings.Builder
	for i, pid := range pids {
		if i == 4 {
			b.WriteString(" …")
			break
		}
		wchan, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/wchan")
		fmt.Fprintf(&b, " pid %d in %s", pid, wchan)
	}
	return strings.TrimSpace(b.String())
}
