package stats

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

const (
	// defaultDeadline is how long one container's or pod's numbers may take;
	// a healthy one needs well below a millisecond.
	defaultDeadline = 2 * time.Second
	// width is how many are read at the same time.
	width = 16
)

// readers bounds and watches the reads. A read that does not come back in time
// is given up but not forgotten: as long as it hangs, the same item is not
// read again, so that the stuck goroutines are as few as the stuck items.
type readers struct {
	deadline time.Duration
	mu       sync.Mutex
	stuck    map[string]struct{}
}

// Stuck answers how many reads were given up and still hang.
func (r *readers) Stuck() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.stuck)
}

func (r *readers) isStuck(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, yes := r.stuck[key]
	return yes
}

func (r *readers) setStuck(key string, yes bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if yes {
		r.stuck[key] = struct{}{}
	} else {
		delete(r.stuck, key)
	}
}

// one runs read with the item's own deadline.
func one[R any](ctx context.Context, r *readers, key string, read func(context.Context) (R, error)) (R, error) {
	var zero R
	if r.isStuck(key) {
		return zero, fmt.Errorf("read statistics of %s: an earlier read still hangs: %w", key, errdefs.ErrUnavailable)
	}
	ctx, cancel := context.WithTimeout(ctx, r.deadline)
	defer cancel()
	type result struct {
		v   R
		err error
	}
	done := make(chan result, 1)
	var mu sync.Mutex
	finished, abandoned := false, false
	go func() {
		v, err := read(ctx)
		mu.Lock()
		finished = true
		if abandoned {
			r.setStuck(key, false)
		}
		mu.Unlock()
		done <- result{v, err}
	}()
	select {
	case res := <-done:
		return res.v, res.err
	case <-ctx.Done():
		mu.Lock()
		if !finished {
			abandoned = true
			r.setStuck(key, true)
		}
		mu.Unlock()
		return zero, fmt.Errorf("read statistics of %s: %w", key, ctx.Err())
	}
}

// each runs read for every item, [width] at a time, and answers the results in
// the items' order, without those that failed.
func each[T, R any](ctx context.Context, r *readers, items []T, key func(T) string, read func(context.Context, T) (R, error)) []R {
	type slot struct {
		v  R
		ok bool
	}
	slots := make([]slot, len(items))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(width, len(items)) {
		wg.Go(func() {
			for i := range next {
				v, err := one(ctx, r, key(items[i]), func(ctx context.Context) (R, error) { return read(ctx, items[i]) })
				slots[i] = slot{v, err == nil}
			}
		})
	}
	for i := range items {
		next <- i
	}
	close(next)
	wg.Wait()
	out := make([]R, 0, len(items))
	for _, s := range slots {
		if s.ok {
			out = append(out, s.v)
		}
	}
	return out
}
