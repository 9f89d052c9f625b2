package fake

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/pidfd"
)

// World is a kernel with its processes, and the disk on which runtimes keep
// their state.
type World struct {
	mu         sync.Mutex
	lastPid    int
	ticks      uint64
	procs      map[int]*Process
	shims      map[string]*server  // by id: the address
	programs   map[string][]string // by container id
	runtime    map[string]*Process // the OCI runtime's state: init by container id
	sockets    map[string]bool     // stale sockets included
	shared     map[string]bool     // containers that share a process namespace
	fault      func(Call) Fault
	loseEvents bool
	deaf       bool
	hooks      Hooks
	events     chan shimclient.Event
}

// Hooks are told what happens, with the world's lock held: they must not call
// the world. Each may be nil.
type Hooks struct {
	// Bundle answers whether a bundle is there: without it nothing is created.
	Bundle func(path string) bool
	// Created: a container's init is there and waits for its start.
	Created func(shim string, c shimclient.Create, init *Process)
	// Started: a container's workload begins.
	Started func(id string, init *Process)
	// Entered: an exec's process begins.
	Entered func(id string, p *Process)
	// Knows: the OCI runtime has begun or ceased to know a container.
	Knows func(id string, knows bool)
	// Folder answers whether a container's folder is there: without it there is no
	// delete command for it.
	Folder func(path string) bool
	// Thaws: the OCI runtime thaws the cgroup of a container that it kills.
	Thaws func(id string)
	// KillsAll: a shim ends what is left of a container that has no process namespace
	// of its own.
	KillsAll func(id string)
	// Ended: a process has ended.
	Ended func(p *Process)
}

// SetHooks takes the place of hooks set before.
func (w *World) SetHooks(h Hooks) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hooks = h
}

// Spawn starts a process that belongs to no shim.
func (w *World) Spawn(program ...string) *Process {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.spawn(0, program)
}

// know sets what the OCI runtime knows; nil: nothing. With the world's lock held.
func (w *World) know(id string, p *Process) {
	if p == nil {
		delete(w.runtime, id)
	} else {
		w.runtime[id] = p
	}
	if w.hooks.Knows != nil {
		w.hooks.Knows(id, p != nil)
	}
}

// NewWorld makes an empty world.
func NewWorld() *World {
	return &World{
		lastPid: firstPid, ticks: firstTick,
		procs: map[int]*Process{}, shims: map[string]*server{}, programs: map[string][]string{},
		runtime: map[string]*Process{}, sockets: map[string]bool{}, shared: map[string]bool{},
		events: make(chan shimclient.Event, 4096),
	}
}

// SetProgram says what the container id will run once it is started: "sleep",
// "stubborn" or "exit N". Without one it sleeps.
func (w *World) SetProgram(id string, args ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.programs[id] = args
}

// SharePID says that the container has no process namespace of its own: the end
// of its init takes nobody along.
func (w *World) SharePID(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.shared[id] = true
}

// ForgetTask has the shim forget a container, which goes on as before.
func (w *World) ForgetTask(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, srv := range w.shims {
		if c := srv.containers[id]; c != nil && c.jammed == nil {
			delete(srv.containers, id)
		}
	}
}

// Reboot ends everything. Pids and start times are given anew from the first on.
func (w *World) Reboot() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.procs {
		p.onEnd, p.holds, p.dying = nil, nil, false
		p.watches = nil // who watched is dead as well
		p.end(killedStatus)
	}
	for id := range w.runtime {
		w.know(id, nil)
	}
	for _, srv := range w.shims {
		srv.kept = nil
	}
	clear(w.procs)
	clear(w.shims)
	clear(w.sockets)
	w.lastPid, w.ticks = firstPid, firstTick
}

const (
	firstPid  = 100
	firstTick = 1000
)

// Launch starts a shim. If one of this id is up it is returned, as the real
// start command does; over a dead one's socket a new, empty one is made.
func (w *World) Launch(ctx context.Context, l shimclient.Launch) (*Shim, error) {
	if err := w.interfere(ctx, Call{Shim: l.ID, Method: "Launch"}); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	srv := w.shims[l.ID]
	if w.hooks.Bundle != nil && !w.hooks.Bundle(l.Bundle) {
		return nil, fmt.Errorf("no bundle %s: %w", l.Bundle, errdefs.ErrUnknown)
	}
	if srv == nil || srv.proc.Exited() {
		srv = newServer(w, l)
		w.shims[l.ID] = srv
		w.sockets[l.ID] = true
	}
	w.mu.Unlock()
	s := newShim(srv)
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	// As the real one, it asks who has answered.
	_, err := s.attempt(ctx, "Connect", "", "", func() error { return nil })
	w.mu.Lock()
	if err != nil {
		return nil, fmt.Errorf("launch shim %s: %w", l.ID, err)
	}
	return s, nil
}

// connectTime is how long the first call of a connection may take.
const connectTime = 5 * time.Second

// Predict tells what Launch will start, without its process.
func (w *World) Predict(l shimclient.Launch) shimclient.Ref {
	return shimclient.Ref{ID: l.ID, Address: "/fake/" + l.ID, Binary: l.Runtime.Path, Bundle: l.Bundle}
}

// Adopt connects to the shim that ref names; as shimclient.Host.Adopt it returns
// a Shim together with ErrUnreachable.
func (w *World) Adopt(ctx context.Context, ref shimclient.Ref) (*Shim, error) {
	if err := w.interfere(ctx, Call{Shim: ref.ID, Method: "Adopt"}); err != nil {
		return nil, err
	}
	w.mu.Lock()
	srv := w.shims[ref.ID]
	p := w.procs[ref.Process.Pid]
	w.mu.Unlock()
	if p == nil || p.ident != ref.Process || p.Exited() {
		return nil, fmt.Errorf("adopt shim %s: %w", ref.ID, shimclient.ErrGone)
	}
	if srv == nil || srv.proc != p {
		return nil, fmt.Errorf("adopt shim %s: another shim is there: %w", ref.ID, shimclient.ErrUnreachable)
	}
	s := newShim(srv)
	if _, err := s.Connect(ctx, ref.ID); err != nil {
		return s, fmt.Errorf("adopt shim %s: %w", ref.ID, err)
	}
	return s, nil
}

// FindUnrecorded returns the shim that is up under a predicted ref.
func (w *World) FindUnrecorded(ctx context.Context, predicted shimclient.Ref) (*Shim, error) {
	w.mu.Lock()
	srv := w.shims[predicted.ID]
	w.mu.Unlock()
	if srv == nil || srv.proc.Exited() {
		return nil, fmt.Errorf("find shim %s: %w", predicted.ID, errdefs.ErrNotFound)
	}
	return w.Adopt(ctx, srv.ref)
}

// Kill kills a shim, as shimclient.Host.Kill does.
func (w *World) Kill(ctx context.Context, ref shimclient.Ref) error {
	if err := w.interfere(ctx, Call{Shim: ref.ID, Method: "KillShim"}); err != nil {
		return err
	}
	w.mu.Lock()
	srv := w.shims[ref.ID]
	w.mu.Unlock()
	if srv == nil || ref.Process.Pid != 0 && srv.ref.Process != ref.Process {
		return nil
	}
	_ = srv.proc.Signal(unix.SIGKILL) // dead already is as well
	select {
	case <-srv.proc.Done():
	case <-ctx.Done():
		return fmt.Errorf("kill shim %s: %w", ref.ID, ctx.Err())
	}
	return nil
}

// DeleteTask is the delete command: it kills the process that the runtime's
// state names, if there is one, tries so for 10 s, and says nil whatever came of it.
func (w *World) DeleteTask(ctx context.Context, bundle, id string) error {
	if err := w.interfere(ctx, Call{Method: "DeleteTask", ID: id}); err != nil {
		return err
	}
	w.mu.Lock()
	if w.hooks.Folder != nil && !w.hooks.Folder(bundle) {
		w.mu.Unlock()
		return fmt.Errorf("delete task %s: bundle %s: %w", id, bundle, errdefs.ErrNotFound)
	}
	p := w.runtime[id]
	if p != nil {
		if c := w.containerOf(p); c != nil {
			w.thaw(c)
		}
		p.freeze(false)
		_ = p.signal(unix.SIGKILL)
	}
	w.mu.Unlock()
	if p == nil {
		return nil
	}
	patience := time.NewTimer(10 * time.Second)
	defer patience.Stop()
	select {
	case <-p.Done():
	case <-patience.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("delete task %s: %w: %w", id, errdefs.ErrUnavailable, ctx.Err())
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.runtime[id] == p {
		w.know(id, nil)
	}
	return nil
}

// containerOf is called with the world's lock held.
func (w *World) containerOf(p *Process) *container {
	for _, srv := range w.shims {
		for _, c := range srv.containers {
			if c.proc == p {
				return c
			}
		}
	}
	return nil
}

// thaw is called with the world's lock held.
func (w *World) thaw(c *container) {
	for _, t := range append(execsOf(c), &c.task) {
		if t.proc != nil && t.proc.frozen {
			t.proc.freeze(false)
		}
	}
	if w.hooks.Thaws != nil {
		w.hooks.Thaws(c.name)
	}
}

// ForgetRuntimeState loses what the OCI runtime knows of a container.
func (w *World) ForgetRuntimeState(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.know(id, nil)
}

// Process returns who has the pid now, zombies included; nil if nobody.
func (w *World) Process(pid int) *Process {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.procs[pid]
}

// Lookup returns the process with this name, even if it is dead by now; nil if
// its pid is another's or it never was.
func (w *World) Lookup(id pidfd.Process) *Process {
	if p := w.Process(id.Pid); p != nil && p.ident == id {
		return p
	}
	return nil
}

// Recycle gives the pid of a dead process to a new one, a bystander.
func (w *World) Recycle(pid int) *Process {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.procs[pid]; p != nil && !p.ended {
		return p
	}
	return w.spawn(pid, []string{"sleep"})
}
