package layers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"

	"github.com/crid-project/crid/image/tree"
)

// measured is a cached measure of one writable layer.
type measured struct {
	usage tree.Usage
	at    time.Time
	took  time.Duration
	err   error
	busy  chan struct{}
}

const (
	// freshFor is how long a measure is answered again without a new look.
	freshFor = 10 * time.Second
	// measureLimit ends a measure; what was known before stays the answer.
	measureLimit = 30 * time.Second
)

// RootfsUsage answers what a container's writable layer takes on disk. Figures
// are cached for ten seconds, and longer where measuring takes long (a
// measure costs at most a tenth of the time). A caller whose ctx ends gets the
// last figures known.
func (s *Store) RootfsUsage(ctx context.Context, id string) (tree.Usage, error) {
	s.mu.Lock()
	r := s.roots[id]
	s.mu.Unlock()
	if r == nil {
		return tree.Usage{}, fmt.Errorf("measure root file system of %.130q: %w", id, errdefs.ErrNotFound)
	}
	if r.out.UpperDir == "" {
		return tree.Usage{}, nil
	}
	r.mu.Lock()
	m := r.usage
	if !m.at.IsZero() && time.Since(m.at) < max(freshFor, 10*m.took) {
		r.mu.Unlock()
		return m.usage, m.err
	}
	busy := m.busy
	if busy == nil {
		busy = make(chan struct{})
		r.usage.busy = busy
		s.background.Go(func() { s.measure(r, busy) })
	}
	r.mu.Unlock()
	select {
	case <-busy:
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.usage.at.IsZero() {
		return tree.Usage{}, fmt.Errorf("measure root file system of %s: %w", id, ctx.Err())
	}
	return r.usage.usage, r.usage.err
}

func (s *Store) measure(r *rootfs, done chan struct{}) {
	ctx, cancel := context.WithTimeout(s.ctx, measureLimit)
	defer cancel()
	begin := time.Now()
	u, err := tree.Measure(ctx, r.out.UpperDir)
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	}
	r.mu.Lock()
	m := measured{usage: u, err: err, at: time.Now(), took: time.Since(begin)}
	if err != nil && !r.usage.at.IsZero() && r.usage.err == nil && ctx.Err() != nil {
		m.usage, m.err = r.usage.usage, nil // too big to measure in time: the last figures
	}
	r.usage = m
	r.mu.Unlock()
	close(done)
}
