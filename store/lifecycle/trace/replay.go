package trace

import (
	"encoding/json"
	"fmt"

	"github.com/crid-project/crid/store/lifecycle"
)

// containerEvents and podEvents are all events by name.
var containerEvents = table(
	named[lifecycle.AskStart, lifecycle.Event], named[lifecycle.AskStop, lifecycle.Event], named[lifecycle.AskRemove, lifecycle.Event],
	named[lifecycle.Made, lifecycle.Event], named[lifecycle.MakeFailed, lifecycle.Event], named[lifecycle.LaunchBegun, lifecycle.Event],
	named[lifecycle.StartDone, lifecycle.Event], named[lifecycle.StartFailed, lifecycle.Event], named[lifecycle.TermDone, lifecycle.Event],
	named[lifecycle.Due, lifecycle.Event], named[lifecycle.ReapDone, lifecycle.Event], named[lifecycle.EraseDone, lifecycle.Event],
	named[lifecycle.SeenExited, lifecycle.Event], named[lifecycle.SeenNeverRan, lifecycle.Event], named[lifecycle.SeenRunning, lifecycle.Event],
	named[lifecycle.SeenNoTask, lifecycle.Event], named[lifecycle.SeenShimGone, lifecycle.Event],
)

var podEvents = table(
	named[lifecycle.PodHold, lifecycle.PodEvent], named[lifecycle.PodMade, lifecycle.PodEvent], named[lifecycle.PodMakeFailed, lifecycle.PodEvent],
	named[lifecycle.AskPodStop, lifecycle.PodEvent], named[lifecycle.AskPodRemove, lifecycle.PodEvent], named[lifecycle.MembersDone, lifecycle.PodEvent],
	named[lifecycle.PodFreed, lifecycle.PodEvent], named[lifecycle.PodErased, lifecycle.PodEvent], named[lifecycle.SeenPodBroken, lifecycle.PodEvent],
	named[lifecycle.SeenReboot, lifecycle.PodEvent],
)

type reader[E any] func(input []byte) (E, error)

func named[T, E any]() (string, reader[E]) {
	var zero T
	return fmt.Sprintf("%T", zero)[len("lifecycle."):], func(input []byte) (E, error) {
		var v T
		err := json.Unmarshal(input, &v)
		e, _ := any(v).(E) // an event of the other kind fails the test of the table
		return e, err
	}
}

func table[E any](all ...func() (string, reader[E])) map[string]reader[E] {
	m := map[string]reader[E]{}
	for _, f := range all {
		name, read := f()
		m[name] = read
	}
	return m
}

// Replay takes the step again and reports where the law does not do as written.
func (s Step) Replay() error {
	switch s.Kind {
	case "container":
		var c lifecycle.Container
		return again(s, containerEvents, &c, func(e lifecycle.Event) (any, lifecycle.Work, error) {
			next, err := c.Step(e)
			return next, next.Owes(), err
		})
	case "pod":
		var p lifecycle.Pod
		return again(s, podEvents, &p, func(e lifecycle.PodEvent) (any, lifecycle.Work, error) {
			next, err := p.Step(e)
			return next, next.Owes(), err
		})
	}
	return fmt.Errorf("a step of neither container nor pod: %+v", s)
}

func again[E any](s Step, events map[string]reader[E], old any, take func(E) (any, lifecycle.Work, error)) error {
	read := events[s.Event]
	if read == nil {
		return fmt.Errorf("%s %s: no such event: %s", s.Kind, s.ID, s.Event)
	}
	e, err := read([]byte(s.Input))
	if err == nil {
		err = json.Unmarshal([]byte(s.Old), old)
	}
	if err != nil {
		return fmt.Errorf("%s %s: read %s of %s: %w", s.Kind, s.ID, s.Event, s.Old, err)
	}
	now, owes, err := take(e)
	switch {
	case err != nil:
		return fmt.Errorf("%s %s: %s is refused in %s, and was not: %w", s.Kind, s.ID, s.Event, s.Old, err)
	case encode(now) != s.Now:
		return fmt.Errorf("%s %s: %s%s makes %s of %s, and made %s", s.Kind, s.ID, s.Event, s.Input, encode(now), s.Old, s.Now)
	case owes.String() != s.Owes:
		return fmt.Errorf("%s %s: %s owes %q, and owed %q", s.Kind, s.ID, s.Now, owes, s.Owes)
	}
	return nil
}

// Checker follows the steps of one ledger in the order in which they were taken.
// The zero value has seen none.
type Checker struct {
	last map[string]string          // the newest state by id, in this run
	had  map[string]map[string]bool // all states, in all runs
	// Steps counts.
	Steps int
}

// Restarted says that the next step is another run's: what was written last of
// each record may not have been on disk.
func (c *Checker) Restarted() { c.last = nil }

// Take replays a step, and checks that it goes on from where the last one of the
// same thing ended.
func (c *Checker) Take(s Step) error {
	c.Steps++
	if c.last == nil {
		c.last = map[string]string{}
	}
	if c.had == nil {
		c.had = map[string]map[string]bool{}
	}
	last, known := c.last[s.ID]
	had := c.had[s.ID]
	c.last[s.ID] = s.Now
	if had == nil {
		had = map[string]bool{newborn(s.Kind): true}
		c.had[s.ID] = had
	}
	had[s.Now] = true
	switch {
	case known && last != s.Old:
		return fmt.Errorf("%s %s: was left as %s, and %s found it as %s: something else changed it", s.Kind, s.ID, last, s.Event, s.Old)
	case !known && !had[s.Old]:
		return fmt.Errorf("%s %s: %s found it as %s, which it never was", s.Kind, s.ID, s.Event, s.Old)
	}
	return s.Replay()
}

// newborn is the state of what nothing has happened to.
func newborn(kind string) string {
	if kind == "pod" {
		return encode(lifecycle.Pod{})
	}
	return encode(lifecycle.Container{})
}
