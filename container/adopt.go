package container

import (
	"context"
	"errors"
	"fmt"
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
		if g.proc.Exited() {
			return false
		}
		c.watch(v.ID) // its shim may take seconds to be reached
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
		}
	case lifecycle.Exited:
		// What it wrote while nobody listened may still be in the pipes.
		c.finishStreams(v)
	case lifecycle.Making, lifecycle.Created, lifecycle.Removing, lifecycle.Gone:
	}
	c.Tend(id)
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
	init, ran := c.howFar(ctx, v)
	if !ran {
		return c.undoStart(v)
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
// That the shim does not know of it says nothing: what the last run of crid
// asked for may still be on its way, so the container is fenced off until it is
// started again.
func (c *Containers) undoStart(v *store.Container) error {
	c.fence(v.ID)
	if err := c.killAll(v); err != nil {
		return fmt.Errorf("clear away a start that was cut short: %w", err)
	}
	c.release(v.ID)
	_, err := c.step(v.ID, lifecycle.SeenNeverRan{})
	return err
}

// startedAt is when the kernel started the process, Unix nanoseconds.
func (c *Containers) startedAt(p store.Process) (int64, bool) {
	if !p.Known() {
		return 0, false
	}
	const tick = int64(time.Second) / 100 // USER_HZ, fixed by the ABI
	return time.Now().UnixNano() - c.Kernel.Now() + int64(p.StartTime)*tick, true
}
