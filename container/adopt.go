package container

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/pidfd"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

// Adopt takes up a container of an earlier run by what the kernel says. It asks
// no shim and takes microseconds. False means that it ended while nobody
// watched, or was being started: how it ended, or how far it came, is still to
// be learnt, by Settle, before anything is served.
func (c *Containers) Adopt(v *store.Container) bool {
	switch v.State.Phase {
	case lifecycle.Making:
		_, _ = c.Ledger.StepContainer(v.ID, lifecycle.MakeFailed{})
	case lifecycle.Running:
		if v.Boot != c.Ledger.Boot() {
			c.lost(v)
			return true
		}
		g, err := c.hold(v.ID, v.Init)
		if errors.Is(err, pidfd.ErrGone) {
			return false
		}
		if err != nil {
			c.Log.Error("take hold of the main process", "container", v.ID, "err", err)
			return true
		}
		if g.proc.Exited() {
			return false
		}
		c.watch(v.ID) // its shim may take seconds to be reached
		c.noteExecs(v)
	case lifecycle.Starting:
		if v.Boot != c.Ledger.Boot() {
			c.lost(v)
			return true
		}
		if !v.State.Launching {
			_, _ = c.Ledger.StepContainer(v.ID, lifecycle.SeenNeverRan{}) // nothing was tried yet
			return true
		}
		c.mu.Lock()
		c.interrupted[v.ID] = true
		c.mu.Unlock()
		return false
	case lifecycle.Created, lifecycle.Exited, lifecycle.Removing, lifecycle.Gone:
	}
	return true
}

// lost is a container of an earlier boot: nobody can tell how it ended.
func (c *Containers) lost(v *store.Container) {
	_, _ = c.Ledger.StepContainer(v.ID, lifecycle.SeenExited{At: time.Now().UnixNano(), Empty: true},
		func(v *store.Container) { v.Boot = c.Ledger.Boot() })
}

// Settle finishes what Adopt began for one container, once its pod's shim is
// connected or known to be out of reach.
func (c *Containers) Settle(ctx context.Context, id string) {
	v, err := c.Ledger.Container(id)
	if err != nil {
		return
	}
	switch v.State.Phase {
	case lifecycle.Starting:
		if err := c.settleStart(ctx, v.ID); err != nil {
			c.Log.Error("look into a start that a crash cut short; trying again", "container", id, "err", err)
		}
	case lifecycle.Running:
		if _, err := c.openStreams(v); err != nil {
			c.Log.Error("take up the streams again", "container", id, "err", err)
		}
		g, err := c.hold(id, v.Init)
		switch {
		case errors.Is(err, pidfd.ErrGone):
			c.sawGone(id)
		case err != nil:
			c.Log.Error("take hold of the main process; its end will be found late", "container", id, "err", err)
		case g.proc.Exited():
			c.saw(id, g, time.Now())
		default:
			c.watch(id)
			c.askWhetherKnown(ctx, v)
			c.settleLimits(ctx, v)
			c.endExecs(v)
		}
	case lifecycle.Exited:
		// What it wrote while nobody listened may still be in the pipes.
		c.finishStreams(v)
	case lifecycle.Created:
		c.settleLimits(ctx, v)
	case lifecycle.Making, lifecycle.Removing, lifecycle.Gone:
	}
	c.Tend(id)
}

// askWhetherKnown has a container that lives shown as one without a shim that
// knows it, if that is so: it can be stopped, and not be entered. Nothing else
// follows from it.
func (c *Containers) askWhetherKnown(ctx context.Context, v *store.Container) {
	shim, err := c.Shims.Of(v.PodID)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askDeadline)
	defer cancel()
	if _, err := shim.State(ctx, v.ID); isNotFound(err) {
		c.Log.Warn("the shim does not know a container that lives", "pod", v.PodID, "container", v.ID)
		_, _ = c.step(v.ID, lifecycle.SeenNoTask{})
	}
}

// settleStart finds out how far a start came that a crash cut short: the
// workload runs, has run, or never ran. It never runs twice. A start of this
// run is none of its business. It is safe to be called by several at once.
func (c *Containers) settleStart(ctx context.Context, id string) error {
	_, err, _ := c.settling.Do(id, func() (any, error) {
		if !c.wasInterrupted(id) {
			return nil, nil
		}
		v, err := c.Ledger.Container(id)
		if err == nil && v.State.Phase == lifecycle.Starting {
			err = c.settleInterrupted(ctx, v)
		}
		if err == nil || isNotFound(err) {
			c.mu.Lock()
			delete(c.interrupted, id)
			c.mu.Unlock()
		}
		return nil, err
	})
	return err
}

func (c *Containers) wasInterrupted(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.interrupted[id]
}

func (c *Containers) settleInterrupted(ctx context.Context, v *store.Container) error {
	ctx, cancel := context.WithTimeout(ctx, rpcDeadline)
	defer cancel()
	init, came := c.howFar(ctx, v)
	if came != didRun {
		return c.undoStart(v, came)
	}
	if _, err := c.hold(v.ID, init); err != nil && !errors.Is(err, pidfd.ErrGone) {
		c.Log.Error("take hold of the main process", "container", v.ID, "err", err)
	}
	if _, err := c.openStreams(v); err != nil {
		c.Log.Error("take up the streams again", "container", v.ID, "err", err)
	}
	started, ok := c.startedAt(init)
	if !ok {
		started = time.Now().UnixNano()
	}
	_, _ = c.step(v.ID, lifecycle.SeenRunning{}, func(v *store.Container) { v.Init, v.StartedAt = init, max(started, v.CreatedAt) })
	c.watch(v.ID)
	return nil
}

// far is how far an interrupted start came.
type far int

const (
	// neverRan: the workload was not run, and may still be.
	neverRan far = iota
	didRun
	// nobodyKnows: it may have run, so it must not run again.
	nobodyKnows
)

// howFar tells whether the workload of an interrupted start was run, and as
// which process. The kernel is asked first: a main process that is no longer the
// OCI runtime's has become the workload. What has ended only the shim remembers.
func (c *Containers) howFar(ctx context.Context, v *store.Container) (store.Process, far) {
	if alive, err := Alive(c.Kernel, v.Init); err == nil && alive {
		if c.Kernel.RuntimeInit(v.Init.Pid) {
			return v.Init, neverRan
		}
		return v.Init, didRun
	}
	shim, err := c.Shims.Of(v.PodID)
	if err == nil {
		var st shimclient.State
		st, err = shim.State(ctx, v.ID)
		if err == nil {
			if st.Status == shimclient.StatusCreated {
				return v.Init, neverRan
			}
			return c.member(v, st.Pid), didRun
		}
	}
	if !v.Init.Known() {
		if init := c.member(v, 0); init.Known() {
			return init, didRun
		}
		if isNotFound(err) && shim != nil {
			return v.Init, neverRan // it was never created
		}
	}
	return v.Init, nobodyKnows
}

// member answers the main process of a container whose record does not have it
// yet: the shim's pid, or any if that is 0, if it is of the container's cgroup
// and the workload's. A pid alone may be a stranger's by now.
func (c *Containers) member(v *store.Container, pid int) store.Process {
	if v.Init.Known() {
		return v.Init
	}
	pids, err := c.Kernel.Cgroup(v.Cgroup).Procs()
	if err != nil {
		return v.Init
	}
	slices.Sort(pids)
	for _, p := range pids {
		if pid != 0 && p != pid {
			continue
		}
		q, err := c.Kernel.Identify(p)
		if err == nil && !c.Kernel.RuntimeInit(p) {
			return asStore(q)
		}
	}
	return v.Init
}

// undoStart clears away a start that did not run the workload, or of which
// nobody knows; Reap does the rest. That the shim does not know of it says
// nothing: what the last run of crid asked for may still be on its way, so the
// container is fenced off until it is started again.
func (c *Containers) undoStart(v *store.Container, came far) error {
	c.fence(v.ID)
	if g, err := c.hold(v.ID, v.Init); err == nil && came == neverRan {
		// It may become the workload until the signal is sent, and not after.
		_ = g.proc.Signal(sigkill)
		if !g.proc.Exited() && !c.Kernel.RuntimeInit(v.Init.Pid) {
			came = nobodyKnows
		}
	}
	if err := c.killAll(v); err != nil {
		return fmt.Errorf("clear away a start that was cut short: %w", err)
	}
	c.release(v.ID)
	if came == neverRan {
		_, err := c.step(v.ID, lifecycle.SeenNeverRan{}, forgetInit)
		return err
	}
	_, err := c.step(v.ID, lifecycle.SeenExited{At: time.Now().UnixNano(), Empty: true})
	return err
}

// forgetInit: the next start has a main process of its own.
func forgetInit(v *store.Container) { v.Init = store.Process{} }

// startedAt is when the kernel started the process, Unix nanoseconds.
func (c *Containers) startedAt(p store.Process) (int64, bool) {
	if !p.Known() {
		return 0, false
	}
	const tick = int64(time.Second) / 100 // USER_HZ, fixed by the ABI
	return time.Now().UnixNano() - c.Kernel.Now() + int64(p.StartTime)*tick, true
}
