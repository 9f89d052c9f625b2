package container

import (
	"context"
	"errors"
	"time"

	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/pidfd"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

// Adopt takes up a container of an earlier run by what the kernel says. It asks
// no shim and takes microseconds. False means that it ended while nobody
// watched, and how it ended is still to be learnt: by Settle, before anything
// is served.
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
		return !g.proc.Exited()
	case lifecycle.Starting:
		if v.Boot != c.Ledger.Boot() {
			c.lost(v)
		}
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
		c.settleStart(ctx, v)
	case lifecycle.Running:
		if _, err := c.openStreams(v); err != nil {
			c.Log.Error("take up the streams again", "container", id, "err", err)
		}
		g := c.grip(id)
		if g == nil || g.proc.Exited() {
			c.saw(id, g, time.Now())
			break
		}
		c.watch(id)
	case lifecycle.Exited:
		// What it wrote while nobody listened may still be in the pipes.
		c.finishStreams(v)
	case lifecycle.Making, lifecycle.Created, lifecycle.Removing, lifecycle.Gone:
	}
	c.Tend(id)
}

// settleStart finds out how far a start came that a crash cut short: the
// workload runs, has run, or never ran. It never runs twice.
func (c *Containers) settleStart(ctx context.Context, v *store.Container) {
	if !v.State.Launching {
		_, _ = c.step(v.ID, lifecycle.SeenNeverRan{}) // nothing was tried yet
		return
	}
	ctx, cancel := context.WithTimeout(ctx, rpcDeadline)
	defer cancel()
	init, ran := c.howFar(ctx, v)
	if !ran {
		c.undoStart(v)
		return
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
}

// howFar tells whether the workload of an interrupted start was run, and as
// which process. The shim says it best; without it the kernel does: a main
// process that is no longer the OCI runtime's has become the workload.
func (c *Containers) howFar(ctx context.Context, v *store.Container) (init store.Process, ran bool) {
	shim, err := c.Shims.Of(v.PodID)
	if err == nil {
		st, err := shim.State(ctx, v.ID)
		switch {
		case err == nil:
			init = v.Init
			if p, err := c.Kernel.Identify(st.Pid); err == nil {
				init = asStore(p)
			}
			return init, st.Status == shimclient.StatusRunning || st.Status == shimclient.StatusPaused || st.Status == shimclient.StatusStopped
		case isNotFound(err):
			return v.Init, false
		}
	}
	if alive, err := Alive(c.Kernel, v.Init); err != nil || !alive {
		return v.Init, false
	}
	return v.Init, !c.Kernel.RuntimeInit(v.Init.Pid)
}

// undoStart clears away a start that never ran the workload; Reap does the rest.
func (c *Containers) undoStart(v *store.Container) {
	if _, err := c.Shims.Of(v.PodID); err != nil {
		c.fence(v.ID) // it may still take effect in a shim that does not answer
	}
	if err := c.killAll(v); err != nil {
		c.Log.Error("clear away a start that a crash cut short; trying again", "container", v.ID, "err", err)
		time.AfterFunc(rpcDeadline, func() { c.Settle(context.Background(), v.ID) })
		return
	}
	c.release(v.ID)
	_, _ = c.step(v.ID, lifecycle.SeenNeverRan{})
}

// startedAt is when the kernel started the process, Unix nanoseconds.
func (c *Containers) startedAt(p store.Process) (int64, bool) {
	if !p.Known() {
		return 0, false
	}
	const tick = int64(time.Second) / 100 // USER_HZ, fixed by the ABI
	return time.Now().UnixNano() - c.Kernel.Now() + int64(p.StartTime)*tick, true
}
