package container

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/singleflight"

	"github.com/crid-project/crid/container/gate"
	"github.com/crid-project/crid/container/logs"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
	"github.com/crid-project/crid/store/upkeep"
)

// Config is what the hands need.
type Config struct {
	Ledger   *store.Ledger
	Shims    Shims
	Handlers Handlers
	Images   Images
	Users    Users
	Kernel   Kernel
	// Follow has a container's output pipe followed; nil: as [logs.Log.Follow] does.
	Follow func(log *logs.Log, stream logs.Stream, pipe string) (Tail, error)
	// Holder keeps output readable while crid is away; nil: nobody does.
	Holder Holder
	// Buffers keep what is on its way to the logs if crid is killed; nil: nobody does.
	Buffers *logs.Buffers
	// StateDir holds the bundles, RootDir what must not lie in memory.
	StateDir, RootDir string
	// CgroupDriver is "cgroupfs" or "systemd".
	CgroupDriver string
	// CgroupParent is used for pods that ask for none.
	CgroupParent string
	// MaxLogLine is the longest part of a log line, in bytes.
	MaxLogLine int
	Log        *slog.Logger
}

// Bounds on single steps. None of them is a death: a step that did not answer
// is looked into or tried again.
const (
	makeDeadline   = 2 * time.Minute
	launchDeadline = 2 * time.Minute
	rpcDeadline    = 10 * time.Second
	cleanDeadline  = 30 * time.Second
	// askDeadline is how long the shim is asked for an exit code that the
	// kernel could not tell.
	askDeadline = time.Second
	// drainDeadline is how long an exit waits for output still in the pipes.
	drainDeadline = time.Second
	flushDeadline = 10 * time.Second
)

// Containers works on the containers of the ledger.
type Containers struct {
	Config
	desk upkeep.Desk

	mu      sync.Mutex
	running map[string]*grip
	streams map[string]*streams
	// interrupted are starts that the end of the last run cut short, until it is
	// known how far they came.
	interrupted map[string]bool
	// left are execs that nobody waits for any more, by container, until they are
	// seen to: the last run left them, or their shim did not answer.
	left     map[string][]string
	starts   *gate.Gate // of execs
	settling singleflight.Group
}

// grip is the hold on a container's main process.
type grip struct {
	proc  Proc
	watch sync.Once
	timer *time.Timer // ends the grace period
	due   int64       // when, as in lifecycle.Container.KillAt
}

// New answers hands that have done nothing yet; Adopt takes up what the ledger
// holds of an earlier run.
func New(cfg Config) *Containers {
	if cfg.Follow == nil {
		cfg.Follow = func(log *logs.Log, stream logs.Stream, pipe string) (Tail, error) { return log.Follow(stream, pipe) }
	}
	c := &Containers{Config: cfg, running: map[string]*grip{}, streams: map[string]*streams{}, interrupted: map[string]bool{}, left: map[string][]string{}, starts: gate.New()}
	c.desk = upkeep.Desk{Kind: "container", Log: cfg.Log, Do: c.do, Owes: func(id string) lifecycle.Work {
		v, err := c.Ledger.Container(id)
		if err != nil || v.ID != id {
			return 0
		}
		return v.State.Owes()
	}}
	return c
}

// Close lets go of all processes and streams and leaves them as they are.
func (c *Containers) Close(ctx context.Context) {
	c.desk.Close(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, g := range c.running {
		g.letGo()
	}
	for _, s := range c.streams {
		s.close()
	}
	clear(c.running)
	clear(c.streams)
}

func (g *grip) letGo() {
	if g.timer != nil {
		g.timer.Stop()
	}
	_ = g.proc.Close()
}

// Tend sees to it that what the container owes is under way.
func (c *Containers) Tend(id string) {
	if v, err := c.Ledger.Container(id); err == nil {
		c.schedule(v)
		if v.State.Phase == lifecycle.Starting && v.State.Stop == lifecycle.Killing {
			c.desk.Cancel(id, lifecycle.Launch)
		}
	}
	c.desk.Tend(id)
}

// Late answers work that has been owed for longer than age.
func (c *Containers) Late(age time.Duration) []upkeep.Late { return c.desk.Late(age) }

// step puts an event to the law and tends to what it owes then.
func (c *Containers) step(id string, e lifecycle.Event, also ...func(*store.Container)) (*store.Container, error) {
	v, err := c.Ledger.StepContainer(id, e, also...)
	if err != nil {
		return v, err
	}
	c.Tend(id)
	return v, nil
}

// do does one work once.
func (c *Containers) do(ctx context.Context, id string, w lifecycle.Work) error {
	v, err := c.Ledger.Container(id)
	if err != nil {
		return nil //nolint:nilerr // it is gone: nothing is owed
	}
	if v.State.Owes()&w == 0 {
		return nil // done since
	}
	switch w { //nolint:exhaustive // the rest are a pod's
	case lifecycle.Launch:
		return c.launch(ctx, v)
	case lifecycle.Term:
		return c.term(ctx, v)
	case lifecycle.Kill:
		return c.kill(ctx, v)
	case lifecycle.Reap:
		return c.reap(ctx, v)
	case lifecycle.Erase:
		return c.erase(ctx, v)
	}
	return nil
}

// schedule sets the timer of a grace period, anew if it was shortened.
func (c *Containers) schedule(v *store.Container) {
	if v.State.Stop != lifecycle.TermOwed && v.State.Stop != lifecycle.Termed {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.running[v.ID]
	if g == nil || g.timer != nil && g.due == v.State.KillAt {
		return
	}
	if g.timer != nil {
		g.timer.Stop()
	}
	id := v.ID
	g.due = v.State.KillAt
	g.timer = time.AfterFunc(time.Duration(v.State.KillAt-c.Kernel.Now()), func() {
		_, _ = c.step(id, lifecycle.Due{Now: c.Kernel.Now()})
	})
}

func (c *Containers) grip(id string) *grip {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.running[id]
}

// hold takes hold of a main process and has its end reported, once the state
// says Running; see watch.
func (c *Containers) hold(id string, p store.Process) (*grip, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g := c.running[id]; g != nil {
		return g, nil
	}
	proc, err := c.Kernel.Open(asPidfd(p))
	if err != nil {
		return nil, err
	}
	g := &grip{proc: proc}
	c.running[id] = g
	return g, nil
}

func (c *Containers) release(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g := c.running[id]; g != nil {
		g.letGo()
		delete(c.running, id)
	}
}

// Bundle is the folder of a container's bundle.
func (c *Containers) Bundle(id string) string { return filepath.Join(c.StateDir, "containers", id) }

func (c *Containers) rootfs(id string) string { return filepath.Join(c.Bundle(id), "rootfs") }

func isNotFound(err error) bool { return errors.Is(err, errdefs.ErrNotFound) }
