package container

import (
	"errors"

	"github.com/containerd/errdefs"

	"github.com/crid-project/crid/store"
)

// Holder has the read ends of output pipes open as well, in a process that
// outlives this one: what a container writes and leaves in its pipes while crid
// is away is still there when crid comes back. *holder.Holder is one. No method
// waits for longer than a few seconds.
type Holder interface {
	// Hold has the fifos at paths held until Drop.
	Hold(id string, paths ...string) error
	// Drop lets go of them. Idempotent.
	Drop(id string)
	// Keep has exactly these held, paths by id.
	Keep(map[string][]string)
}

// KeepOutput says what of an earlier run may still be in pipes, or on its way from
// there to a log. Called once, before Adopt, and before holders of another version
// end.
func (c *Containers) KeepOutput() {
	want := map[string][]string{}
	for _, v := range c.Ledger.Containers() {
		if v.State.Alive() || v.State.Dirty {
			want[v.ID] = (&streams{dir: c.ioDir(v.ID), tty: v.TTY}).outputs()
		}
	}
	if c.Holder != nil {
		c.Holder.Keep(want)
	}
	c.Buffers.Keep(func(id string) bool { return want[id] != nil })
}

// holdOutput comes before anybody writes. A container runs without as well.
func (c *Containers) holdOutput(v *store.Container, s *streams) {
	if c.Holder == nil {
		return
	}
	// That there is no holder has been logged by itself.
	if err := c.Holder.Hold(v.ID, s.outputs()...); err != nil && !errors.Is(err, errdefs.ErrUnavailable) {
		c.Log.Warn("output is not held: what the container writes last is lost if it ends while crid is down", "container", v.ID, "err", err)
	}
}

// dropOutput comes when all of it is in the log, or nobody wants it.
func (c *Containers) dropOutput(id string) {
	if c.Holder != nil {
		c.Holder.Drop(id)
	}
	c.Buffers.Drop(id)
}

func (s *streams) outputs() []string {
	if s.tty {
		return []string{s.stdoutPath()}
	}
	return []string{s.stdoutPath(), s.stderrPath()}
}
