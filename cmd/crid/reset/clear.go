package reset

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/cni"
	"github.com/crid-project/crid/container"
	"github.com/crid-project/crid/container/cgroup"
	outputs "github.com/crid-project/crid/container/holder"
)

// clear removes crid's folders, by name and entry by entry: what others put
// there stays, and so does what a living process stands on.
func (r *Reset) clear(ctx context.Context, images bool) {
	state, root := r.parts.Config.State, r.parts.Config.Root
	for key, target := range r.parts.Images.MountedImages() {
		if r.isStuck(strings.SplitN(key, "-", 2)[0]) {
			continue
		}
		if err := r.parts.Images.UnmountImage(ctx, key); err != nil {
			r.leave("image mounted at %s: %w", target, err)
		}
	}
	_ = r.parts.Images.Close()
	_ = r.parts.Host.Close()
	_ = r.parts.Watcher.Close()
	released := r.collectLeases(ctx)

	for _, rt := range r.parts.Runtimes {
		dir, _ := rt.Options["Root"].(string)
		r.removeIDs(filepath.Join(dir, container.Namespace))
		if strings.HasPrefix(dir, state+"/") {
			removeEmpty(dir)
		}
	}
	for _, dir := range []string{filepath.Join(state, "containers"), filepath.Join(state, "fenced"), filepath.Join(root, "volumes"),
		filepath.Join(root, "containers"), filepath.Join(state, "pods")} {
		r.removeIDs(dir)
	}
	if err := outputs.End(ctx, state); err != nil {
		r.leave("%w", err)
	}
	r.removeSockets()
	if len(r.stuck) > 0 {
		for _, dir := range []string{filepath.Join(state, "records"), filepath.Join(root, "ledger")} {
			r.removeIDs(filepath.Join(dir, "containers"))
			r.removeIDs(filepath.Join(dir, "pods"))
		}
		r.log.Warn("something lives on; images and what it stands on are kept")
		return
	}
	r.removeAll(filepath.Join(state, "output"))
	r.removeAll(filepath.Join(state, "pause"))
	r.removeAll(filepath.Join(state, "records"))
	r.removeAll(filepath.Join(root, "ledger"))
	if r.parts.Scratch != "" {
		r.removeAll(r.parts.Scratch)
	}
	if released && strings.HasPrefix(r.parts.Config.CNI.CacheDir, root+"/") {
		r.removeAll(r.parts.Config.CNI.CacheDir)
	}
	if images {
		r.removeAll(filepath.Join(root, "images"))
	}
	r.removeParent(ctx)
}

// collectLeases has CNI release what belongs to no pod that is left.
func (r *Reset) collectLeases(ctx context.Context) bool {
	var valid []cni.Attachment
	for _, p := range r.parts.Ledger.Pods() {
		if r.isStuck(p.ID) && p.NetNS != "" {
			valid = append(valid, cni.Attachment{ID: p.ID, NetNS: p.NetNS})
		}
	}
	if err := r.parts.Networks.GC(ctx, valid); err != nil {
		r.leave("network leases: %w", err)
		return false
	}
	return true
}

// removeIDs removes the entries of a folder that are named like an id, and the
// folder if nothing is left in it.
func (r *Reset) removeIDs(dir string) {
	n := 0
	for _, id := range idsIn(dir) {
		if r.isStuck(id) {
			continue
		}
		path := filepath.Join(dir, id)
		err := r.unmountBelow(path)
		if err == nil {
			err = container.RemoveTree(container.RealKernel{}, path)
		}
		if err != nil {
			r.leave("%s: %w", path, err)
			continue
		}
		n++
	}
	if n > 0 {
		r.Say("removed %d from %s", n, dir)
	}
	removeEmpty(dir)
}

// removeAll removes a folder of ours; the folder itself stays if it is where
// somebody mounted a disk.
func (r *Reset) removeAll(dir string) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		entries = nil // not a folder, or not readable: tried below
	}
	for _, e := range entries {
		if err := container.RemoveTree(container.RealKernel{}, filepath.Join(dir, e.Name())); err != nil {
			r.leave("%s: %w", dir, err)
			return
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, unix.EBUSY) {
		r.leave("%s: %w", dir, err)
		return
	}
	r.Say("removed %s", dir)
}

// removeSockets removes the daemon's and the shims' sockets. Nobody listens:
// we have the daemon's lock, and the shims are dead.
func (r *Reset) removeSockets() {
	for _, id := range idsIn(r.parts.Config.ShimSocketDir) {
		_ = os.Remove(filepath.Join(r.parts.Config.ShimSocketDir, id))
	}
	removeEmpty(r.parts.Config.ShimSocketDir)
	for _, path := range []string{r.parts.Config.Address, r.parts.Config.AdminSocket(), filepath.Join(r.parts.Config.State, "events.sock")} {
		st, err := os.Lstat(path)
		if err == nil && st.Mode()&os.ModeSocket != 0 {
			if os.Remove(path) == nil {
				r.Say("removed %s", path)
			}
		}
		if st, err := os.Lstat(path + ".lock"); err == nil && st.Mode().IsRegular() && st.Size() == 0 {
			_ = os.Remove(path + ".lock")
		}
	}
}

// removeParent removes the cgroup above the pods' if nothing is in it.
func (r *Reset) removeParent(ctx context.Context) {
	parent := r.parts.Config.CgroupParent
	if r.parts.Driver == cgroup.Systemd {
		dir, err := cgroup.ParentDir(cgroup.Slice(parent), r.parts.Driver)
		if err != nil {
			return // no slice was ever made under such a name
		}
		parent = dir
	}
	cg := cgroup.Load(parent)
	if !cg.Exists() || len(cgroup.Children(parent)) > 0 {
		return
	}
	if full, err := cg.Populated(); err != nil || full {
		return
	}
	if err := cg.Remove(ctx); err != nil {
		r.leave("%w", err)
		return
	}
	r.Say("removed cgroup %s", parent)
}

func removeEmpty(dir string) { _ = os.Remove(dir) }
