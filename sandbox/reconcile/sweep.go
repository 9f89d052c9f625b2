package reconcile

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/crid-project/crid/cni"
	"github.com/crid-project/crid/container"
	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/store"
)

// sweep removes what no record knows, below crid's own folders and cgroup only.
func (r *Reconciler) sweep(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	pods, containers := r.known()
	strays := r.strays(filepath.Join(r.StateDir, "pods"), pods)
	for _, id := range strays {
		r.sweepShim(ctx, id) // or it might still start something
	}
	r.sweepCgroups(ctx, pods)
	for _, dir := range []string{filepath.Join(r.StateDir, "containers"), filepath.Join(r.StateDir, "fenced"), filepath.Join(r.RootDir, "volumes")} {
		for _, id := range r.strays(dir, containers) {
			// What lives on keeps everything; it is tried again at the next start.
			containers[id] = !r.sweepContainer(ctx, filepath.Join(dir, id), id)
		}
	}
	for _, id := range r.Images.Rootfses() {
		if !containers[id] && !r.bornMeanwhile(id) {
			r.repaired("stray-rootfs", "container", id)
			if err := r.Images.RemoveRootfs(ctx, id); err != nil {
				r.unswept("sweep root file system", "container", id, "err", err)
			}
		}
	}
	r.sweepNetworks(ctx)
	for _, id := range strays {
		r.sweepPod(ctx, id)
	}
}

// unswept says what could not be swept; it is tried again later.
func (r *Reconciler) unswept(what string, args ...any) {
	r.left.Store(true)
	r.Log.Error(what, args...)
}

// sweepAgain sweeps anew if the last time something was left: at the first
// look, and then at ever rarer ones.
func (r *Reconciler) sweepAgain(ctx context.Context) {
	if !r.settled.Load() || !r.left.Load() {
		return
	}
	if r.wait > 0 {
		r.wait--
		return
	}
	r.left.Store(false)
	r.sweep(ctx)
	r.rest = min(2*r.rest+1, maxRest)
	r.wait = r.rest
}

// maxRest is after how many looks at the latest what was left is tried again.
const maxRest = 63

func (r *Reconciler) known() (pods, containers map[string]bool) {
	pods, containers = map[string]bool{}, map[string]bool{}
	for _, p := range r.Ledger.Pods() {
		pods[p.ID] = true
	}
	for _, c := range r.Ledger.Containers() {
		containers[c.ID] = true
		if c.State.Alive() {
			pods[c.PodID] = true // or its network and namespaces would go from under it
		}
	}
	return pods, containers
}

// strays lists the folders that are named like an id and that no record knows.
func (r *Reconciler) strays(dir string, known map[string]bool) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if id := e.Name(); len(id) == 64 && store.ValidID(id) && !known[id] && !r.bornMeanwhile(id) {
			out = append(out, id)
		}
	}
	return out
}

// bornMeanwhile asks the ledger again: requests are served during the sweep.
func (r *Reconciler) bornMeanwhile(id string) bool {
	if _, err := r.Ledger.Pod(id); err == nil {
		return true
	}
	_, err := r.Ledger.Container(id)
	return err == nil
}

// sweepContainer reports false if something of the container lives on.
func (r *Reconciler) sweepContainer(ctx context.Context, dir, id string) bool {
	r.repaired("stray-container", "container", id, "path", dir)
	if err := r.endBundle(ctx, dir, id); err != nil {
		r.unswept("a container without a record lives on; leaving it as it is", "container", id, "err", err)
		return false
	}
	if err := r.Kernel.Unmount(dir); err != nil {
		r.unswept("sweep container", "container", id, "err", err)
		return true
	}
	if err := r.Images.RemoveRootfs(ctx, id); err != nil {
		r.unswept("sweep container", "container", id, "err", err)
	}
	for _, rt := range r.Runtimes {
		if err := container.RemoveRuntimeState(rt, id); err != nil {
			r.unswept("sweep container", "container", id, "err", err)
		}
	}
	if err := container.RemoveTree(r.Kernel, dir); err != nil {
		r.unswept("sweep container", "container", id, "err", err)
	}
	return true
}

// endBundle ends what runs from a bundle that no record knows: nothing is taken
// from under a live process.
func (r *Reconciler) endBundle(ctx context.Context, dir, id string) error {
	cg := BundleCgroup(dir, id)
	if cg == "" {
		return nil
	}
	return end(ctx, r.Kernel.Cgroup(cg))
}

func (r *Reconciler) sweepShim(ctx context.Context, id string) {
	r.repaired("stray-pod", "pod", id)
	ref := r.Shims.Predict(shimclient.Launch{ID: id, Bundle: filepath.Join(r.StateDir, "pods", id)})
	if err := r.Shims.Kill(ctx, ref); err != nil {
		r.unswept("sweep shim", "pod", id, "err", err)
	}
}

func (r *Reconciler) sweepPod(ctx context.Context, id string) {
	dir := filepath.Join(r.StateDir, "pods", id)
	if err := r.endBundle(ctx, dir, id); err != nil {
		r.unswept("a sandbox process without a record lives on; leaving it as it is", "pod", id, "err", err)
		return
	}
	for _, rt := range r.Runtimes {
		if err := container.RemoveRuntimeState(rt, id); err != nil {
			r.unswept("sweep pod", "pod", id, "err", err)
		}
	}
	if err := r.Pods.Namespaces.Unpin(filepath.Join(dir, "ns")); err != nil {
		r.unswept("sweep pod", "pod", id, "err", err)
	}
	if err := r.Kernel.Unmount(dir); err != nil {
		r.unswept("sweep pod", "pod", id, "err", err)
		return
	}
	if err := container.RemoveTree(r.Kernel, dir); err != nil {
		r.unswept("sweep pod", "pod", id, "err", err)
	}
}

// sweepCgroups ends what runs below crid's own cgroup parent for no pod.
func (r *Reconciler) sweepCgroups(ctx context.Context, pods map[string]bool) {
	for _, id := range r.Kernel.CgroupChildren(r.CgroupParent) {
		if len(id) != 64 || !store.ValidID(id) || pods[id] || r.bornMeanwhile(id) {
			continue
		}
		r.repaired("stray-cgroup", "pod", id)
		if err := end(ctx, r.Kernel.Cgroup(filepath.Join(r.CgroupParent, id))); err != nil {
			r.unswept("sweep cgroup", "pod", id, "err", err)
		}
	}
}

// sweepNetworks has CNI release what belongs to no pod.
func (r *Reconciler) sweepNetworks(ctx context.Context) {
	var valid []cni.Attachment
	for _, p := range r.Ledger.Pods() {
		if p.NetNS != "" {
			valid = append(valid, cni.Attachment{ID: p.ID, NetNS: p.NetNS})
		}
	}
	for _, c := range r.orphans() {
		if c.State.Alive() {
			valid = append(valid, cni.Attachment{ID: c.PodID})
		}
	}
	if err := r.Networks.GC(ctx, valid); err != nil {
		r.unswept("sweep network leases", "err", err)
	}
}
