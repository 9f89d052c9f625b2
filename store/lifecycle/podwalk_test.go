package lifecycle

import (
	"testing"
)

// The pod walk explores every state that a pod of two containers can come to
// that share one shim: the one lives through all that the container walk has
// (deadlines, processes that exec left, removal, a restart of crid anywhere),
// the other through less, so that it comes to an end; the pod is stopped, removed
// or broken at any moment, and its works are done, fail, or are done by halves.
//
// The invariants have the names that the simulation knows them by.

// podWorld is what is really the case with a pod, next to what the law believes.
type podWorld struct {
	p    Pod
	a, b world
	// net, ns: CNI has an attachment, namespaces are pinned.
	net, ns bool
	// broken: a namespace was unmounted from outside, and nobody has seen it yet.
	broken bool
}

// twin is the container that does less: it runs, and comes to its end.
func (w world) twin(t *testing.T) []world {
	var out []world
	if w.alive {
		n := w
		n.alive, n.kids = false, false
		out = append(out, n)
	}
	if w.began > 0 && !w.alive {
		out = append(out, w.do(t, w.truth()))
	}
	if !w.shim {
		out = append(out, w.do(t, SeenShimGone{}))
	}
	return append(out, w.works(t)...)
}

// full is the container that does all that may happen to one that is made.
func (w world) full(t *testing.T) []world {
	out := []world{w.do(t, AskStart{}), w.do(t, AskStop{Now: 0, KillAt: 1}), w.do(t, Due{Now: 1}), w.do(t, AskRemove{})}
	if w.alive {
		n := w
		n.alive = false
		out = append(out, n) // what exec left in it lives on
		n = w
		n.kids = true
		out = append(out, n)
	}
	if w.inPipe {
		out = append(out, w.begin())
	}
	if w.began > 0 && !w.alive {
		out = append(out, w.do(t, w.truth()))
	}
	if !w.shim {
		out = append(out, w.do(t, SeenShimGone{}))
	}
	return append(out, w.works(t)...)
}

func TestPodWalk(t *testing.T) {
	made := world{shim: true}.do(t, Made{})
	start := podWorld{p: Pod{Phase: Ready, Holds: HoldsNS | HoldsNet | HoldsShim}, a: made, b: made, net: true, ns: true}
	for _, e := range []Event{AskStart{}, LaunchBegun{}, StartDone{}} {
		start.b = start.b.do(t, e)
	}
	start.b = start.b.begin()
	seen := map[podWorld]bool{start: true}
	queue := []podWorld{start}
	for len(queue) > 0 {
		w := queue[0]
		queue = queue[1:]
		for _, n := range w.next(t) {
			n.check(t, w)
			if !seen[n] {
				n.survives(t)
				seen[n] = true
				queue = append(queue, n)
				if len(seen)%100_000 == 0 {
					t.Logf("%d states, %d to be looked at", len(seen), len(queue))
				}
			}
		}
	}
	t.Logf("%d states", len(seen))
	if len(seen) < 10_000 {
		t.Fatalf("only %d states: the world is not hostile enough to prove anything", len(seen))
	}
	i := 0
	for w := range seen {
		if i++; i%7 == 0 { // each seventh: every state leads to one of them
			w.settles(t)
		}
	}
}

func (w podWorld) do(t *testing.T, e PodEvent) podWorld {
	next, err := w.p.Step(e)
	if err != nil {
		switch e.(type) {
		case PodHold, PodMade:
		default:
			t.Fatalf("I10: %T is refused: %v", e, err)
		}
		return w
	}
	w.p = next
	return w
}

// members puts back what has become of the containers; they have one shim.
func (w podWorld) members(a, b world) podWorld {
	if a.shim != w.a.shim {
		b.shim, b.inPipe = a.shim, b.inPipe && a.shim
	} else if b.shim != w.b.shim {
		a.shim, a.inPipe = b.shim, a.inPipe && b.shim
	}
	w.a, w.b = a, b
	return w
}

// next answers every world that can come of this one.
func (w podWorld) next(t *testing.T) []podWorld {
	var out []podWorld
	for _, a := range w.a.full(t) {
		if a.c.Phase == Starting && w.a.c.Phase == Created && w.p.Phase != Ready {
			continue // who starts a container looks at its pod first
		}
		out = append(out, w.members(a, w.b))
	}
	for _, b := range w.b.twin(t) {
		out = append(out, w.members(w.a, b))
	}
	out = append(out, w.do(t, AskPodStop{}), w.do(t, AskPodRemove{}))
	out = append(out, w.accidents(t)...)
	out = append(out, w.works(t)...)
	return append(out, w.restart(t), w.reboot(t))
}

func (w podWorld) accidents(t *testing.T) []podWorld {
	var out []podWorld
	if w.a.shim {
		n := w
		n.a.shim, n.a.inPipe, n.b.shim, n.b.inPipe = false, false, false, false
		out = append(out, n)
	} else {
		out = append(out, w.do(t, SeenPodBroken{Why: WhyShim}))
	}
	if w.ns && !w.broken && w.p.Phase == Ready {
		n := w
		n.broken = true
		out = append(out, n)
	}
	if w.broken {
		out = append(out, w.do(t, SeenPodBroken{Why: "a namespace is gone"}))
	}
	return out
}

// works tries what the pod owes.
func (w podWorld) works(t *testing.T) []podWorld {
	var out []podWorld
	owed := w.p.Owes()
	if owed.Has(EndMembers) {
		n := w
		n.a, n.b = n.a.do(t, AskStop{Now: 1, KillAt: 1}), n.b.do(t, AskStop{Now: 1, KillAt: 1})
		out = append(out, n)
		erase := w.p.Phase == PodRemoving && w.p.MembersEnded
		if erase {
			n.a, n.b = n.a.do(t, AskRemove{}), n.b.do(t, AskRemove{})
			out = append(out, n)
		}
		if !n.a.c.Alive() && !n.b.c.Alive() && (!erase || n.a.c.Phase == Gone && n.b.c.Phase == Gone) {
			out = append(out, n.do(t, MembersDone{Erased: erase}))
		}
	}
	if owed.Has(EndSandbox) {
		n := w
		n.a.shim, n.a.inPipe, n.b.shim, n.b.inPipe = false, false, false, false
		out = append(out, n, n.do(t, PodFreed{HoldsShim}))
	}
	if owed.Has(FreeNet) {
		n := w
		n.net = false
		out = append(out, n, n.do(t, PodFreed{HoldsNet}))
	}
	if owed.Has(Unpin) {
		if w.net {
			t.Fatalf("I6: a namespace goes before CNI DEL: %+v", w)
		}
		n := w
		n.ns, n.broken = false, false
		out = append(out, n, n.do(t, PodFreed{HoldsNS}))
	}
	if owed.Has(ErasePod) {
		out = append(out, w.do(t, PodErased{}))
	}
	return out
}

// restart is crid's death and return, in the order in which it recovers.
func (w podWorld) restart(t *testing.T) podWorld {
	n := w
	if n.broken {
		n = n.do(t, SeenPodBroken{Why: "a namespace is gone"})
	}
	for _, m := range []*world{&n.a, &n.b} {
		if r := m.restart(t); r != nil {
			*m = r[0]
		}
	}
	if n.p.Holds&HoldsShim != 0 && !n.a.shim {
		n = n.do(t, SeenPodBroken{Why: WhyShim})
		n.a, n.b = n.a.do(t, SeenShimGone{}), n.b.do(t, SeenShimGone{})
	}
	return n
}

// reboot leaves records and leases.
func (w podWorld) reboot(t *testing.T) podWorld {
	n := w
	n.ns, n.broken = false, false
	for _, m := range []*world{&n.a, &n.b} {
		m.alive, m.kids, m.inPipe, m.shim = false, false, false, false
		switch {
		case m.c.Phase == Starting && !m.c.Launching:
			*m = m.do(t, SeenNeverRan{})
		case m.c.Alive():
			*m = m.do(t, SeenExited{Empty: true})
		}
	}
	return n.do(t, SeenReboot{})
}

// check holds the invariants against one step.
func (w podWorld) check(t *testing.T, from podWorld) {
	lives := false
	for i, m := range []world{w.a, w.b} {
		old := []world{from.a, from.b}[i]
		mLives := m.alive || m.kids
		lives = lives || mLives
		switch {
		case m.c.Phase >= Exited && mLives:
			t.Fatalf("I1: shown as %v while something of it lives: %+v from %+v", m.c.Phase, w, from)
		case m.began > 1:
			t.Fatalf("I3: the workload ran twice: %+v from %+v", w, from)
		case m.stopped > 1 || old.c.Phase >= Exited && m.c.Exit != old.c.Exit:
			t.Fatalf("I4: an end that was shown changed: %+v from %+v", w, from)
		case m.c.InitGone && m.c.Owes().Has(Term):
			t.Fatalf("I5: a signal is owed to a process that is gone: %+v", w)
		case m.c.Phase == Gone && (m.remains || m.inPipe):
			t.Fatalf("I8: the name is free, and something of it is left: %+v from %+v", w, from)
		}
	}
	switch {
	case lives && (from.net && !w.net || from.ns && !w.ns):
		t.Fatalf("I6: taken from under a living process: %+v from %+v", w, from)
	case w.p.Phase == PodGone && (w.net || w.ns || w.a.shim):
		t.Fatalf("I7: the pod is gone, and holds something: %+v from %+v", w, from)
	case w.p.Phase == Stopped && (w.net || w.ns || w.a.shim):
		t.Fatalf("I7: the pod is stopped, and holds something: %+v from %+v", w, from)
	case w.p.Phase == PodGone && (w.a.c.Phase != Gone || w.b.c.Phase != Gone):
		t.Fatalf("I8: the pod's name is free, and a container of it is there: %+v from %+v", w, from)
	}
}

// survives checks what a restart of crid must not change.
func (w podWorld) survives(t *testing.T) {
	n := w.restart(t)
	if w.p.Phase > Ready && n.p.Phase != w.p.Phase {
		t.Fatalf("I9: a restart made a pod %v that was %v: %+v", n.p.Phase, w.p.Phase, w)
	}
	for i, m := range []world{n.a, n.b} {
		old := []world{w.a, w.b}[i]
		switch {
		case old.c.Visible() != m.c.Visible() && m.c.Phase != Removing:
			t.Fatalf("I9: a restart changed whether a container is there: %+v to %+v", old, m)
		case old.c.Phase == Running && old.alive && m.c.Phase != Running:
			t.Fatalf("I9: a restart ended a container that lives: %+v to %+v", old, m)
		case m.c.Stop < old.c.Stop && m.c.Phase == Running:
			t.Fatalf("I9: a restart forgot that a stop was asked for: %+v to %+v", old, m)
		case old.c.RemoveAsked && !m.c.RemoveAsked:
			t.Fatalf("I9: a restart forgot that a removal was asked for: %+v to %+v", old, m)
		}
	}
}

// settles does all that is owed, truthfully, and checks what it comes to.
func (w podWorld) settles(t *testing.T) {
	began := w
	w = w.restart(t) // and with it all that has to be seen is
	for range 40 {
		for _, m := range []*world{&w.a, &w.b} {
			if m.inPipe && m.c.Owes() != Reap {
				*m = m.begin()
			}
			for range 12 {
				if m.c.Owes() == 0 {
					break
				}
				*m = m.settleOnce(t)
			}
		}
		owed := w.p.Owes()
		if owed == 0 {
			break
		}
		all := w.works(t)
		w = all[len(all)-1] // the last is the one that is done
		if owed.Has(EndSandbox) && owed.Has(FreeNet) {
			w.a.shim, w.b.shim = false, false
			w = w.do(t, PodFreed{HoldsShim})
		}
	}
	switch {
	case w.p.Owes() != 0 || w.a.c.Owes() != 0 || w.b.c.Owes() != 0:
		t.Fatalf("I2: never comes to rest: %+v, from %+v", w, began)
	case (w.a.c.Phase == Running) != w.a.alive || (w.b.c.Phase == Running) != w.b.alive:
		t.Fatalf("I2: at rest and untrue: %+v, from %+v", w, began)
	}
}
