package fake

import (
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/pidfd"
)

// server is a shim process and what it knows. All of it is under the world's
// lock.
type server struct {
	w          *World
	ref        shimclient.Ref
	proc       *Process
	containers map[string]*container
	// exits are processes of ours that have ended and are not looked after yet.
	// The real shim has one goroutine for them all: a runtime command that hangs
	// for one container keeps back everything that ends after.
	exits []*task
	// kept are the offers of events that fell due while the shim was stopped.
	kept []func()
}

type container struct {
	task
	name     string
	execs    map[string]*task
	last     *task         // the init, which has ended and is to be told after its execs
	jammed   chan struct{} // not nil while a runtime command for it hangs
	jammedAt time.Time
}

// task is an init or an exec's process, as the shim sees it.
type task struct {
	container *container
	execID    string
	proc      *Process // nil until started, for execs
	program   []string
	status    shimclient.Status
	exit      shimclient.Exit
	stopped   chan struct{}
}

func newServer(w *World, l shimclient.Launch) *server {
	srv := &server{w: w, ref: w.Predict(l), containers: map[string]*container{}}
	srv.proc = w.spawn(0, nil)
	srv.proc.onCont = func() {
		srv.reap()
		kept := srv.kept
		srv.kept = nil
		for _, offer := range kept {
			offer()
		}
	}
	srv.proc.onEnd = func() {
		srv.proc.reaped = true
		srv.reap()
	}
	srv.ref.Process, srv.ref.Version = srv.proc.ident, 3
	return srv
}

// adopt makes the shim notice the end of t's process.
func (srv *server) adopt(t *task) {
	init := t.container.proc
	if t.execID == "" && !srv.w.shared[t.container.name] {
		// The first process of a process namespace takes the others along, and does
		// not end before them.
		t.proc.holds = func() bool { return t.container.killExecs() }
	}
	t.proc.onEnd = func() {
		srv.exits = append(srv.exits, t)
		srv.reap()
		if init.dying && !t.container.killExecs() && !init.ended { // the last one killed may have ended it already
			init.finish()
		}
	}
}

// killExecs kills the processes of all execs and reports whether one of them
// lives on.
func (c *container) killExecs() bool {
	left := false
	for _, x := range c.execs {
		if x.proc != nil && !x.proc.ended {
			_ = x.proc.signal(unix.SIGKILL)
			left = left || !x.proc.ended
		}
	}
	return left
}

// reap looks after what has ended, in order, as far as it gets.
func (srv *server) reap() {
	for len(srv.exits) > 0 {
		t := srv.exits[0]
		if srv.proc.ended {
			t.proc.reaped = true // as an orphan
			srv.exits = srv.exits[1:]
			continue
		}
		if srv.proc.stopped {
			return
		}
		t.proc.reaped = true // the shim's reaper does not wait for what is made of it
		c := t.container
		if t.execID == "" && c.jammed != nil {
			return
		}
		srv.exits = srv.exits[1:]
		if t.execID == "" && srv.w.shared[c.name] && srv.w.runtime[c.name] == t.proc {
			srv.w.thaw(c)
			c.killExecs()
			if srv.w.hooks.KillsAll != nil {
				srv.w.hooks.KillsAll(c.name)
			}
		}
		if t.execID == "" && c.execRuns() {
			c.last = t // told when the execs are
			continue
		}
		srv.tell(t)
		if c.last != nil && !c.execRuns() {
			srv.tell(c.last)
			c.last = nil
		}
	}
}

// execRuns reports whether the shim takes an exec for running.
func (c *container) execRuns() bool {
	for _, x := range c.execs {
		if x.status == shimclient.StatusRunning {
			return true
		}
	}
	return false
}

// tell makes the end of a process known.
func (srv *server) tell(t *task) {
	if srv.containers[t.container.name] != t.container || t.status == shimclient.StatusStopped {
		return
	}
	t.status = shimclient.StatusStopped
	t.exit = shimclient.Exit{Pid: t.proc.ident.Pid, Code: t.proc.status.Code(), At: time.Now()}
	close(t.stopped)
	srv.publish(shimclient.ExitEvent, t)
}

func (srv *server) publish(kind shimclient.Kind, t *task) {
	e := shimclient.Event{Kind: kind, ID: t.container.name, ExecID: t.execID, At: time.Now()}
	if t.proc != nil && kind != shimclient.PausedEvent && kind != shimclient.ResumedEvent {
		e.Pid = t.proc.ident.Pid
	}
	if kind == shimclient.ExitEvent || kind == shimclient.DeleteEvent {
		e.Code, e.At = t.exit.Code, t.exit.At
	}
	srv.forward(e, 0)
}

// find returns the task of a call.
func (srv *server) find(id, execID string) (*task, error) {
	c := srv.containers[id]
	if c == nil {
		return nil, fmt.Errorf("container %s: %w", id, errdefs.ErrNotFound)
	}
	if execID == "" {
		return &c.task, nil
	}
	t := c.execs[execID]
	if t == nil {
		return nil, fmt.Errorf("process %s: %w", execID, errdefs.ErrNotFound)
	}
	return t, nil
}

func (srv *server) create(c shimclient.Create) (int, error) {
	w := srv.w
	if srv.containers[c.ID] != nil || w.runtime[c.ID] != nil {
		return 0, fmt.Errorf("container with given ID already exists: %w", errdefs.ErrUnknown)
	}
	if w.hooks.Bundle != nil && !w.hooks.Bundle(c.Bundle) {
		return 0, fmt.Errorf("no bundle %s: %w", c.Bundle, errdefs.ErrUnknown)
	}
	program := w.programs[c.ID]
	if len(program) == 0 {
		program = []string{"sleep"}
	}
	ct := &container{name: c.ID, execs: map[string]*task{}}
	ct.task = task{container: ct, status: shimclient.StatusCreated, stopped: make(chan struct{})}
	ct.proc = w.spawn(0, program)
	ct.proc.begun = false
	srv.adopt(&ct.task)
	srv.containers[c.ID] = ct
	w.know(c.ID, ct.proc)
	if w.hooks.Created != nil {
		w.hooks.Created(srv.ref.ID, c, ct.proc)
	}
	srv.publish(shimclient.CreateEvent, &ct.task)
	return ct.proc.ident.Pid, nil
}

func (srv *server) start(t *task) (int, error) {
	if t.status != shimclient.StatusCreated {
		return 0, fmt.Errorf("cannot start a %s process: %w", t.status, errdefs.ErrFailedPrecondition)
	}
	if t.execID != "" {
		if t.container.status != shimclient.StatusRunning {
			return 0, fmt.Errorf("container %s init process is not running: %w", t.container.name, errdefs.ErrFailedPrecondition)
		}
		if init := t.container.proc; init.ended || init.dying { // the runtime looks itself
			return 0, fmt.Errorf("cannot exec in a stopped container: %w", errdefs.ErrUnknown)
		}
		if t.container.proc.frozen {
			return 0, fmt.Errorf("cannot exec in a paused container: %w", errdefs.ErrUnknown)
		}
		t.proc = srv.w.spawn(0, t.program)
		srv.adopt(t)
		if srv.w.hooks.Entered != nil {
			srv.w.hooks.Entered(t.container.name, t.proc)
		}
	}
	if t.proc.killed || t.proc.ended {
		return 0, fmt.Errorf("container %s init process is being killed: %w", t.container.name, errdefs.ErrUnknown)
	}
	t.status = shimclient.StatusRunning
	srv.publish(shimclient.StartEvent, t)
	if srv.w.hooks.Started != nil && t.execID == "" {
		srv.w.hooks.Started(t.container.name, t.proc)
	}
	t.proc.begin()
	return t.proc.ident.Pid, nil
}

func (srv *server) delete(t *task) (shimclient.Exit, error) {
	if t.status == shimclient.StatusRunning || t.status == shimclient.StatusPaused {
		return shimclient.Exit{}, fmt.Errorf("cannot delete a %s process: %w", t.status, errdefs.ErrFailedPrecondition)
	}
	if t.status == shimclient.StatusCreated && t.proc != nil {
		srv.w.thaw(t.container)
		_ = t.proc.signal(unix.SIGKILL)
		if !t.proc.ended {
			return shimclient.Exit{}, fmt.Errorf("failed to delete task: container init still running: %w", errdefs.ErrUnknown)
		}
	}
	if t.execID != "" {
		delete(t.container.execs, t.execID)
	} else {
		delete(srv.containers, t.container.name)
		srv.w.know(t.container.name, nil)
		srv.publish(shimclient.DeleteEvent, t)
	}
	return t.exit, nil
}

var (
	exitedStatus = pidfd.Status{}
	killedStatus = pidfd.Status{Raw: 9}
)
