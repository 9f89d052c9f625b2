package reconcile

import (
	"fmt"
	"time"

	"github.com/crid-project/crid/container"
	"github.com/crid-project/crid/shimclient/pidfd"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

// Finding is one invariant that does not hold, in plain words.
type Finding struct {
	Name     string `json:"name"`
	Severity string `json:"severity"` // "warn" or "fail"
	Message  string `json:"message"`
}

// stuckAfter is when work that is owed counts as stuck.
const stuckAfter = 30 * time.Second

// Check looks at the ledger and at the kernel and answers what does not hold.
// Nothing is changed. An empty answer means that records and world agree.
func (r *Reconciler) Check() []Finding {
	var out []Finding
	add := func(name, severity, format string, args ...any) {
		out = append(out, Finding{name, severity, fmt.Sprintf(format, args...)})
	}
	for _, l := range r.Lost {
		if l.Restored {
			add("quarantine", "warn", "record %s could not be read (%s) and was moved to quarantine; its copy was used, nothing is lost", l.Path, l.Why)
			continue
		}
		add("quarantine", "warn", "record %s could not be read (%s) and was moved to quarantine", l.Path, l.Why)
	}
	if len(r.Lost) == 0 {
		for _, path := range r.Ledger.InQuarantine() {
			add("quarantine", "warn", "%s lies in quarantine; remove it once you have looked into it", path)
		}
	}
	if n, why := r.Ledger.Unsaved(); n > 0 {
		add("unsaved", "fail", "%d records are not on disk: %v", n, why)
	}
	for _, c := range r.Ledger.Containers() {
		r.checkContainer(c, add)
	}
	for _, p := range r.Ledger.Pods() {
		r.checkPod(p, add)
	}
	for _, l := range append(r.Containers.Late(stuckAfter), r.Pods.Late(stuckAfter)...) {
		add("stuck", "fail", "%s owes %q since %s (%d attempts): %v", l.ID, l.Work, time.Since(l.Since).Round(time.Second), l.Tries, l.Err)
	}
	return out
}

func (r *Reconciler) checkContainer(c *store.Container, add func(name, severity, format string, args ...any)) {
	init := pidfd.Process{Pid: c.Init.Pid, StartTime: c.Init.StartTime}
	alive, err := container.Alive(r.Kernel, c.Init)
	switch {
	case err != nil:
		add("proc", "warn", "container %s: cannot look at its process: %v", c.ID, err)
	case c.State.Phase == lifecycle.Running && !alive && !c.State.InitGone:
		add("zombie", "fail", "container %s is shown as running, but its process %s is gone", c.ID, init)
	case c.State.Phase >= lifecycle.Exited && alive:
		add("ghost", "fail", "container %s is shown as exited, but its process %s lives", c.ID, init)
	}
	if _, err := r.Ledger.Pod(c.PodID); err != nil {
		add("no-pod", "warn", "container %s belongs to pod sandbox %s, which has no record; stop and remove it", c.ID, c.PodID)
	}
	if c.State.Phase == lifecycle.Created || c.State.Phase == lifecycle.Running {
		if !r.Containers.HasBundle(c.ID) {
			add("no-bundle", "fail", "container %s has no bundle in %s", c.ID, r.Containers.Bundle(c.ID))
		}
	}
	if c.State.Orphan && c.State.Phase == lifecycle.Running {
		add("orphan", "warn", "container %s runs without a shim that knows it; it can be stopped, but not entered", c.ID)
	}
}

func (r *Reconciler) checkPod(p *store.Pod, add func(name, severity, format string, args ...any)) {
	if p.State.Phase != lifecycle.Ready {
		return
	}
	shim := pidfd.Process{Pid: p.Shim.Process.Pid, StartTime: p.Shim.Process.StartTime}
	if alive, err := container.Alive(r.Kernel, p.Shim.Process); err == nil && !alive {
		add("no-shim", "fail", "pod sandbox %s is shown as ready, but its shim %s is gone", p.ID, shim)
	}
	if r.Settled() && !r.Pods.Connected(p.ID) {
		add("no-shim", "fail", "pod sandbox %s is shown as ready, but crid is not connected to its shim %s", p.ID, shim)
	}
}
