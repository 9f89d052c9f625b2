package upkeep

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/crid-project/crid/store/lifecycle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	reap  = lifecycle.Reap
	erase = lifecycle.Erase
	kill  = lifecycle.Kill
)

var errNotYet = errors.New("not yet")

// world is what is owed, and what was tried.
type world struct {
	mu    sync.Mutex
	owed  map[string]lifecycle.Work
	tried []time.Duration // since the beginning
	began time.Time
	// do does the work; nil: it fails.
	do func(ctx context.Context, id string, w lifecycle.Work) error
	at map[string]int // attempts under way
}

func newWorld() (*world, *Desk) {
	w := &world{owed: map[string]lifecycle.Work{}, began: time.Now(), at: map[string]int{}}
	return w, &Desk{Owes: w.owes, Do: w.try, Kind: "container", Log: slog.New(slog.DiscardHandler)}
}

func (w *world) owes(id string) lifecycle.Work {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.owed[id]
}

func (w *world) owe(id string, what lifecycle.Work) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.owed[id] = what
}

func (w *world) done(id string, what lifecycle.Work) { w.owe(id, w.owes(id)&^what) }

func (w *world) try(ctx context.Context, id string, what lifecycle.Work) error {
	w.mu.Lock()
	w.tried = append(w.tried, time.Since(w.began))
	key := id + what.String()
	w.at[key]++
	twice := w.at[key] > 1
	do := w.do
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.at[key]--
	}()
	if twice {
		panic("one work is under way twice")
	}
	if do == nil {
		return errNotYet
	}
	return do(ctx, id, what)
}

func (w *world) attempts() []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]time.Duration(nil), w.tried...)
}

func TestWorkThatSucceedsIsDoneOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newWorld()
		w.do = func(_ context.Context, id string, what lifecycle.Work) error {
			time.Sleep(time.Second)
			w.done(id, what)
			return nil
		}
		w.owe("a", reap)
		for range 5 {
			d.Tend("a") // joins the one under way
		}
		d.Tend("nobody")
		time.Sleep(time.Hour)
		if n := len(w.attempts()); n != 1 {
			t.Errorf("%d attempts", n)
		}
		if l := d.Late(0); len(l) != 0 {
			t.Errorf("late: %v", l)
		}
	})
}

func TestFailedWorkIsRepeatedAtLongerAndLongerIntervals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newWorld()
		w.owe("a", reap)
		d.Tend("a")
		time.Sleep(10 * time.Minute)
		got := w.attempts()
		if got[0] != 0 || got[1] != FirstPause || got[2] != 3*FirstPause {
			t.Errorf("first attempts at %v", got[:3])
		}
		for i := 1; i < len(got); i++ {
			if p := got[i] - got[i-1]; p > LongPause {
				t.Errorf("pause of %v", p)
			}
		}
		if n := len(got); n < 10*60/30 {
			t.Errorf("only %d attempts in ten minutes", n)
		}
		l := d.Late(time.Minute)
		if len(l) != 1 || l[0].ID != "a" || l[0].Work != reap || l[0].Tries != len(got) || !errors.Is(l[0].Err, errNotYet) {
			t.Errorf("late: %+v", l)
		}
		if l := d.Late(time.Hour); len(l) != 0 {
			t.Errorf("late for an hour already: %+v", l)
		}
		w.owe("a", 0) // somebody else did it
		time.Sleep(LongPause)
		before := len(w.attempts())
		time.Sleep(time.Hour)
		if after := len(w.attempts()); after != before {
			t.Error("what is owed no more is tried still")
		}
	})
}

// A nil error is no success: only the state says what is owed.
func TestAnAnswerWithoutAnEffectIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newWorld()
		w.do = func(context.Context, string, lifecycle.Work) error { return nil }
		w.owe("a", reap)
		d.Tend("a")
		time.Sleep(time.Second)
		if n := len(w.attempts()); n < 2 {
			t.Errorf("%d attempts", n)
		}
		d.Close(t.Context())
	})
}

func TestANudgeEndsThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newWorld()
		w.owe("a", reap)
		w.owe("b", reap)
		d.Tend("a")
		d.Tend("b")
		time.Sleep(10 * time.Minute)
		before := len(w.attempts())
		d.Nudge("a")
		d.Nudge("a")
		d.Nudge("nobody")
		synctest.Wait()
		if n := len(w.attempts()) - before; n < 1 || n > 2 {
			t.Errorf("%d attempts after a nudge of one", n)
		}
		d.Close(t.Context())
	})
}

func TestWorksOfOneThingRunSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newWorld()
		w.do = func(ctx context.Context, id string, what lifecycle.Work) error {
			if what == reap {
				<-ctx.Done() // hangs
				return ctx.Err()
			}
			w.done(id, what)
			return nil
		}
		w.owe("a", reap|erase)
		w.owe("b", erase)
		d.Tend("a")
		d.Tend("b")
		synctest.Wait()
		if w.owes("a") != reap || w.owes("b") != 0 {
			t.Errorf("one that hangs holds up others: a owes %q, b owes %q", w.owes("a"), w.owes("b"))
		}
		d.Close(t.Context())
	})
}

// The state changes while its work is under way: what it owes then is begun
// when the work settles, without anybody asking.
func TestTheNextWorkIsBegunByTheEndOfTheOneBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newWorld()
		w.do = func(_ context.Context, id string, what lifecycle.Work) error {
			time.Sleep(time.Second)
			if what == kill {
				w.owe(id, reap) // not told by a Tend
			} else {
				w.owe(id, 0)
			}
			return nil
		}
		w.owe("a", kill)
		d.Tend("a")
		time.Sleep(3 * time.Second)
		if w.owes("a") != 0 {
			t.Errorf("a owes %q still", w.owes("a"))
		}
	})
}

// A Tend that comes in the moment in which a flight has found its work done,
// and is not off the desk yet, must not be lost.
func TestNoTendIsLost(t *testing.T) {
	for range 300 {
		w, d := newWorld()
		fast := make(chan struct{})
		w.do = func(_ context.Context, id string, what lifecycle.Work) error {
			w.done(id, what)
			return nil
		}
		w.owe("a", reap)
		go func() {
			defer close(fast)
			for range 20 {
				w.owe("a", reap)
				d.Tend("a")
			}
		}()
		<-fast
		for end := time.Now().Add(5 * time.Second); w.owes("a") != 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("work is owed and nobody does it")
			}
		}
		d.Close(t.Context())
	}
}

func TestCancelEndsTheAttemptAndNotTheWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newWorld()
		w.do = func(ctx context.Context, _ string, _ lifecycle.Work) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Hour):
				return nil
			}
		}
		w.owe("a", reap)
		d.Tend("a")
		time.Sleep(time.Second)
		d.Cancel("a", erase) // not under way: nothing happens
		d.Cancel("a", reap)
		time.Sleep(time.Second)
		if n := len(w.attempts()); n != 2 {
			t.Fatalf("%d attempts", n)
		}
		w.mu.Lock()
		w.do = func(ctx context.Context, id string, what lifecycle.Work) error {
			if ctx.Err() != nil {
				return errors.New("the cancel before ended this attempt, too")
			}
			w.done(id, what)
			return nil
		}
		w.mu.Unlock()
		d.Cancel("a", reap)
		time.Sleep(time.Second)
		if w.owes("a") != 0 {
			t.Error("not tried again with a fresh context")
		}
	})
}

func TestCloseCancelsWaitsAndBeginsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newWorld()
		ended := false
		w.do = func(ctx context.Context, _ string, _ lifecycle.Work) error {
			<-ctx.Done()
			time.Sleep(time.Second) // clears up
			ended = true
			return ctx.Err()
		}
		w.owe("a", reap)
		w.owe("b", erase)
		d.Tend("a")
		synctest.Wait()
		d.Close(t.Context())
		if !ended {
			t.Error("close did not wait for the attempt")
		}
		before := len(w.attempts())
		d.Tend("a")
		d.Tend("b")
		d.Nudge("a")
		d.Cancel("a", reap)
		d.Close(t.Context())
		time.Sleep(time.Hour)
		if after := len(w.attempts()); after != before {
			t.Errorf("%d attempts after the close", after-before)
		}
	})
}

func TestCloseEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newWorld()
		stuck := make(chan struct{})
		w.do = func(context.Context, string, lifecycle.Work) error { <-stuck; return nil }
		w.owe("a", reap)
		d.Tend("a")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		d.Close(ctx)
		if took := time.Since(start); took != time.Second {
			t.Errorf("took %v", took)
		}
		close(stuck)
	})
}

func TestCloseDuringAPauseIsPrompt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newWorld()
		w.owe("a", reap)
		d.Tend("a")
		time.Sleep(10 * time.Minute)
		start, before := time.Now(), len(w.attempts())
		d.Close(t.Context())
		if took := time.Since(start); took > 0 || len(w.attempts()) != before {
			t.Errorf("took %v and %d attempts", took, len(w.attempts())-before)
		}
	})
}
