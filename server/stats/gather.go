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
	left     map[string]*abandoned
}

// abandoned is a read that its caller has given up and that still runs.
type abandoned struct {
	began time.Time
	done  chan struct{}
}

// Stuck answers how many reads were given up and still hang.
func (r *readers) Stuck() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.left)
}

// free waits until no read of key that somebody gave up is under way. One that
// a caller with little time left is no sign of a fault, and is waited for; one
// that has had its whole time is, and is an error at once.
func (r *readers) free(ctx context.Context, key string) error {
	for {
		r.mu.Lock()
		a := r.left[key]
		r.mu.Unlock()
		if a == nil {
			return nil
		}
		had := time.NewTimer(r.deadline - time.Since(a.began))
		select {
		case <-a.done:
		case <-ctx.Done():
			had.Stop()
			return fmt.Errorf("read statistics of %s: %w", key, ctx.Err())
		case <-had.C:
			return fmt.Errorf("read statistics of %s: an earlier read still hangs: %w", key, errdefs.ErrUnavailable)
		}
		had.Stop()
	}
}

// one runs read with the item's own deadline.
func one[R any](ctx context.Context, r *readers, key string, read func(context.Context) (R, error)) (R, error) {
	var zero R
	ctx, cancel := context.WithTimeout(ctx, r.deadline)
	defer cancel()
	if err := r.free(ctx, key); err != nil {
		return zero, err
	}
	type result struct {
		v   R
		err error
	}
	done := make(chan result, 1)
	self := &abandoned{began: time.Now(), done: make(chan struct{})}
	finished := false
	go func() {
		v, err := read(ctx)
		r.mu.Lock()
		finished = true
		if r.left[key] == self {
			delete(r.left, key)
		}
		r.mu.Unlock()
		close(self.done)
		done <- result{v, err}
	}()
	select {
	case res := <-done:
		return res.v, res.err
	case <-ctx.Done():
		r.mu.Lock()
		if !finished && r.left[key] == nil {
			r.left[key] = self
		}
		r.mu.Unlock()
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
