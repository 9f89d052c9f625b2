// Package upkeep keeps exactly the work in flight that the law says is owed.
//
// Nobody calls an effect directly: an event changes a state, Tend looks at what
// the new state owes, starts what is not under way yet, and repeats what failed
// until it is owed no more. An action that got lost is therefore only late, and
// one stuck thing delays only itself.
//
// It refuses to know what the work is and how states are kept.
package upkeep

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/crid-project/crid/store/lifecycle"
)

// Bounds of the pause before a failed work is tried again.
const (
	FirstPause = 100 * time.Millisecond
	LongPause  = 30 * time.Second
)

// Desk keeps the work of one kind of thing in flight.
type Desk struct {
	// Owes answers what a thing owes now; 0 if it does not exist.
	Owes func(id string) lifecycle.Work
	// Do does one work, once. It ends when its context does or at its own
	// deadline, and reports success by an event to the law, not by its answer.
	Do func(ctx context.Context, id string, w lifecycle.Work) error
	// Kind is "container" or "pod", for the log.
	Kind string
	Log  *slog.Logger

	mu      sync.Mutex
	flights map[key]*flight
	closed  bool
	wg      sync.WaitGroup
}

type key struct {
	id   string
	work lifecycle.Work
}

type flight struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when it is off the desk
	nudge  chan struct{}
	since  time.Time
	tries  int
	err    error
}

// Tend starts what the thing owes and is not under way. Idempotent, never blocks.
func (d *Desk) Tend(id string) {
	owed := d.Owes(id)
	if owed == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	if d.flights == nil {
		d.flights = map[key]*flight{}
	}
	for _, w := range owed.Split() {
		k := key{id, w}
		if d.flights[k] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(context.Background())
		f := &flight{cancel: cancel, done: make(chan struct{}), nudge: make(chan struct{}, 1), since: time.Now()}
		d.flights[k] = f
		d.wg.Add(1)
		go d.fly(ctx, k, f)
	}
}

// Cancel ends the attempt that is under way; if the work is still owed it is
// tried again. For a launch that has become pointless.
func (d *Desk) Cancel(id string, w lifecycle.Work) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.flights[key{id, w}]; f != nil {
		f.cancel()
	}
}

// Nudge ends the pause after a failed attempt of any work of the thing.
func (d *Desk) Nudge(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for k, f := range d.flights {
		if k.id == id {
			select {
			case f.nudge <- struct{}{}:
			default:
			}
		}
	}
}

// Clear waits until no attempt of a work is under way for the thing: for a work
// that must not meet the last moments of another. It fails with the context.
func (d *Desk) Clear(ctx context.Context, id string, w lifecycle.Work) error {
	d.mu.Lock()
	f := d.flights[key{id, w}]
	d.mu.Unlock()
	if f == nil {
		return nil
	}
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (d *Desk) fly(ctx context.Context, k key, f *flight) {
	defer d.wg.Done()
	defer d.cancelFlight(f)
	defer close(f.done)
	pause := FirstPause
	for {
		err := d.Do(ctx, k.id, k.work)
		if d.settled(k, f, err) {
			d.Tend(k.id)
			return
		}
		if err != nil {
			d.Log.Warn("work failed and is tried again", d.Kind, k.id, "work", k.work.String(), "in", pause, "err", err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
			pause = min(2*pause, LongPause)
		case <-f.nudge:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			ctx = d.renew(f)
		}
		if d.over() {
			return
		}
	}
}

// settled takes the flight off the desk if its work is owed no more. Looking
// and taking off are one step, so that a Tend in between is not lost.
func (d *Desk) settled(k key, f *flight, err error) bool {
	owed := d.Owes(k.id)
	d.mu.Lock()
	defer d.mu.Unlock()
	f.tries++
	f.err = err
	if d.closed || !owed.Has(k.work) {
		delete(d.flights, k)
		return true
	}
	return false
}

// renew gives a cancelled flight a new context, for its work is still owed.
func (d *Desk) renew(f *flight) context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	var ctx context.Context
	ctx, f.cancel = context.WithCancel(context.Background())
	if d.closed {
		f.cancel()
	}
	return ctx
}

func (d *Desk) cancelFlight(f *flight) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f.cancel()
}

func (d *Desk) over() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

// Late is work that has been owed for long.
type Late struct {
	ID    string
	Work  lifecycle.Work
	Since time.Time
	Tries int
	Err   error
}

// Late answers what has been under way for longer than age.
func (d *Desk) Late(age time.Duration) []Late {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []Late
	for k, f := range d.flights {
		if time.Since(f.since) > age {
			out = append(out, Late{ID: k.id, Work: k.work, Since: f.since, Tries: f.tries, Err: f.err})
		}
	}
	return out
}

// Close cancels all attempts and waits for them, or for the context. What is
// still owed is owed by the records, and is taken up at the next start.
func (d *Desk) Close(ctx context.Context) {
	d.mu.Lock()
	d.closed = true
	for _, f := range d.flights {
		f.cancel()
	}
	d.mu.Unlock()
	done := make(chan struct{})
	go func() { d.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
