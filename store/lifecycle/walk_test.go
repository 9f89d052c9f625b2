package lifecycle

import (
	"testing"
)

// The walk explores every state that a container can come to in a small hostile
// world, breadth first: the process dies by itself, the shim dies, sightings
// come late, twice, out of order or not at all, work fails or takes effect
// after it was given up, crid restarts, a removal comes at any time.

// world is what is really the case, next to what the law believes.
type world struct {
	c Container
	// began counts how often the workload was set going.
	began int
	// alive: the workload's process lives; kids: others in its cgroup do.
	alive, kids bool
	// inPipe: a start was sent to the shim and has not taken effect yet.
	inPipe bool
	// shim: the shim lives.
	shim bool
	// remains: shim, mounts or cgroup hold something.
	remains bool
	// stopped counts the announced ends.
	stopped int
}

func TestWalk(t *testing.T) {
	start := world{shim: true}
	seen := map[world]bool{start: true}
	queue := []world{start}
	for len(queue) > 0 {
		w := queue[0]
		queue = queue[1:]
		for _, n := range w.next(t) {
			n.check(t, w)
			if !seen[n] {
				seen[n] = true
				queue = append(queue, n)
			}
		}
	}
	t.Logf("%d states", len(seen))
	if len(seen) < 300 {
		t.Fatalf("only %d states: the world is not hostile enough to prove anything", len(seen))
	}
	for w := range seen {
		if !w.settles(t) {
			t.Errorf("never comes to rest: %+v", w)
		}
	}
}

func (w world) do(t *testing.T, e Event) world {
	next, err := w.c.Step(e)
	if err != nil {
		if _, ask := e.(request); !ask {
			t.Fatalf("sighting or completion %T is refused: %v", e, err)
		}
		return w
	}
	for _, n := range Announce(w.c, next) {
		if n == NoticeStopped {
			w.stopped++
		}
	}
	w.c = next
	return w
}

// truth is a sighting of the main process's end as it really is.
func (w world) truth() SeenExited {
	return SeenExited{Code: 5, Source: Kernel, Empty: !w.kids}
}

// next answers every world that can come of this one.
func (w world) next(t *testing.T) []world {
	out := w.requests(t)
	out = append(out, w.accidents()...)
	out = append(out, w.works(t)...)
	if w.began > 0 && !w.alive {
		out = append(out, w.do(t, w.truth())) // also late, twice, in any phase
	}
	if !w.shim {
		out = append(out, w.do(t, SeenShimGone{}))
	}
	out = append(out, w.do(t, SeenNoTask{})) // a lie at times
	return append(out, w.restart(t)...)
}

func (w world) requests(t *testing.T) []world {
	return []world{w.do(t, AskStart{}), w.do(t, AskStop{Now: 0, KillAt: 1}), w.do(t, AskStop{Now: 1, KillAt: 1}),
		w.do(t, Due{Now: 1}), w.do(t, AskRemove{}), w.do(t, Made{}), w.do(t, MakeFailed{})}
}

// accidents happen in the world and are not told to anybody.
func (w world) accidents() []world {
	var out []world
	if w.alive {
		n := w
		n.alive = false
		out = append(out, n) // with its children left behind
		n.kids = false
		out = append(out, n)
	}
	if w.alive && !w.kids {
		n := w
		n.kids = true
		out = append(out, n)
	}
	if w.shim {
		n := w
		n.shim, n.inPipe = false, false
		out = append(out, n)
	}
	if w.inPipe {
		out = append(out, w.begin()) // the start takes effect, however late
	}
	return out
}

func (w world) begin() world {
	w.inPipe, w.alive, w.remains = false, true, true
	w.began++
	return w
}

// works tries what is owed: done, failed, or given up while it goes on.
func (w world) works(t *testing.T) []world {
	var out []world
	owed := w.c.Owes()
	if owed.Has(Launch) && !w.c.Launching {
		n := w.do(t, LaunchBegun{})
		if n.shim {
			n.inPipe = true
		}
		out = append(out, n)
	}
	if owed.Has(Launch) && w.c.Launching {
		if w.began > 0 {
			out = append(out, w.do(t, StartDone{}))
		}
		// Given up: fenced off and killed before the law is told.
		n := w
		n.inPipe, n.alive, n.kids = false, false, false
		out = append(out, n.do(t, StartFailed{}))
	}
	if owed.Has(Term) {
		out = append(out, w.do(t, TermDone{}))
	}
	if owed.Has(Kill) {
		n := w
		n.alive, n.kids = false, false
		out = append(out, n, n.do(t, n.truth()))
	}
	if owed.Has(Reap) && !w.alive && !w.kids {
		n := w
		n.inPipe, n.remains = false, false
		out = append(out, n.do(t, ReapDone{}))
	}
	if owed.Has(Erase) {
		out = append(out, w.do(t, EraseDone{}))
	}
	return out
}

// restart is crid's death and return: the record stays, the world is looked at.
func (w world) restart(t *testing.T) []world {
	n := w
	switch n.c.Phase {
	case Making:
		return []world{n.do(t, MakeFailed{})}
	case Starting:
		if !n.c.Launching {
			return []world{n.do(t, SeenNeverRan{})}
		}
		if n.began > 0 {
			n = n.do(t, SeenRunning{})
			if !n.alive {
				n = n.do(t, n.truth())
			}
			return []world{n}
		}
		n.inPipe, n.alive, n.kids = false, false, false // fenced and killed first
		return []world{n.do(t, SeenNeverRan{})}
	case Running:
		if !n.alive {
			return []world{n.do(t, n.truth())}
		}
	case Created, Exited, Removing, Gone:
	}
	return nil
}

// check holds the invariants against one step.
func (w world) check(t *testing.T, from world) {
	switch {
	case w.c.Phase >= Exited && (w.alive || w.kids):
		t.Fatalf("shown as %v while something of it lives: %+v from %+v", w.c.Phase, w, from)
	case w.began > 1:
		t.Fatalf("the workload ran twice: %+v from %+v", w, from)
	case from.c.Phase >= Exited && w.c.Exit != from.c.Exit:
		t.Fatalf("the exit changed after it was shown: %+v to %+v", from.c.Exit, w.c.Exit)
	case w.stopped > 1:
		t.Fatalf("two ends announced: %+v", w)
	case w.c.Phase < from.c.Phase && (from.c.Phase != Starting || w.c.Phase != Created):
		t.Fatalf("went back from %v to %v", from.c.Phase, w.c.Phase)
	case w.c.Stop < from.c.Stop && from.c.Phase != Starting:
		t.Fatalf("a stop went back from %v to %v", from.c.Stop, w.c.Stop)
	case w.c.Phase == Gone && w.remains:
		t.Fatalf("gone with remains: %+v from %+v", w, from)
	case w.c.Phase == Running && w.c.Stop == Killing && w.c.Owes() != Kill:
		t.Fatalf("a kill is not owed any more: %+v", w)
	}
}

// settles does all that is owed, truthfully, and reports whether an end comes.
func (w world) settles(t *testing.T) bool {
	for range 30 {
		if w.inPipe {
			w = w.begin()
		}
		owed := w.c.Owes()
		if owed == 0 {
			return true
		}
		w = w.settleOnce(t)
	}
	return false
}

// settleOnce does what is owed, truthfully.
func (w world) settleOnce(t *testing.T) world {
	owed := w.c.Owes()
	switch {
	case owed.Has(Launch):
		if !w.c.Launching {
			w = w.do(t, LaunchBegun{})
			if w.began == 0 {
				w = w.begin()
			}
		}
		w = w.do(t, StartDone{})
	case owed.Has(Term):
		w = w.do(t, TermDone{})
	case owed.Has(Kill):
		w.alive, w.kids = false, false
		w = w.do(t, w.truth())
	case owed.Has(Reap):
		w.alive, w.kids, w.remains = false, false, false
		w = w.do(t, ReapDone{})
	case owed.Has(Erase):
		w = w.do(t, EraseDone{})
	}
	return w
}
