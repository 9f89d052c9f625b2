package fake

import (
	"context"
	"time"

	"github.com/crid-project/crid/shimclient"
)

// Shims returns the world in the place of a shimclient.Host.
func (w *World) Shims() shimclient.Shims { return shims{w} }

type shims struct{ *World }

func (w shims) Launch(ctx context.Context, l shimclient.Launch) (shimclient.Tasks, error) {
	return orNil(w.World.Launch(ctx, l))
}

func (w shims) Adopt(ctx context.Context, ref shimclient.Ref) (shimclient.Tasks, error) {
	return orNil(w.World.Adopt(ctx, ref))
}

func (w shims) FindUnrecorded(ctx context.Context, predicted shimclient.Ref) (shimclient.Tasks, error) {
	return orNil(w.World.FindUnrecorded(ctx, predicted))
}

func (w shims) DeleteTask(ctx context.Context, _ shimclient.Runtime, bundle, id string) error {
	return w.World.DeleteTask(ctx, bundle, id)
}

func orNil(s *Shim, err error) (shimclient.Tasks, error) {
	if s == nil {
		return nil, err
	}
	return s, err
}

// Jam makes a runtime command of the container hang, until release is called or
// KillStuckCommands kills it: the calls that need the runtime wait, State among
// them, and every exit of the whole shim that comes after one of this container
// is kept back.
func (w *World) Jam(id string) (release func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, srv := range w.shims {
		c := srv.containers[id]
		if c == nil || c.jammed != nil {
			continue
		}
		jam := make(chan struct{})
		c.jammed, c.jammedAt = jam, time.Now()
		return func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			if c.jammed == jam {
				srv.release(c)
			}
		}
	}
	return func() {}
}

// release is called with the world's lock held.
func (srv *server) release(c *container) {
	close(c.jammed)
	c.jammed = nil
	srv.reap()
}

// KillStuckCommands ends a Jam that is older than age, as
// shimclient.Host.KillStuckCommands ends the command that hangs.
func (w *World) KillStuckCommands(ctx context.Context, ref shimclient.Ref, id string, age time.Duration) (int, error) {
	if err := w.interfere(ctx, Call{Shim: ref.ID, Method: "KillStuckCommands", ID: id}); err != nil {
		return 0, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	srv := w.shims[ref.ID]
	if srv == nil || srv.ref.Process != ref.Process {
		return 0, nil
	}
	c := srv.containers[id]
	if c == nil || c.jammed == nil || time.Since(c.jammedAt) < age {
		return 0, nil
	}
	srv.release(c)
	return 1, nil
}
