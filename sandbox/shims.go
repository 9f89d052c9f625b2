package sandbox

import (
	"context"
	"time"

	"github.com/crid-project/crid/shimclient"
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
// more, one by one: a shim is not called unreachable for one late answer. It
// returns at the end of ctx.
func (p *Pods) AskSilent(ctx context.Context) {
	again := map[string]shimclient.Tasks{}
	p.mu.Lock()
	for id, s := range p.shims {
		if silent(s.Tasks) {
			again[id] = s.Tasks
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
	}
}

// askSilent is how long a shim may take that is asked for nothing but an answer.
const askSilent = time.Second
