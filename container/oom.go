package container

import (
	"path"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

// outOfMemory asks the cgroup's counter, which goes when the task is deleted.
// Systemd does not wait for that: it removes a scope within milliseconds of the
// last process's end, and the counter with it. What its parent has counted
// stays, and tells.
func (c *Containers) outOfMemory(v *store.Container) bool {
	n, err := c.Kernel.Cgroup(v.Cgroup).OOMKills()
	if err == nil || !errdefs.IsNotFound(err) || !isScope(v.Cgroup) {
		return err == nil && n > 0
	}
	known := v.OOMBase
	for _, s := range c.siblings(v) {
		if s.State.Exit.OOM && s.FinishedAt() >= v.StartedAt {
			known++ // the kill was that one's
		}
	}
	return c.goneKills(v) > known
}

// isScope tells whether systemd made the cgroup and will remove it.
func isScope(cgroup string) bool { return strings.HasSuffix(cgroup, ".scope") }

// siblings are the other containers in the same parent cgroup.
func (c *Containers) siblings(v *store.Container) []*store.Container {
	var out []*store.Container
	for _, s := range c.Ledger.Containers() {
		if s.ID != v.ID && s.Cgroup != "" && path.Dir(s.Cgroup) == path.Dir(v.Cgroup) {
			out = append(out, s)
		}
	}
	return out
}

// goneKills counts the out-of-memory kills below the container's parent cgroup
// that no cgroup which is still there, other than its own, accounts for. On
// cgroup v2 a parent counts its descendants in, the gone ones too; on v1 it does
// not, and the answer is 0.
func (c *Containers) goneKills(v *store.Container) uint64 {
	if !isScope(v.Cgroup) {
		return 0
	}
	all, err := c.Kernel.Cgroup(path.Dir(v.Cgroup)).OOMKills()
	if err != nil {
		return 0
	}
	for _, s := range c.siblings(v) {
		if s.State.Phase >= lifecycle.Exited {
			continue // its cgroup is gone or about to be
		}
		if n, err := c.Kernel.Cgroup(s.Cgroup).OOMKills(); err == nil {
			all -= min(n, all)
		}
	}
	return all
}
