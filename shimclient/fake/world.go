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
	hooks      Hooks
	events     chan shimclient.Event
}

// Call is one RPC that is about to be made.
type Call struct {
	Shim, Method, ID, ExecID string
}

// Fault is what befalls a call. The zero Fault is none.
type Fault struct {
	// Delay comes before the effect. The caller's deadline ends the waiting.
	Delay time.Duration
	// Hang never answers: ErrUnreachable at the deadline. The effect takes place
	// all the same if After is set.
	Hang bool
	// Late never answers in time either, and takes effect so much later, whether
	// anybody still waits or not: the request lies in a socket of a slow shim.
	Late time.Duration
	// Outlives is a late call that not even the end of its connection cancels: the
	// OCI runtime has it already, and goes on while its shim hangs and after it.
	Outlives bool
	// Err is what the call returns, instead of its effect or After it.
	Err   error
	After bool
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

// SetFault has f asked about every call to come, outside the world's lock. Nil
// takes it away.
func (w *World) SetFault(f func(Call) Fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = f
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
		p.onEnd = nil
		p.watches = nil // who watched is dead as well
		p.end(killedStatus)
	}
	for id := range w.runtime {
		w.know(id, nil)
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

// LoseEvents makes events vanish from now on, until it is called with false.
func (w *World) LoseEvents(lose bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loseEvents = lose
}

// Publish puts any event, forged or repeated, into the stream.
func (w *World) Publish(e shimclient.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.publish(e)
}

func (w *World) publish(e shimclient.Event) {
	if w.loseEvents {
		return
	}
	select {
	case w.events <- e:
	default:
	}
}

// Events gives what the shims published. When it is full, events are lost.
func (w *World) Events() <-chan shimclient.Event { return w.events }

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
	return newShim(srv), nil
}

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
// state names, if there is one, and says nil whatever came of it.
func (w *World) DeleteTask(ctx context.Context, id string) error {
	if err := w.interfere(ctx, Call{Method: "DeleteTask", ID: id}); err != nil {
		return err
	}
	w.mu.Lock()
	p := w.runtime[id]
	w.mu.Unlock()
	if p != nil {
		_ = p.Signal(unix.SIGKILL)
		if p.Exited() {
			w.mu.Lock()
			w.know(id, nil)
			w.mu.Unlock()
		}
	}
	return nil
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

// interfere applies the fault for calls that no shim answers.
func (w *World) interfere(ctx context.Context, c Call) error {
	f := w.faultFor(c)
	if err := pauseFor(ctx, f, nil); err != nil {
		return fmt.Errorf("%s: %w", c.Method, err)
	}
	return f.Err
}

func (w *World) faultFor(c Call) Fault {
	w.mu.Lock()
	f := w.fault
	w.mu.Unlock()
	if f == nil {
		return Fault{}
	}
	return f(c)
}

// pauseFor waits out a fault's delay, or for ever.
func pauseFor(ctx context.Context, f Fault, gone <-chan struct{}) error {
	var timer <-chan time.Time
	switch {
	case f.Hang && !f.After:
	case f.Delay > 0:
		t := time.NewTimer(f.Delay)
		defer t.Stop()
		timer = t.C
	default:
		return nil
	}
	select {
	case <-timer:
		return nil
	case <-gone:
		return shimclient.ErrGone
	case <-ctx.Done():
		return unreachable(ctx)
	}
}

func unreachable(ctx context.Context) error {
	if ctx.Err() == context.Canceled {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", shimclient.ErrUnreachable, ctx.Err())
}
