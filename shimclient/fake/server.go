package fake

import (
	"fmt"
	"time"

	"github.com/containerd/errdefs"

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
}

type container struct {
	task
	name     string
	execs    map[string]*task
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
	srv.proc.onCont = srv.reap
	srv.proc.onEnd = func() {
		srv.proc.reaped = true
		srv.reap()
	}
	srv.ref.Process, srv.ref.Version = srv.proc.ident, 3
	return srv
}

// adopt makes the shim notice the end of t's process.
func (srv *server) adopt(t *task) {
	t.proc.onEnd = func() {
		if t.execID == "" {
			// The end of a pid namespace's init takes the others along, and they
			// are reported first.
			for _, x := range t.container.execs {
				if x.proc != nil && !srv.w.shared[t.container.name] {
					x.proc.end(killedStatus)
				}
			}
		}
		srv.exits = append(srv.exits, t)
		srv.reap()
	}
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
		if t.container.jammed != nil {
			return
		}
		srv.exits = srv.exits[1:]
		t.status = shimclient.StatusStopped
		t.exit = shimclient.Exit{Pid: t.proc.ident.Pid, Code: t.proc.status.Code(), At: time.Now()}
		close(t.stopped)
		srv.publish(shimclient.ExitEvent, t)
	}
}

func (srv *server) publish(kind shimclient.Kind, t *task) {
	e := shimclient.Event{Kind: kind, ID: t.container.name, ExecID: t.execID, At: time.Now()}
	if t.proc != nil {
		e.Pid = t.proc.ident.Pid
	}
	if kind == shimclient.ExitEvent || kind == shimclient.DeleteEvent {
		e.Code, e.At = t.exit.Code, t.exit.At
	}
	srv.w.publish(e)
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
		t.proc.end(killedStatus)
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
