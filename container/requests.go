package container

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"github.com/crid-project/crid/failpoint"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

// maxStarts bounds how often one call asks for a start that is interrupted.
const maxStarts = 3

// Start runs the workload. It returns when the workload runs or provably never
// will. Calling it again while it starts or runs joins the first call. A
// container that has exited is refused with errdefs.ErrFailedPrecondition.
func (c *Containers) Start(ctx context.Context, id string) error {
	v, err := c.Ledger.Container(id)
	if err != nil {
		return err
	}
	id = v.ID
	pod, err := c.Ledger.Pod(v.PodID)
	if err != nil || pod.State.Phase != lifecycle.Ready {
		return fmt.Errorf("start container %s: its pod sandbox %s is not ready: %w", id, v.PodID, errdefs.ErrFailedPrecondition)
	}
	for try := 1; ; try++ {
		if _, err := c.step(id, lifecycle.AskStart{}); err != nil {
			return refused(err)
		}
		v, err = c.Ledger.WaitContainer(ctx, id, func(v *store.Container) bool { return v.State.Phase != lifecycle.Starting })
		if err != nil {
			return waiting("start container", id, err)
		}
		// A start that this one joined was interrupted, by the end of an earlier
		// crid for example, and has provably never run: that is not the caller's
		// trouble.
		if v.State.Phase != lifecycle.Created || try == maxStarts {
			break
		}
	}
	switch {
	case v.State.Phase == lifecycle.Created:
		return fmt.Errorf("start container %s: the start was interrupted, try again: %w", id, errdefs.ErrUnavailable)
	case v.State.Exit.Source == lifecycle.Runtime:
		return fmt.Errorf("start container %s: %s: %w", id, v.State.Exit.Message, errdefs.ErrUnknown)
	case v.State.Phase == lifecycle.Gone:
		return fmt.Errorf("start container %s: it was removed: %w", id, errdefs.ErrNotFound)
	}
	return failpoint.At("s9")
}

// maxGrace bounds a grace period, so that a time can be added to it.
const maxGrace = 100 * 365 * 24 * time.Hour

// Stop ends the container: the stop signal now, SIGKILL after grace (at once
// for 0). It returns when the kernel says that nothing of it lives. A further
// Stop joins and can only shorten the grace period. One that is not running is
// a success.
func (c *Containers) Stop(ctx context.Context, id string, grace time.Duration) error {
	v, err := c.Ledger.Container(id)
	if err != nil {
		return err
	}
	now := c.Kernel.Now()
	grace = min(max(grace, 0), maxGrace)
	if _, err := c.step(v.ID, lifecycle.AskStop{Now: now, KillAt: now + int64(grace)}); err != nil {
		if errors.Is(err, lifecycle.ErrGone) || isNotFound(err) {
			return nil
		}
		return refused(err)
	}
	return c.ended(ctx, v.ID)
}

// KillMember has a container killed, without waiting for it: for the end of a pod.
func (c *Containers) KillMember(id string) {
	now := c.Kernel.Now()
	_, _ = c.step(id, lifecycle.AskStop{Now: now, KillAt: now})
}

// ShimGone tells that the shim of the container's pod is dead.
func (c *Containers) ShimGone(id string) { _, _ = c.step(id, lifecycle.SeenShimGone{}) }

func (c *Containers) ended(ctx context.Context, id string) error {
	_, err := c.Ledger.WaitContainer(ctx, id, func(v *store.Container) bool { return !v.State.Alive() })
	if err != nil && !isNotFound(err) {
		return waiting("stop container", id, err)
	}
	return nil
}

// Remove makes everything of the container vanish, killing it first if it
// lives. It returns when its name is free. Idempotent; one that does not exist
// is a success.
func (c *Containers) Remove(ctx context.Context, id string) error {
	v, err := c.Ledger.Container(id)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := c.step(v.ID, lifecycle.AskRemove{}); err != nil {
		if errors.Is(err, lifecycle.ErrGone) || isNotFound(err) {
			return nil
		}
		return refused(err)
	}
	c.desk.Nudge(v.ID)
	_, err = c.Ledger.WaitContainer(ctx, v.ID, func(v *store.Container) bool { return v.State.Phase == lifecycle.Gone })
	if err != nil && !isNotFound(err) {
		return waiting("remove container", v.ID, err)
	}
	return nil
}

// waiting says that the caller's patience ended, not the work.
func waiting(what, id string, err error) error {
	return fmt.Errorf("%s %s: still under way, a retry joins it: %w", what, id, err)
}

func refused(err error) error {
	switch {
	case errors.Is(err, lifecycle.ErrGone):
		return fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	case errors.Is(err, lifecycle.ErrState):
		return fmt.Errorf("%w: %w", err, errdefs.ErrFailedPrecondition)
	}
	return err
}
