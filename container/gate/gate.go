package gate

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"
)

// Gate bounds how many execs are started at once. Each start is an OCI runtime's
// process of some ten MiB that wants a processor; a hundred at once are no
// faster than a few after each other, and can be more than the memory that an
// operator has set aside for crid.
type Gate struct {
	all, each int // at once in all, and of one pod

	mu      sync.Mutex
	inside  int
	of      map[string]int
	waiting []*waiter // in the order in which they came
}

type waiter struct {
	pod     string
	granted chan struct{}
}

// overdue is when a start that has not returned counts no more: pods whose execs
// hang must not keep those of others out for long. A start takes some 50 ms, and
// seconds where the machine has too much to do, when it is best to have few.
const overdue = 5 * time.Second

// New answers a gate for this machine: two starts for each processor, at least
// six, and at most two thirds of them of one pod.
func New() *Gate {
	all := min(max(6, 2*runtime.NumCPU()), 64)
	return &Gate{all: all, each: all * 2 / 3, of: map[string]int{}}
}

// Enter waits for its turn, in the order of the calls except for pods that have
// their share; it fails only if ctx ends first. leave is to be called when the
// start has returned, and may be called again.
func (g *Gate) Enter(ctx context.Context, pod string) (leave func(), err error) {
	w := &waiter{pod, make(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, w)
	g.admit()
	g.mu.Unlock()
	select {
	case <-w.granted:
	case <-ctx.Done():
		if g.withdraw(w) {
			return nil, context.Cause(ctx)
		}
	}
	out := sync.OnceFunc(func() { g.left(pod) })
	t := time.AfterFunc(overdue, out)
	return func() { t.Stop(); out() }, nil
}

// admit lets in whoever there is room for. With the lock held.
func (g *Gate) admit() {
	for i := 0; i < len(g.waiting) && g.inside < g.all; {
		w := g.waiting[i]
		if g.of[w.pod] >= g.each {
			i++
			continue
		}
		g.waiting = slices.Delete(g.waiting, i, i+1)
		g.inside++
		g.of[w.pod]++
		close(w.granted)
	}
}

// withdraw takes back who waits; false: it was let in meanwhile.
func (g *Gate) withdraw(w *waiter) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.waiting, w)
	if i < 0 {
		return false
	}
	g.waiting = slices.Delete(g.waiting, i, i+1)
	return true
}

func (g *Gate) left(pod string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.of[pod]--; g.of[pod] == 0 {
		delete(g.of, pod)
	}
	g.admit()
}
