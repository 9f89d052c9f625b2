package sim

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/fake"
)

// host is the shims as one run of crid sees them.
type host struct{ *run }

func (h host) Predict(l shimclient.Launch) shimclient.Ref { return h.m.Predict(l) }

func (h host) Launch(ctx context.Context, l shimclient.Launch) (shimclient.Tasks, error) {
	h.takes("launch", l.ID, 10*time.Microsecond, 20*time.Millisecond)
	s, err := h.m.Launch(ctx, l)
	if s != nil {
		h.m.mu.Lock()
		h.m.shims[l.ID] = s
		h.conns = append(h.conns, s)
		h.m.mu.Unlock()
	}
	h.takes("launch", l.ID, 10*time.Microsecond, 20*time.Millisecond)
	if err != nil {
		return nil, err
	}
	return connected(s, h.run), nil
}

func (h host) Adopt(ctx context.Context, ref shimclient.Ref) (shimclient.Tasks, error) {
	h.takes("adopt", ref.ID, 10*time.Microsecond, 2*time.Millisecond)
	s, err := h.m.Adopt(ctx, ref)
	if s != nil {
		h.m.mu.Lock()
		h.conns = append(h.conns, s)
		h.m.mu.Unlock()
	}
	h.takes("adopt", ref.ID, 10*time.Microsecond, 2*time.Millisecond)
	if s == nil {
		return nil, err
	}
	return connected(s, h.run), err
}

func (h host) DeleteTask(ctx context.Context, _ shimclient.Runtime, bundle, id string) error {
	h.takes("delete-task", id, 10*time.Microsecond, 20*time.Millisecond)
	err := h.m.DeleteTask(ctx, bundle, id)
	h.takes("delete-task", id, 10*time.Microsecond, 2*time.Millisecond)
	return err
}

func (h host) Kill(ctx context.Context, ref shimclient.Ref) error {
	h.takes("kill-shim", ref.ID, 10*time.Microsecond, 2*time.Millisecond)
	h.m.note("%d:   the shim of %s is killed by crid", h.no, short(ref.ID))
	err := h.m.Kill(ctx, ref)
	h.alive()
	return err
}

func (h host) KillStuckCommands(ctx context.Context, ref shimclient.Ref, id string, age time.Duration) (int, error) {
	h.takes("unstick", id, 10*time.Microsecond, 2*time.Millisecond)
	n, err := h.m.KillStuckCommands(ctx, ref, id, age)
	h.alive()
	return n, err
}

// tasks is a connection of one run to a shim.
type tasks struct {
	*fake.Shim
	r     *run
	quiet *atomic.Bool
}

// Silent is as of *shimclient.Shim.
func (t tasks) Silent() bool { return t.quiet.Load() }

func connected(s *fake.Shim, r *run) tasks { return tasks{s, r, new(atomic.Bool)} }

// rpc lets time pass on the way there and back.
func rpc[T any](t tasks, what, id string, do func() (T, error)) (T, error) {
	t.r.takes(what, id, 10*time.Microsecond, 5*time.Millisecond)
	got, err := do()
	t.quiet.Store(errors.Is(err, shimclient.ErrUnreachable))
	t.r.takes(what, id, 10*time.Microsecond, 5*time.Millisecond)
	if keepLog {
		t.r.m.note("%d:   %s %s: %v", t.r.no, what, short(id), err)
	}
	return got, err
}

func (t tasks) Create(ctx context.Context, c shimclient.Create) (int, error) {
	return rpc(t, "Create", c.ID, func() (int, error) { return t.Shim.Create(ctx, c) })
}

func (t tasks) Start(ctx context.Context, id string) (int, error) {
	return rpc(t, "Start", id, func() (int, error) { return t.Shim.Start(ctx, id) })
}

func (t tasks) Delete(ctx context.Context, id string) (shimclient.Exit, error) {
	return rpc(t, "Delete", id, func() (shimclient.Exit, error) { return t.Shim.Delete(ctx, id) })
}

func (t tasks) State(ctx context.Context, id string) (shimclient.State, error) {
	return rpc(t, "State", id, func() (shimclient.State, error) { return t.Shim.State(ctx, id) })
}

func (t tasks) Wait(ctx context.Context, id string) (shimclient.Exit, error) {
	return rpc(t, "Wait", id, func() (shimclient.Exit, error) { return t.Shim.Wait(ctx, id) })
}

func (t tasks) Connect(ctx context.Context, id string) (shimclient.ConnectInfo, error) {
	return rpc(t, "Connect", id, func() (shimclient.ConnectInfo, error) { return t.Shim.Connect(ctx, id) })
}

func (t tasks) Shutdown(ctx context.Context) error {
	_, err := rpc(t, "Shutdown", t.Ref().ID, func() (int, error) { return 0, t.Shim.Shutdown(ctx) })
	return err
}
