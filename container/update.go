package container

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
	oci "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/crid-project/crid/container/plan"
	"github.com/crid-project/crid/failpoint"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

// limits are what a container's limits are being changed to, as the record keeps
// it until it is known that they hold.
type limits struct {
	Resources   *oci.LinuxResources `json:"resources"`
	Annotations map[string]string   `json:"annotations,omitempty"`
}

// UpdateResources changes the limits of a container, running or created. What is
// about to hold is on record first, so that after a crash in between the limits
// that are shown are the limits that hold: Settle sets them again. An update that
// fails is undone.
func (c *Containers) UpdateResources(ctx context.Context, id string, u Update) error {
	v, err := c.Ledger.Container(id)
	if err != nil {
		return err
	}
	if v.State.Phase != lifecycle.Running && v.State.Phase != lifecycle.Created {
		return fmt.Errorf("update container %s: it is %s: %w", v.ID, v.State.Phase, errdefs.ErrFailedPrecondition)
	}
	err = c.intendLimits(ctx, v.ID, limits{u.Resources, u.Annotations}, u.Config)
	if err == nil {
		err = c.setLimits(ctx, v, limits{u.Resources, u.Annotations})
	}
	if err != nil {
		c.undoLimits(ctx, v, u)
		return fmt.Errorf("update container %s: %w", v.ID, err)
	}
	if _, err = c.Ledger.UpdateContainer(v.ID, func(v *store.Container) { v.Updating = nil }); err != nil {
		return err
	}
	return failpoint.At("u2")
}

// intendLimits puts limits and the configuration that shows them on record.
func (c *Containers) intendLimits(ctx context.Context, id string, l limits, config store.Sealed) error {
	wanted, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("encode limits: %w", err)
	}
	if _, err := c.Ledger.UpdateContainer(id, func(v *store.Container) { v.Config, v.Updating = config, wanted }); err != nil {
		return err
	}
	return c.Ledger.FlushContainer(ctx, id)
}

// setLimits has the shim set limits, or the bundle of what is not started yet say
// them. Idempotent.
func (c *Containers) setLimits(ctx context.Context, v *store.Container, l limits) error {
	if v.State.Phase == lifecycle.Created {
		return c.updateSpec(v.ID, l.Resources)
	}
	shim, err := c.Shims.Of(v.PodID)
	if err != nil {
		return err
	}
	if err := shim.Update(ctx, v.ID, l.Resources, l.Annotations); err != nil {
		if isNotFound(err) {
			c.askWhetherKnown(context.WithoutCancel(ctx), v)
		}
		return err
	}
	return failpoint.At("u1")
}

// undoLimits puts back what was before an update that failed, for it may have
// been made in part, or may yet be. Where that does not work either, the next
// start of crid tries.
func (c *Containers) undoLimits(ctx context.Context, v *store.Container, u Update) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rpcDeadline)
	defer cancel()
	before := limits{Resources: u.Before}
	err := c.intendLimits(ctx, v.ID, before, v.Config)
	if err == nil && u.Before != nil {
		err = c.setLimits(ctx, v, before)
	}
	if err != nil {
		c.Log.Warn("put the limits back of before an update that failed", "container", v.ID, "err", err)
		return
	}
	_, _ = c.Ledger.UpdateContainer(v.ID, func(v *store.Container) { v.Updating = nil })
}

// settleLimits sets limits anew that were being changed when the last run of crid
// ended.
func (c *Containers) settleLimits(ctx context.Context, v *store.Container) {
	if len(v.Updating) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, rpcDeadline)
	defer cancel()
	var l limits
	err := json.Unmarshal(v.Updating, &l)
	if err == nil && l.Resources != nil {
		err = c.setLimits(ctx, v, l)
	}
	if err != nil {
		c.Log.Error("set limits that were being changed when crid ended; what is shown may not hold", "container", v.ID, "err", err)
		return
	}
	_, _ = c.Ledger.UpdateContainer(v.ID, func(v *store.Container) { v.Updating = nil })
}

// updateSpec changes the limits in the bundle of a container not yet started.
func (c *Containers) updateSpec(id string, r *oci.LinuxResources) error {
	spec, err := c.Spec(id)
	if err != nil {
		return err
	}
	if spec.Linux == nil {
		spec.Linux = &oci.Linux{}
	}
	merged := plan.MergeResources(spec.Linux.Resources, r)
	spec.Linux.Resources = merged
	return c.writeBundle(id, spec)
}
