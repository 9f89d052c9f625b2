package store

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// cell holds one record: the newest snapshot, and what of it is on disk.
// Readers take the snapshot without a lock. mu guards changes and is held for
// no I/O.
type cell[T any] struct {
	cur     atomic.Pointer[T]
	unknown unknown       // set before anybody else has the cell
	kick    chan struct{} // ends the pause after a failed write

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change
	gen     uint64        // counts the changes
	saved   uint64        // the newest generation that is on disk
	saving  bool
	tries   uint64 // counts failed attempts
	lastErr error
	dropped bool // removed: write nothing any more
	savedCh chan struct{}
}

func newCell[T any](v *T) *cell[T] {
	c := &cell[T]{changed: make(chan struct{}), savedCh: make(chan struct{}), kick: make(chan struct{}, 1)}
	c.cur.Store(v)
	return c
}

// change applies fn to a copy of the record and publishes it. fn is called
// under the cell's lock and must do no I/O. announce is called in the order of
// the changes. An error changes nothing.
func (c *cell[T]) change(fn func(*T) error, announce func(old, now *T)) (*T, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.cur.Load()
	next := *old
	if err := fn(&next); err != nil {
		return old, err
	}
	c.cur.Store(&next)
	c.gen++
	close(c.changed)
	c.changed = make(chan struct{})
	if announce != nil {
		announce(old, &next)
	}
	return &next, nil
}

// wait blocks until cond holds of the newest snapshot, or the context ends.
func (c *cell[T]) wait(ctx context.Context, cond func(*T) bool) (*T, error) {
	for {
		c.mu.Lock()
		v, ch := c.cur.Load(), c.changed
		c.mu.Unlock()
		if cond(v) {
			return v, nil
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return v, context.Cause(ctx)
		}
	}
}

// save starts writing what is not on disk yet, in the background, until it is;
// write must be idempotent.
func (c *cell[T]) save(write func(*T) error, stop <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.saving || c.dropped || c.saved == c.gen {
		return
	}
	c.saving = true
	go c.saver(write, stop)
}

func (c *cell[T]) saver(write func(*T) error, stop <-chan struct{}) {
	wait := 50 * time.Millisecond
	for {
		c.mu.Lock()
		if c.dropped || c.saved == c.gen {
			c.saving = false
			c.signalSaved()
			c.mu.Unlock()
			return
		}
		v, gen := c.cur.Load(), c.gen
		c.mu.Unlock()

		err := write(v)

		c.mu.Lock()
		if err == nil {
			c.saved, c.lastErr = gen, nil
			wait = 50 * time.Millisecond
		} else {
			c.tries++
			c.lastErr = err
		}
		c.signalSaved()
		c.mu.Unlock()
		if err == nil {
			continue
		}
		select {
		case <-time.After(wait):
			wait = min(2*wait, 5*time.Second)
		case <-c.kick:
		case <-stop:
			c.mu.Lock()
			c.saving = false
			c.signalSaved()
			c.mu.Unlock()
			return
		}
	}
}

// signalSaved wakes those who wait in flush. mu is held.
func (c *cell[T]) signalSaved() {
	close(c.savedCh)
	c.savedCh = make(chan struct{})
}

// hurry has a failed write tried again now: somebody waits for it.
func (c *cell[T]) hurry() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// flush waits until all changes made before the call are on disk. The error is
// that of an attempt made since; the writing goes on regardless.
func (c *cell[T]) flush(ctx context.Context) error {
	c.mu.Lock()
	want, tries := c.gen, c.tries
	if c.saving {
		c.hurry()
	}
	for {
		if c.saved >= want || c.dropped {
			c.mu.Unlock()
			return nil
		}
		if c.tries > tries {
			err := c.lastErr
			c.mu.Unlock()
			return err
		}
		ch := c.savedCh
		c.mu.Unlock()
		select {
		case <-ch:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		c.mu.Lock()
	}
}

// drop ends the writing; it waits for a write under way, so that the file is
// not made again after its removal.
func (c *cell[T]) drop(ctx context.Context) error {
	c.mu.Lock()
	c.dropped = true
	c.hurry()
	c.mu.Unlock()
	return c.rest(ctx)
}

// rest waits until nothing is being written.
func (c *cell[T]) rest(ctx context.Context) error {
	c.mu.Lock()
	for c.saving {
		ch := c.savedCh
		c.mu.Unlock()
		select {
		case <-ch:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		c.mu.Lock()
	}
	c.mu.Unlock()
	return nil
}

// unsaved reports whether the disk lags behind because of an error.
func (c *cell[T]) unsaved() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.saved == c.gen || c.dropped {
		return nil
	}
	return c.lastErr
}
