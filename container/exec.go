package container

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/containerd/errdefs"
	oci "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/crid-project/crid/container/plan"
	"github.com/crid-project/crid/container/stdio"
	"github.com/crid-project/crid/failpoint"
	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

// Exec runs a further process in a running container and answers its exit code.
func (c *Containers) Exec(ctx context.Context, id string, r stdio.ExecRequest) (int, error) {
	v, shim, err := c.task(id, "exec in")
	if err != nil {
		return 0, err
	}
	spec, err := c.Spec(v.ID)
	if err != nil {
		return 0, err
	}
	proc := plan.ExecProcess(spec, r.Cmd, r.TTY)
	code, err := stdio.Exec(ctx, shim, v.ID, proc, filepath.Join(c.Bundle(v.ID), "execs"), r)
	if err != nil {
		if isNotFound(err) {
			c.askWhetherKnown(context.WithoutCancel(ctx), v)
		}
		return 0, fmt.Errorf("exec in container %s: %w", v.ID, err)
	}
	return code, nil
}

// Attach carries a running container's streams to and from a client, until
// either ends.
func (c *Containers) Attach(ctx context.Context, id string, r stdio.AttachRequest) error {
	v, shim, err := c.task(id, "attach to")
	if err != nil {
		return err
	}
	s := c.stream(v.ID)
	if s == nil {
		return fmt.Errorf("attach to container %s: its streams are not open: %w", v.ID, errdefs.ErrUnavailable)
	}
	r.TTY = v.TTY
	if !v.Stdin {
		r.Stdin = nil
	}
	return s.attach(ctx, shim, v.ID, r)
}

// task answers a running container and its shim.
func (c *Containers) task(id, what string) (*store.Container, shimclient.Tasks, error) {
	v, err := c.Ledger.Container(id)
	if err != nil {
		return nil, nil, err
	}
	if v.State.Phase != lifecycle.Running {
		return nil, nil, fmt.Errorf("%s container %s: it is not running but %s: %w", what, v.ID, v.State.Phase, errdefs.ErrFailedPrecondition)
	}
	shim, err := c.Shims.Of(v.PodID)
	if err != nil {
		return nil, nil, fmt.Errorf("%s container %s: %w", what, v.ID, err)
	}
	return v, shim, nil
}

// UpdateResources changes the limits of a container, running or created.
func (c *Containers) UpdateResources(ctx context.Context, id string, u Update) error {
	v, err := c.Ledger.Container(id)
	if err != nil {
		return err
	}
	switch v.State.Phase {
	case lifecycle.Running:
		shim, err := c.Shims.Of(v.PodID)
		if err != nil {
			return fmt.Errorf("update container %s: %w", v.ID, err)
		}
		if err := shim.Update(ctx, v.ID, u.Resources, u.Annotations); err != nil {
			if isNotFound(err) {
				c.askWhetherKnown(context.WithoutCancel(ctx), v)
			}
			return fmt.Errorf("update container %s: %w", v.ID, err)
		}
		if err := failpoint.At("u1"); err != nil {
			return err
		}
	case lifecycle.Created:
		if err := c.updateSpec(v.ID, u.Resources); err != nil {
			return err
		}
	case lifecycle.Making, lifecycle.Starting, lifecycle.Exited, lifecycle.Removing, lifecycle.Gone:
		return fmt.Errorf("update container %s: it is %s: %w", v.ID, v.State.Phase, errdefs.ErrFailedPrecondition)
	}
	if _, err = c.Ledger.UpdateContainer(v.ID, func(v *store.Container) { v.Config = u.Config }); err != nil {
		return err
	}
	return failpoint.At("u2")
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
