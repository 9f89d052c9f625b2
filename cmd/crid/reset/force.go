package reset

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/cni"
	"github.com/crid-project/crid/cni/netns"
	"github.com/crid-project/crid/container"
	"github.com/crid-project/crid/container/cgroup"
	"github.com/crid-project/crid/sandbox/reconcile"
	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/pidfd"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

// victim is a cgroup that is to be emptied, and whose it is.
type victim struct {
	cgroup string        // as cgroup.Load takes it; empty: not known
	init   pidfd.Process // the main process; zero: not known
	owners []string      // ids
}

// force does what the orderly way left undone: shims first, so that nothing new
// is started, then every process, then all that they stood on. What lives on
// keeps what it stands on, and is reported.
func (r *Reset) force(ctx context.Context) {
	pods := r.pods()
	var wg sync.WaitGroup
	for id, p := range pods {
		wg.Go(func() { r.killShim(ctx, id, p) })
	}
	wg.Wait()
	for _, v := range r.victims(pods) {
		wg.Go(func() { r.kill(ctx, v) })
	}
	wg.Wait()
	for id, p := range pods {
		if r.isStuck(id) {
			continue
		}
		wg.Go(func() { r.freePod(ctx, id, p) })
	}
	wg.Wait()
}

// pods answers every pod that is left: those on record, and those of which only
// a folder tells (nil).
func (r *Reset) pods() map[string]*store.Pod {
	out := map[string]*store.Pod{}
	for _, id := range idsIn(filepath.Join(r.parts.Config.State, "pods")) {
		out[id] = nil
	}
	for _, p := range r.parts.Ledger.Pods() {
		out[p.ID] = p
	}
	return out
}

func (r *Reset) killShim(ctx context.Context, id string, p *store.Pod) {
	refs := []shimclient.Ref{{ID: id}} // looked for among the processes
	if p != nil && p.Boot == r.parts.Boot && p.Shim.Process.Known() {
		refs = append(refs, shimclient.Ref{ID: id, Address: p.Shim.Address, Process: asProcess(p.Shim.Process)})
	}
	for _, ref := range refs {
		if err := r.parts.Host.Kill(ctx, ref); err != nil {
			r.leave("shim of pod %s: %w", id, err)
			r.keep(id)
		}
	}
}

// victims lists whatever may hold a process of ours: by the records, by the
// bundles, and by the cgroups below our own.
func (r *Reset) victims(pods map[string]*store.Pod) []victim {
	var out []victim
	for id, p := range pods {
		if p != nil && p.OwnCgroup && names(p.Cgroup, id) {
			out = append(out, victim{cgroup: p.Cgroup, owners: []string{id}})
		}
		if p != nil && p.Boot == r.parts.Boot && p.PauseInit.Known() {
			out = append(out, victim{init: asProcess(p.PauseInit), owners: []string{id}})
		}
	}
	for _, v := range r.parts.Ledger.Containers() {
		one := victim{owners: []string{v.ID, v.PodID}}
		if names(v.Cgroup, v.ID) {
			one.cgroup = v.Cgroup
		}
		if v.Boot == r.parts.Boot && v.Init.Known() {
			one.init = asProcess(v.Init)
		}
		out = append(out, one)
	}
	for _, dir := range []string{"containers", "fenced", "pods"} {
		for _, id := range idsIn(filepath.Join(r.parts.Config.State, dir)) {
			if cg := reconcile.BundleCgroup(filepath.Join(r.parts.Config.State, dir, id), id); cg != "" {
				out = append(out, victim{cgroup: cg, owners: []string{id}})
			}
		}
	}
	for _, id := range cgroup.Children(r.parts.Config.CgroupParent) {
		if isID(id) {
			out = append(out, victim{cgroup: filepath.Join(r.parts.Config.CgroupParent, id), owners: []string{id}})
		}
	}
	return out
}

// names reports whether a cgroup is the one of this id, by its last part. A
// systemd slice has only the first half of the id.
func names(cg, id string) bool {
	return len(id) == 64 && strings.Contains(path.Base(cg), id[:32])
}

// kill ends every process of a victim and removes its cgroup.
func (r *Reset) kill(ctx context.Context, v victim) {
	ctx, cancel := context.WithTimeout(ctx, forcedKill)
	defer cancel()
	if v.init != (pidfd.Process{}) {
		if err := killOne(ctx, v.init); err != nil {
			r.leave("%s: %w", v.owners[0], err)
			r.keep(v.owners...)
		}
	}
	if v.cgroup == "" {
		return
	}
	cg := cgroup.Load(v.cgroup)
	if !cg.Exists() {
		return
	}
	if err := empty(ctx, cg); err != nil {
		r.leave("%s: %w", v.owners[0], err)
		r.keep(v.owners...)
		return
	}
	if err := cg.Remove(ctx); err != nil {
		r.leave("%w", err)
		return
	}
	r.Say("emptied and removed cgroup %s", v.cgroup)
}

// killOne kills one process and waits for its end.
func killOne(ctx context.Context, p pidfd.Process) error {
	h, err := pidfd.Open(p)
	if err != nil {
		return nil // it is gone, or cannot be named; its cgroup decides
	}
	defer h.Close()
	_ = h.Signal(unix.SIGKILL)
	for wait := time.Millisecond; !h.Exited(); wait = min(2*wait, 100*time.Millisecond) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d does not die of SIGKILL%s", p.Pid, whereabouts(p.Pid))
		case <-time.After(wait):
		}
	}
	return nil
}

// empty kills what is in a cgroup until the kernel says that it is empty.
func empty(ctx context.Context, cg *cgroup.Cgroup) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		err := cg.Kill()
		if err == nil {
			var full bool
			if full, err = cg.Populated(); err == nil && !full {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			if err != nil {
				return err
			}
			pids, _ := cg.Procs()
			var b strings.Builder
			for i, pid := range pids {
				if i == 4 {
					b.WriteString(" …")
					break
				}
				b.WriteString(" " + strconv.Itoa(pid) + whereabouts(pid))
			}
			return fmt.Errorf("processes do not die of SIGKILL:%s", b.String())
		case <-time.After(wait):
		}
	}
}

// whereabouts says where in the kernel a process hangs.
func whereabouts(pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/wchan")
	if err != nil || len(b) == 0 || string(b) == "0" {
		return ""
	}
	return " (in " + string(b) + ")"
}

// freePod gives back what a pod holds, once nothing of it lives.
func (r *Reset) freePod(ctx context.Context, id string, p *store.Pod) {
	if p != nil && p.State.Holds&lifecycle.HoldsNet != 0 {
		err := r.parts.Networks.Del(ctx, cni.Attachment{ID: id, NetNS: p.NetNS, Name: p.Name.Name, Namespace: p.Name.Namespace, UID: p.Name.UID,
			CgroupPath: p.Cgroup}, p.Net)
		if err != nil {
			// The copy in the CNI cache stays, and the next reset tries again.
			r.leave("network of pod %s: %w", id, err)
		} else {
			r.Say("released the network of pod %s", id)
		}
	}
	dir := filepath.Join(r.parts.Config.State, "pods", id)
	if err := netns.Unpin(filepath.Join(dir, "ns")); err != nil {
		r.leave("namespaces of pod %s: %w", id, err)
		r.keep(id)
	}
}

// unmountBelow unmounts what is mounted at or below a folder of one id.
func (r *Reset) unmountBelow(dir string) error {
	infos, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil || len(infos) == 0 {
		return err
	}
	if err := (container.RealKernel{Watcher: r.parts.Watcher}).Unmount(dir); err != nil {
		return err
	}
	r.Say("unmounted %d below %s", len(infos), dir)
	return nil
}

func (r *Reset) keep(ids ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		r.stuck[id] = true
	}
}

func (r *Reset) isStuck(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stuck[id]
}

func asProcess(p store.Process) pidfd.Process {
	return pidfd.Process{Pid: p.Pid, StartTime: p.StartTime}
}

func isID(s string) bool { return len(s) == 64 && store.ValidID(s) }

// idsIn lists the folders that are named like an id.
func idsIn(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if isID(e.Name()) {
			out = append(out, e.Name())
		}
	}
	return out
}
