package stats

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
)

// A caller with 10 ms left gave up a read that took 100 ms, and the next caller,
// who had all the time there is, was told that the item hangs.
func TestAnImpatientCallerCostsTheNextOneNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &readers{deadline: defaultDeadline, left: map[string]*abandoned{}}
		slow := func(took time.Duration) func(context.Context) (int, error) {
			return func(context.Context) (int, error) { time.Sleep(took); return 7, nil }
		}
		ask := func(patience, took time.Duration) (int, error) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			return one(ctx, r, "c", slow(took))
		}
		if _, err := ask(10*time.Millisecond, 100*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("the first caller got %v", err)
		}
		if n, err := ask(time.Minute, 0); n != 7 || err != nil {
			t.Errorf("the next one got %d, %v", n, err)
		}
		if r.Stuck() != 0 {
			t.Errorf("%d are stuck", r.Stuck())
		}
		// One that hangs for good costs its own deadline once, and nobody's after that.
		_, _ = ask(time.Minute, time.Hour)
		began := time.Now()
		if _, err := ask(time.Minute, 0); !errdefs.IsUnavailable(err) || time.Since(began) > time.Millisecond {
			t.Errorf("the second caller of one that hangs got %v after %v", err, time.Since(began))
		}
		time.Sleep(time.Hour)
		if n, err := ask(time.Minute, 0); n != 7 || err != nil {
			t.Errorf("the first after it came back got %d, %v", n, err)
		}
	})
}
