package sim

import (
	"slices"
	"testing"

	"github.com/crid-project/crid/store/lifecycle/trace"
)

// taken is a step of the law, and the run of crid that took it.
type taken struct {
	trace.Step
	run int
}

// TestTraces replays every step that the law took in some lives: it did what it
// says, and nothing but the law changed a state.
func TestTraces(t *testing.T) {
	keepSteps = true
	defer func() { keepSteps = false }()
	// Where the wall clock is set it is the records that change, behind the law's back.
	steady := script{faults: slices.DeleteFunc(slices.Clone(allFaults), func(k string) bool { return k == clock })}
	total, runs := 0, 0
	for seed := uint64(1); seed <= 25; seed++ {
		res := play(t, seed, steady)
		var c trace.Checker
		run := 0
		for _, s := range res.steps {
			if s.run < run {
				continue // the last breath of one that is dead
			}
			if s.run > run {
				run, runs = s.run, runs+1
				c.Restarted()
			}
			if err := c.Take(s.Step); err != nil {
				t.Errorf("seed %d, run %d: %v", seed, run, err)
			}
		}
		total += c.Steps
	}
	t.Logf("%d steps of %d runs", total, runs)
	if total < 1000 || runs <= 25 {
		t.Errorf("only %d steps of %d runs: too tame to prove anything", total, runs)
	}
}
