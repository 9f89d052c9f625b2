package container

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"github.com/crid-project/crid/failpoint"
	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/pidfd"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

// launch runs the workload: at most once in the life of a container. The intent
// is on disk before the first effect, so that a crash in between is looked into
// by Adopt. If it fails, nothing of it lives before the law is told so.
func (c *Containers) launch(ctx context.Context, v *store.Container) error {
	if v.State.Launching {
		if c.wasInterrupted(v.ID) {
			return c.settleStart(ctx, v.ID)
		}
		// An attempt of this run that could not be cleared away yet.
		return c.abandon(v.ID, errors.New("the start was interrupted"))
	}
	if err := c.shimReady(ctx, v.PodID); err != nil && ctx.Err() == nil {
		// Nothing was begun, so the container need not pay for it.
		_, err := c.step(v.ID, lifecycle.SeenNeverRan{})
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, launchDeadline)
	defer cancel()
	// Between the look and now the settling of an interrupted start may have found
	// that it came about: that process is not to be forgotten, let alone a second
	// one made.
	began := false
	if _, err := c.Ledger.StepContainer(v.ID, lifecycle.LaunchBegun{}, func(v *store.Container) {
		if began = v.State.Phase == lifecycle.Starting && v.State.Launching; began {
			forgetInit(v)
		}
	}); err != nil || !began {
		return err
	}
	if err := c.Ledger.FlushContainer(ctx, v.ID); err != nil {
		return c.abandon(v.ID, err)
	}
	if err := failpoint.At("s1"); err != nil {
		return c.abandon(v.ID, err)
	}
	started, err := c.run(ctx, v)
	if err != nil {
		return c.abandon(v.ID, err)
	}
	if _, err := c.step(v.ID, lifecycle.StartDone{}, func(v *store.Container) { v.StartedAt = max(started, v.CreatedAt) }); err != nil {
		return err
	}
	c.watch(v.ID)
	failpoint.Pass("s8")
	return nil
}

// shimReady waits for a shim of an earlier run that was not taken up yet. Whether
// it is any good is the start's own business.
func (c *Containers) shimReady(ctx context.Context, podID string) error {
	ctx, cancel := context.WithTimeout(ctx, rpcDeadline)
	defer cancel()
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		_, err := c.Shims.Of(podID)
		if !errors.Is(err, errdefs.ErrUnavailable) {
			return nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

// run makes the task and starts it, and answers when it was started, in Unix
// nanoseconds.
func (c *Containers) run(ctx context.Context, v *store.Container) (int64, error) {
	shim, err := c.Shims.Of(v.PodID)
	if err != nil {
		return 0, err
	}
	rt, err := c.Handlers.Runtime(v.Handler)
	if err != nil {
		return 0, err
	}
	if err := c.unfence(v.ID); err != nil {
		return 0, err
	}
	if err := c.remountRootfs(v.ID); err != nil {
		return 0, err
	}
	if err := failpoint.At("s2"); err != nil {
		return 0, err
	}
	s, err := c.openStreams(v)
	if err != nil {
		return 0, err
	}
	if err := failpoint.Sending("s3"); err != nil {
		return 0, err
	}
	pid, err := shim.Create(ctx, shimclient.Create{ID: v.ID, Bundle: c.Bundle(v.ID), Runtime: rt,
		Stdin: s.stdinPath(), Stdout: s.stdoutPath(), Stderr: s.stderrPath(), Terminal: v.TTY})
	if err == nil {
		err = failpoint.At("s4")
	}
	if err != nil {
		return 0, fmt.Errorf("create task: %w", err)
	}
	init, err := c.Kernel.Identify(pid)
	if err != nil {
		return 0, fmt.Errorf("the OCI runtime's first process is gone before the start: %w", err)
	}
	if _, err := c.hold(v.ID, asStore(init)); err != nil {
		return 0, fmt.Errorf("take hold of the first process: %w", err)
	}
	base := c.goneKills(v)
	if _, err := c.Ledger.UpdateContainer(v.ID, func(v *store.Container) { v.Init, v.OOMBase = asStore(init), base }); err != nil {
		return 0, err
	}
	// A later run has to know which process it was, and not by a pid alone.
	if err := c.Ledger.FlushContainer(ctx, v.ID); err != nil {
		return 0, err
	}
	if err := failpoint.At("s5"); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := failpoint.Sending("s6"); err != nil {
		return 0, err
	}
	if _, err := shim.Start(ctx, v.ID); err != nil {
		return 0, fmt.Errorf("start task: %w", err)
	}
	if err := failpoint.At("s7"); err != nil {
		return 0, err
	}
	return time.Now().UnixNano(), nil
}

// abandon clears away what a failed start left, and then lets the law know. It
// does not say that the start failed while a process of it may live.
func (c *Containers) abandon(id string, why error) error {
	v, err := c.Ledger.Container(id)
	if err != nil {
		return nil //nolint:nilerr // it is gone
	}
	oom := c.outOfMemory(v)
	c.fence(id) // whatever was asked for, by this run or the last, finds nothing to start
	if err := c.killAll(v); err != nil {
		return fmt.Errorf("clear away a failed start (%w): %w", why, err)
	}
	c.release(id)
	c.closeStreams(id)
	msg := why.Error()
	if oom {
		msg += " (the memory limit is too small for the container to start)"
	}
	_, err = c.step(id, lifecycle.StartFailed{At: time.Now().UnixNano(), Message: msg, OOM: oom})
	return err
}

// unclear reports whether a call that failed so may take effect still.
func unclear(err error) bool {
	return errors.Is(err, shimclient.ErrUnreachable) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, context.Canceled) || errors.Is(err, errdefs.ErrUnavailable)
}

// killAll sends SIGKILL to everything of the container that the kernel shows,
// waits for the end, and fails if something is left after a while.
func (c *Containers) killAll(v *store.Container) error {
	end := time.Now().Add(rpcDeadline)
	for pause := time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		if g := c.grip(v.ID); g != nil && !g.proc.Exited() {
			_ = g.proc.Signal(sigkill)
		}
		c.killCgroup(v)
		empty, err := c.nothingLives(v)
		if err == nil && empty {
			return nil
		}
		if time.Now().After(end) {
			if err == nil {
				err = errors.New("processes do not die")
			}
			return err
		}
		time.Sleep(pause)
	}
}

// nothingLives looks: neither the main process nor anybody in the cgroup.
func (c *Containers) nothingLives(v *store.Container) (bool, error) {
	if g := c.grip(v.ID); g != nil && !g.proc.Exited() {
		return false, nil
	}
	if v.Init.Known() && c.grip(v.ID) == nil {
		p, err := c.Kernel.Open(asPidfd(v.Init))
		switch {
		case err == nil:
			gone := p.Exited()
			if !gone {
				_ = p.Signal(sigkill)
			}
			_ = p.Close()
			if !gone {
				return false, nil
			}
		case !errors.Is(err, pidfd.ErrGone):
			return false, err
		}
	}
	full, err := c.Kernel.Cgroup(v.Cgroup).Populated()
	return !full, err
}
