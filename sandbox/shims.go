package sandbox

import (
	"context"
	"time"

	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/store/lifecycle"
)

// quiet is a shim that knows whether it left its last call without an answer.
// *shimclient.Shim is one.
type quiet interface{ Silent() bool }

func silent(s shimclient.Tasks) bool {
	q, ok := s.(quiet)
	return ok && q.Silent()
}

// ShimPids answers the processes of the shims that are held and live.
func (p *Pods) ShimPids() []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]int, 0, len(p.shims))
	for _, s := range p.shims {
		select {
		case <-s.Gone():
		default:
			out = append(out, s.Ref().Process.Pid)
		}
	}
	return out
}

// Unreachable counts the shims that live and did not answer when they were last
// asked, or could not be taken up.
func (p *Pods) Unreachable() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.untaken)
	for _, s := range p.shims {
		select {
		case <-s.Gone():
		default:
			if silent(s.Tasks) {
				n++
			}
		}
	}
	return n
}

// AskSilent asks the shims that left their last call without an answer once
// more, one by one: a shim is not called unreachable for one late answer. One
// that has answered nothing for hungFor and keeps nobody alive is killed: its
// pod could neither start a container nor be told of an end by it again. It
// returns at the end of ctx.
func (p *Pods) AskSilent(ctx context.Context) {
	again := map[string]shimclient.Tasks{}
	p.mu.Lock()
	for id, s := range p.shims {
		if silent(s.Tasks) {
			again[id] = s.Tasks
		}
	}
	for id := range p.quietSince {
		if again[id] == nil {
			delete(p.quietSince, id) // it has answered since, or is gone
		}
	}
	p.mu.Unlock()
	for id, s := range again {
		ask, cancel := context.WithTimeout(ctx, askSilent)
		_, _ = s.Connect(ask, id) // the shim itself notes whether it answered
		cancel()
		if ctx.Err() != nil {
			return
		}
		if p.quietFor(id, s) >= hungFor {
			p.endIdle(ctx, id)
		}
	}
}

// quietFor is how long a shim has been found without an answer, at every look.
func (p *Pods) quietFor(id string, s shimclient.Tasks) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !silent(s) {
		delete(p.quietSince, id)
		return 0
	}
	if _, known := p.quietSince[id]; !known {
		p.quietSince[id] = time.Now()
	}
	return time.Since(p.quietSince[id])
}

// endIdle kills a shim that hangs, unless anybody of its pod lives: a shim that
// does not answer is no reason to end a container. The pod is then NOTREADY, by
// the shim's death.
func (p *Pods) endIdle(ctx context.Context, id string) {
	v, err := p.Ledger.Pod(id)
	if err != nil || v.State.Phase == lifecycle.PodMaking || !v.Shim.Process.Known() {
		return
	}
	if v.Pause && v.PauseInit.Known() && p.living(v.PauseInit) {
		return
	}
	for _, m := range p.Ledger.Members(id) {
		if m.State.Alive() {
			return
		}
	}
	p.Log.Warn("a shim has not answered for a minute, and nothing of its pod lives; killing the shim", "pod", id)
	if err := p.Host.Kill(ctx, toRef(v.Shim)); err != nil {
		p.Log.Error("kill shim", "pod", id, "err", err)
	}
}

// hungFor is how long a shim may leave every call without an answer before it
// counts as hung for good: a minute, less what the ticks of the audit may differ.
const hungFor = 59 * time.Second

// askSilent is how long a shim may take that is asked for nothing but an answer.
const askSilent = time.Second
