package container

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/crid-project/crid/container/plan"
	"github.com/crid-project/crid/container/stdio"
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
	r.Enter = func(ctx context.Context) (func(), error) { return c.starts.Enter(ctx, v.PodID) }
	r.Left = func(execID string) { c.leftExec(v.ID, execID) }
	code, err := stdio.Exec(ctx, shim, v.ID, proc, c.execs(v.ID), r)
	if err != nil {
		if isNotFound(err) {
			c.askWhetherKnown(context.WithoutCancel(ctx), v)
		}
		return 0, fmt.Errorf("exec in container %s: %w", v.ID, err)
	}
	return code, nil
}

// noteExecs takes down, before there can be new ones, the execs that the last run
// of crid was running in a container.
func (c *Containers) noteExecs(v *store.Container) {
	names, err := stdio.Left(c.execs(v.ID))
	if err != nil {
		c.Log.Warn("look for execs of an earlier run", "container", v.ID, "err", err)
	}
	if len(names) > 0 {
		c.mu.Lock()
		c.left[v.ID] = append(c.left[v.ID], names...)
		c.mu.Unlock()
	}
}

// leftExec takes down an exec that could not be ended because its shim did not
// answer.
func (c *Containers) leftExec(id, execID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left[id] = append(c.left[id], execID)
}

// EndExecs ends the execs that nobody waits for any more and that could not be
// ended before, of every container whose shim answers by now. To be called now
// and then.
func (c *Containers) EndExecs(ctx context.Context) {
	c.mu.Lock()
	ids := slices.Collect(maps.Keys(c.left))
	c.mu.Unlock()
	for _, id := range ids {
		v, err := c.Ledger.Container(id)
		if err != nil || v.State.Phase != lifecycle.Running {
			c.mu.Lock()
			delete(c.left, id) // they went with it
			c.mu.Unlock()
			continue
		}
		shim, err := c.Shims.Of(v.PodID)
		if err != nil {
			continue
		}
		c.Shims.Unstick(ctx, v.PodID, v.ID, false) // the exec's own command may be what hangs
		ask, cancel := context.WithTimeout(ctx, execsDeadline)
		_, err = shim.Connect(ask, v.PodID)
		cancel()
		if err == nil || !errors.Is(err, shimclient.ErrUnreachable) {
			c.endExecs(v)
		}
	}
}

// execsDeadline is how long a shim may take to say that it answers.
const execsDeadline = 2 * time.Second

// endExecs ends those of one container. In the background, within a bound.
func (c *Containers) endExecs(v *store.Container) {
	shim, err := c.Shims.Of(v.PodID)
	if err != nil {
		return // a dead shim takes the container along
	}
	c.mu.Lock()
	names := c.left[v.ID]
	delete(c.left, v.ID)
	c.mu.Unlock()
	if len(names) == 0 {
		return
	}
	c.Log.Info("ending execs that nobody waits for", "container", v.ID, "execs", len(names))
	for _, name := range names {
		stdio.EndLeft(shim, v.ID, name, c.execs(v.ID), func(execID string) { c.leftExec(v.ID, execID) })
	}
}

// execs is where the pipes of a container's execs lie, a folder for each.
func (c *Containers) execs(id string) string { return filepath.Join(c.Bundle(id), "execs") }

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
