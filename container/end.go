package container

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/failpoint"
	"github.com/crid-project/crid/shimclient/pidfd"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

const sigkill = unix.SIGKILL

// term delivers the stop signal, straight to the main process: the shim would
// start an OCI runtime to do the same, and may hang. A frozen container is
// thawed, or it could not act on the signal.
func (c *Containers) term(_ context.Context, v *store.Container) error {
	g, err := c.hold(v.ID, v.Init)
	if errors.Is(err, pidfd.ErrGone) {
		c.sawGone(v.ID)
		return nil
	}
	if err != nil {
		return fmt.Errorf("take hold of the main process: %w", err)
	}
	if err := c.Kernel.Cgroup(v.Cgroup).Thaw(); err != nil {
		c.Log.Debug("thaw", "container", v.ID, "err", err)
	}
	if err := failpoint.At("t1"); err != nil {
		return err
	}
	if err := g.proc.Signal(unix.Signal(v.StopSignal)); err != nil && !errors.Is(err, pidfd.ErrGone) {
		return fmt.Errorf("send signal %d: %w", v.StopSignal, err)
	}
	if err := failpoint.At("t2"); err != nil {
		return err
	}
	_, err = c.step(v.ID, lifecycle.TermDone{})
	failpoint.Pass("t3")
	return err
}

// kill sees to it that no process of the container lives. What cannot be killed
// stays RUNNING and is tried again for ever, at ever longer intervals, and
// delays nobody else.
func (c *Containers) kill(ctx context.Context, v *store.Container) error {
	g, err := c.hold(v.ID, v.Init)
	if err != nil && !errors.Is(err, pidfd.ErrGone) {
		return fmt.Errorf("take hold of the main process: %w", err)
	}
	if g != nil && !g.proc.Exited() {
		if err := c.Kernel.Cgroup(v.Cgroup).Thaw(); err != nil {
			c.Log.Debug("thaw", "container", v.ID, "err", err)
		}
		if err := g.proc.Signal(sigkill); err != nil && !errors.Is(err, pidfd.ErrGone) {
			c.Log.Warn("send SIGKILL", "container", v.ID, "err", err)
		}
		if err := failpoint.At("t4"); err != nil {
			return err
		}
		if c.killed(ctx, v.ID, killFirst) {
			return nil
		}
	}
	// Others in the cgroup end with a process namespace of their own; where it
	// is shared, or init is gone or hangs, they have to be killed one by one.
	c.killCgroup(v)
	return c.awaitDeath(ctx, v, g)
}

// How long a kill of the main process alone may take before the cgroup is
// killed, how often a kill that is under way looks, and after how long it starts
// over. killShim is when a shim that hangs is suspected of keeping it from dying.
const (
	killFirst = 200 * time.Millisecond
	killLook  = 500 * time.Millisecond
	killShim  = 5 * time.Second
	killAgain = time.Minute
)

// awaitDeath waits until nothing of the container lives. A process that hangs in
// the kernel dies when the kernel lets go of it, and that is seen within a
// moment, whenever it is.
func (c *Containers) awaitDeath(ctx context.Context, v *store.Container, g *grip) error {
	begun, asked := time.Now(), false
	for time.Since(begun) < killAgain {
		if !asked && v.State.Stop == lifecycle.Killing && time.Since(begun) > killShim {
			asked = true
			go c.Shims.EndHung(ctx, v.PodID) // it may take long, and the death is to be seen at once
		}
		if g == nil || g.proc.Exited() {
			c.saw(v.ID, g, time.Now())
		}
		if c.killed(ctx, v.ID, killLook) {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return fmt.Errorf("processes do not die: %s", c.stuckWhy(v))
}

// killed waits a while for the law to say that no kill is owed any more.
func (c *Containers) killed(ctx context.Context, id string, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	_, err := c.Ledger.WaitContainer(ctx, id, func(v *store.Container) bool { return !v.State.Owes().Has(lifecycle.Kill) })
	return err == nil || isNotFound(err)
}

// killCgroup sends SIGKILL to everybody in the container's cgroup.
func (c *Containers) killCgroup(v *store.Container) {
	if err := c.Kernel.Cgroup(v.Cgroup).Kill(); err != nil {
		c.Log.Warn("kill cgroup", "container", v.ID, "err", err)
	}
}

// watch has the end of the main process reported, once. Called when the law says that
// it runs, so that an end is judged as the workload's and not as a start's.
func (c *Containers) watch(id string) {
	g := c.grip(id)
	if g == nil {
		c.sawGone(id)
		return
	}
	g.watch.Do(func() {
		if err := c.Kernel.Watch(g.proc, func() { c.saw(id, g, time.Now()) }); err != nil {
			c.Log.Error("cannot watch the main process; its end will be found late", "container", id, "err", err)
		}
	})
}

// sawGone reports a main process of which nothing is left to take hold of.
func (c *Containers) sawGone(id string) { c.saw(id, nil, time.Now()) }

// Look asks the kernel again about a container that is shown as running, for
// the audit.
func (c *Containers) Look(id string) {
	if g := c.grip(id); g == nil || g.proc.Exited() {
		c.saw(id, g, time.Now())
	}
}

// saw tells the law that the main process has exited, with all that can be
// known about it: from the kernel at once, else from the shim within a bound,
// else nothing. What was written before the exit is in the log before it shows.
func (c *Containers) saw(id string, g *grip, at time.Time) {
	v, err := c.Ledger.Container(id)
	if err != nil || !v.State.Alive() {
		return
	}
	e := lifecycle.SeenExited{At: at.UnixNano()}
	if st, ok := statusOf(g); ok {
		e.Source, e.Code = lifecycle.Kernel, int32(st.Code())
		if sig, killed := st.Signaled(); killed {
			e.Signal = uint8(sig)
		}
	} else {
		c.askShim(v, &e)
	}
	failpoint.Pass("t5")
	if e.Signal == uint8(sigkill) || e.Source == lifecycle.Shim && e.Code == lifecycle.CodeKilled {
		e.OOMKill = c.outOfMemory(v)
	}
	failpoint.Pass("t6")
	if e.Empty = c.empty(v); e.Empty {
		if _, err := c.openStreams(v); err != nil { // they are not yet, just after a restart
			c.Log.Error("take up the streams again", "container", id, "err", err)
		}
		c.drain(id, drainDeadline)
	}
	if _, err := c.step(id, e); err != nil {
		c.Log.Error("report exit", "container", id, "err", err)
		return
	}
	failpoint.Pass("t10")
	if e.Empty {
		c.release(id)
		c.closeStreams(id)
	}
}

func statusOf(g *grip) (pidfd.Status, bool) {
	if g == nil {
		return pidfd.Status{}, false
	}
	// The status of a zombie is in /proc, that of a reaped process at the pidfd;
	// in between is a moment in which neither has it.
	for range 20 {
		if st, ok := g.proc.Status(); ok {
			return st, true
		}
		time.Sleep(time.Millisecond)
	}
	return pidfd.Status{}, false
}

// askShim asks how a container ended that the kernel says is gone. The shim is
// asked for the code only, never for whether it is dead.
func (c *Containers) askShim(v *store.Container, e *lifecycle.SeenExited) {
	shim, err := c.Shims.Of(v.PodID)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), askDeadline)
	defer cancel()
	x, err := shim.Wait(ctx, v.ID)
	if err != nil {
		return
	}
	e.Source, e.Code = lifecycle.Shim, int32(x.Code)
	if !x.At.IsZero() {
		e.At = x.At.UnixNano()
	}
}

// empty reports whether the cgroup is empty, giving the dying a moment: they
// leave it shortly after init.
func (c *Containers) empty(v *store.Container) bool {
	cg := c.Kernel.Cgroup(v.Cgroup)
	for i := range 10 {
		if full, err := cg.Populated(); err == nil && !full {
			return true
		}
		time.Sleep(time.Duration(i) * time.Millisecond)
	}
	return false
}
