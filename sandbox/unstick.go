package sandbox

import (
	"context"
	"errors"
	"time"

	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

// An OCI runtime's command takes milliseconds. deadAge is when one for a
// container that is dead counts as hung: nothing can be lost by killing it.
// liveAge is the same for one that lives, whose command may only be slow.
const (
	deadAge = 2 * time.Second
	liveAge = time.Minute
)

// Where one command hung the next may: a shim runs several to be rid of a
// container. Commands for a dead one are looked for again for this long.
const (
	unstickEvery = 2 * time.Second
	unstickFor   = 30 * time.Second
)

// Unstick implements container.Shims.
func (p *Pods) Unstick(ctx context.Context, podID, id string, dead bool) {
	v, err := p.Ledger.Pod(podID)
	if err != nil {
		return
	}
	if !dead {
		p.unstick(ctx, v, id, liveAge)
		return
	}
	p.unstick(ctx, v, id, deadAge)
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.stop:
		return
	default:
	}
	if p.unsticking[id] {
		return
	}
	p.unsticking[id] = true
	p.wg.Add(1)
	go p.goOnUnsticking(podID, id)
}

// goOnUnsticking ends when nothing has hung for a while, or the pod is gone.
func (p *Pods) goOnUnsticking(podID, id string) {
	defer p.wg.Done()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	t := time.NewTicker(unstickEvery)
	defer t.Stop()
	for last := time.Now(); time.Since(last) < unstickFor; {
		select {
		case <-p.stop:
			return
		case <-t.C:
		}
		v, err := p.Ledger.Pod(podID)
		if err != nil || v.State.Holds&lifecycle.HoldsShim == 0 {
			break // the shim is gone, and its commands with it
		}
		if p.unstick(ctx, v, id, deadAge) {
			last = time.Now()
		}
	}
	p.mu.Lock()
	delete(p.unsticking, id)
	p.mu.Unlock()
}

func (p *Pods) unstick(ctx context.Context, v *store.Pod, id string, age time.Duration) bool {
	n, err := p.Host.KillStuckCommands(ctx, toRef(v.Shim), id, age)
	if err != nil || n > 0 {
		p.Log.Warn("killed commands of the OCI runtime that hung", "pod", v.ID, "container", id, "killed", n, "err", err)
	}
	return n > 0
}

// EndHung implements container.Shims. Only who was asked to kill a container may
// ask: a shim that hangs is no reason to kill anybody.
func (p *Pods) EndHung(ctx context.Context, podID string) {
	v, err := p.Ledger.Pod(podID)
	if err != nil || !v.Shim.Process.Known() {
		return
	}
	s, err := p.Of(podID)
	if err != nil {
		return
	}
	ask, cancel := context.WithTimeout(ctx, shimDeadline)
	defer cancel()
	if _, err := s.Connect(ask, podID); !errors.Is(err, shimclient.ErrUnreachable) || ctx.Err() != nil {
		return
	}
	p.Log.Warn("a shim that does not answer keeps a container from dying; killing the shim", "pod", podID)
	if err := p.Host.Kill(ctx, toRef(v.Shim)); err != nil {
		p.Log.Error("kill shim", "pod", podID, "err", err)
	}
}
