package sim

import (
	"context"
	"errors"
	"fmt"
	"time"

	oci "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/crid-project/crid/container"
	"github.com/crid-project/crid/container/stdio"
)

// What clients do to containers that run.

// enter runs a process in a container: one that ends by itself, or one that has
// to be ended when its time is up.
func (c *client) enter(id string) {
	code, tag := 1+c.n(40), fmt.Sprint(c.name, " ", c.n(1<<30))
	req := stdio.ExecRequest{Cmd: []string{"x", "exit", fmt.Sprint(code)}}
	sleeps := c.chance(0.5)
	if sleeps {
		req.Cmd, req.Timeout = []string{"x", "stubborn", tag}, c.between(time.Second, 5*time.Second)
	}
	got, by, began := 0, 0, time.Now()
	err := c.s.ask(c.dice, c.patience(), func(ctx context.Context, r *run) (err error) {
		by = r.no
		got, err = r.containers.Exec(ctx, id, req)
		return err
	})
	c.m.note("%s: exec in %s: code %d, %v", c.name, short(id), got, err)
	if sleeps && !errors.Is(err, errGone) {
		c.m.giveUp(tag, by)
	}
	w, _ := c.m.truth(id)
	switch {
	case err == nil && !sleeps && got != code && (got != 137 || w.init != nil && !w.init.Exited()):
		c.m.violated("exec", "a process in %s ended with %d, and %d was answered", short(id), code, got)
	case err == nil && sleeps && w.init != nil && !w.init.Exited() && !c.m.calmed(began):
		return // somebody else may have ended it
	case err == nil && sleeps && w.init != nil && !w.init.Exited():
		c.m.violated("exec", "a process in %s that sleeps ended with %d before its time was up", short(id), got)
	}
}

// calmed reports whether there were no faults since.
func (m *machine) calmed(since time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calm && m.calmAt.Before(since)
}

// giveUp notes that nobody waits any more for the exec with the tag.
func (m *machine) giveUp(tag string, by int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tags[tag] = by
}

// givenUp answers an exec that this run of crid gave up and that lives.
func (m *machine) givenUp(id string, run int) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.byID[id]
	if w == nil || m.unknown[id] { // then nobody can end one process of it
		return ""
	}
	for _, p := range w.execs {
		if args := p.Program(); len(args) > 1 && m.tags[args[1]] == run && !p.Exited() {
			return args[1]
		}
	}
	return ""
}

// update changes the limits of a container, and with them its configuration.
func (c *client) update(id string) {
	config := fmt.Sprint("limits ", c.n(1<<30))
	c.s.eye.promise(id, func(p *promise) { p.config = "" })
	u := container.Update{Resources: &oci.LinuxResources{}, Config: sealed(config)}
	err := c.s.ask(c.dice, c.patience(), func(ctx context.Context, r *run) error { return r.containers.UpdateResources(ctx, id, u) })
	c.m.note("%s: update of %s: %v", c.name, short(id), err)
	if err == nil {
		c.s.eye.promise(id, func(p *promise) { p.config = config })
	}
}
