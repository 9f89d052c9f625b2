package image

import (
	"context"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// loading shares layers between pulls that want them at the same time.
type loading struct {
	mu  sync.Mutex
	all map[digest.Digest]*load
	// parts are loaded already, by pulls that are not done yet.
	parts map[digest.Digest]*part
}

// part answers a layer that another pull has loaded, held for the caller.
func (l *loading) part(id digest.Digest) *part {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.parts[id]
	for p != nil {
		n := p.users.Load()
		if n == 0 {
			return nil // it is being removed
		}
		if p.users.CompareAndSwap(n, n+1) {
			break
		}
	}
	return p
}

// forget ends the sharing of layers: they are about to be found in their place.
func (l *loading) forget(p *part) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.parts[p.diffID] == p {
		delete(l.parts, p.diffID)
	}
}

// load is one layer on its way. Its context ends when the last pull has left.
type load struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiters int
	dogs    map[*watchdog]int // whose progress this is
	part    *part
	taken   bool
	err     error
	over    bool
}

// loadShared answers an unpacked layer, held for the caller. The first caller's fn
// loads it and its failure is everybody's. A layer that depends on those below
// it goes to one caller only; the others load it again, each for its own image.
func (s *Store) loadShared(ctx context.Context, id digest.Digest, dog *watchdog, fn func(context.Context, func(int64)) (*part, error)) (*part, error) {
	l := &s.loading
	if p := l.part(id); p != nil {
		return p, nil
	}
	for {
		ld, err := s.joinLoad(id, dog, fn)
		if err != nil {
			return nil, err
		}
		select {
		case <-ld.done:
			p, err := l.leave(id, ld, dog, true)
			if p != nil || err != nil {
				return p, err
			}
		case <-ctx.Done():
			_, _ = l.leave(id, ld, dog, false)
			return nil, context.Cause(ctx)
		}
	}
}

// joinLoad answers the load of a layer, starting it if there is none.
func (s *Store) joinLoad(id digest.Digest, dog *watchdog, fn func(context.Context, func(int64)) (*part, error)) (*load, error) {
	l := &s.loading
	l.mu.Lock()
	defer l.mu.Unlock()
	ld := l.all[id]
	if ld == nil {
		if s.ctx.Err() != nil {
			return nil, errdefs.ErrUnavailable
		}
		ctx, cancel := context.WithCancel(s.ctx)
		ld = &load{done: make(chan struct{}), cancel: cancel, dogs: map[*watchdog]int{}}
		if l.all == nil {
			l.all = map[digest.Digest]*load{}
		}
		l.all[id] = ld
		s.wg.Go(func() {
			defer cancel()
			p, err := fn(ctx, func(n int64) { l.count(ld, n) })
			l.finish(id, ld, p, err)
		})
	}
	ld.waiters++
	ld.dogs[dog]++
	return ld, nil
}

// count tells all who wait how much has arrived.
func (l *loading) count(ld *load, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for d := range ld.dogs {
		d.count(n)
	}
}

// finish hands the outcome to those who wait; if nobody does any more, it is removed.
func (l *loading) finish(id digest.Digest, ld *load, p *part, err error) {
	l.mu.Lock()
	ld.part, ld.err, ld.over = p, err, true
	if p != nil {
		p.users.Store(1) // until the last waiter has taken its own
	}
	if l.all[id] == ld {
		delete(l.all, id)
	}
	abandoned := ld.waiters == 0
	if p != nil && !abandoned && p.result.SelfContained() {
		if l.parts == nil {
			l.parts = map[digest.Digest]*part{}
		}
		l.parts[id] = p
	}
	close(ld.done)
	l.mu.Unlock()
	if abandoned && p != nil {
		p.release()
	}
}

// leave takes one waiter off, with its share of the result if it wants it. An
// answer of nothing and no error means: load again.
func (l *loading) leave(id digest.Digest, ld *load, dog *watchdog, want bool) (*part, error) {
	l.mu.Lock()
	ld.waiters--
	if ld.dogs[dog]--; ld.dogs[dog] == 0 {
		delete(ld.dogs, dog)
	}
	var mine *part
	if want && ld.part != nil && (ld.part.result.SelfContained() || !ld.taken) {
		ld.taken = true
		mine = ld.part
		mine.users.Add(1)
	}
	last := ld.waiters == 0
	if last && !ld.over {
		// Nobody may join work that is being given up.
		if l.all[id] == ld {
			delete(l.all, id)
		}
		ld.cancel()
	}
	over, p, err := ld.over, ld.part, ld.err
	l.mu.Unlock()
	if last && over && p != nil {
		p.release()
	}
	if last && !over {
		<-ld.done // a moment: the connection and the unpacking end with the context
	}
	return mine, err
}
