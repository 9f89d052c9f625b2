package gate

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A hundred execs at once were a hundred processes of the OCI runtime at once, and crid was killed for memory.
func TestAHundredExecsAreStartedAFewAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &Gate{all: 8, each: 4, of: map[string]int{}}
		var mu sync.Mutex
		most, now, done := 0, 0, 0
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				leave, err := g.Enter(t.Context(), fmt.Sprint(i%10))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				now++
				most = max(most, now)
				mu.Unlock()
				time.Sleep(30 * time.Millisecond)
				mu.Lock()
				now--
				done++
				mu.Unlock()
				leave()
				leave()
			})
		}
		wg.Wait()
		if most != 8 || done != 100 || g.inside != 0 || len(g.of) != 0 || len(g.waiting) != 0 {
			t.Errorf("at most %d at once, %d done; left: %+v", most, done, g)
		}
	})
}

// One pod's shim hangs, and every exec of it; those of others must not wait for them.
func TestAPodWhoseExecsHangKeepsNobodyOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &Gate{all: 8, each: 4, of: map[string]int{}}
		hung, free := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if leave, err := g.Enter(hung, "hung"); err == nil {
					<-hung.Done()
					leave()
				}
			})
		}
		synctest.Wait()
		for range 20 {
			began := time.Now()
			leave, err := g.Enter(t.Context(), "other")
			if err != nil || time.Since(began) > 0 {
				t.Errorf("an exec of another pod waited %v: %v", time.Since(began), err)
			}
			leave()
		}
		// Of its own pod it waits its turn: four each time that some are overdue.
		began := time.Now()
		leave, err := g.Enter(t.Context(), "hung")
		if took := time.Since(began); err != nil || took < 10*overdue || took > 13*overdue {
			t.Errorf("one more of the same pod waited %v: %v", took, err)
		}
		leave()
		free()
		wg.Wait()
		if g.inside != 0 || len(g.waiting) != 0 {
			t.Errorf("left: %+v", g)
		}
	})
}

// A caller who gives up while it waits is forgotten.
func TestWhoGivesUpWaitingTakesNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &Gate{all: 1, each: 1, of: map[string]int{}}
		leave, _ := g.Enter(t.Context(), "a")
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := g.Enter(ctx, "a"); err == nil || len(g.waiting) != 0 {
			t.Errorf("got %v, %d wait", err, len(g.waiting))
		}
		leave()
		if leave, err := g.Enter(t.Context(), "a"); err != nil {
			t.Error(err)
		} else {
			leave()
		}
	})
}
