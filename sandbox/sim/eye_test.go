package sim

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

// eye looks at what crid shows and at what is true, after every step.
type eye struct {
	m *machine

	mu       sync.Mutex
	told     map[string]bool // violations already reported
	shown    map[string]shown
	promised map[string]promise
	stopped  map[stoppedKey]int
	onDisk   map[string]int // ends, and the first run that wrote them
}

// saved notes that the end of a container is on disk.
func (e *eye) saved(id string, run int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.onDisk[id] == 0 {
		e.onDisk[id] = run
	}
}

type shown struct {
	exit     lifecycle.Exit
	finished int64
	run      int
}

type stoppedKey struct {
	run int
	id  string
}

// promise is what an answer has said of a pod or container.
type promise struct {
	what            string // "pod" or "container"
	exists, absent  bool
	started, ended  bool
	removalUnderWay bool
	config          string // of a container's last update; empty: none, or one is under way
}

func newEye(m *machine) *eye {
	return &eye{m: m, told: map[string]bool{}, shown: map[string]shown{}, promised: map[string]promise{}, stopped: map[stoppedKey]int{}, onDisk: map[string]int{}}
}

// promise changes what is known to have been answered.
func (e *eye) promise(id string, f func(*promise)) {
	if id == "" {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.promised[id]
	f(&p)
	e.promised[id] = p
}

func (e *eye) say(what, id, format string, args ...any) {
	if k := what + id; !e.told[k] {
		e.told[k] = true
		e.m.violated(what, format, args...)
	}
}

// bound is within what time the truth has to be shown. Of a shim that could not
// be taken up at once it may last until it is looked at again.
const (
	bound     = 2 * time.Second
	shimBound = 20 * time.Second
)

// look checks all invariants that hold at any time.
func (e *eye) look(r *run) {
	up := r.up.Load()
	if up == 0 || r.dead.Load() {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	names := map[string]string{}
	there := map[string]bool{}
	for _, v := range r.ledger.Containers() {
		there[v.ID] = v.State.Visible()
		e.container(r, v, time.Duration(up))
		if v.State.Visible() && v.State.Phase < lifecycle.Exited {
			k := fmt.Sprint(v.PodID, v.Name)
			if other := names[k]; other != "" {
				e.say("I8", k, "containers %s and %s live under one name", short(other), short(v.ID))
			}
			names[k] = v.ID
		}
	}
	for _, p := range r.ledger.Pods() {
		there[p.ID] = p.State.Visible()
		if p.State.Phase == lifecycle.Ready {
			k := fmt.Sprint(p.Name)
			if other := names[k]; other != "" {
				e.say("I8", k, "pods %s and %s live under one name", short(other), short(p.ID))
			}
			names[k] = p.ID
		}
	}
	for id, p := range e.promised {
		if e.m.isExempt(id) {
			continue
		}
		switch {
		case p.exists && !p.removalUnderWay && !there[id]:
			e.say("I9", id, "%s %s was answered and is not there", p.what, short(id))
		case p.absent && there[id]:
			e.say("I9", id, "%s %s was answered as removed and is there", p.what, short(id))
		}
	}
}

func (e *eye) container(r *run, v *store.Container, up time.Duration) {
	w, known := e.m.truth(v.ID)
	now := time.Since(e.m.began)
	switch v.State.Phase {
	case lifecycle.Exited, lifecycle.Removing:
		if p := e.m.livesOf(v.ID); p != nil {
			e.say("I1", v.ID, "%s is shown as %s and its pid %d lives", short(v.ID), v.State.Phase, p.Process().Pid)
		}
	case lifecycle.Running:
		if known && w.init.Exited() {
			last := w.endedAt
			alive := false
			for _, p := range w.all {
				alive = alive || !p.Exited()
			}
			if w.lastEnd.After(last) {
				last = w.lastEnd
			}
			if since := now - max(last.Sub(e.m.began), up); !alive && since > bound {
				e.say("I2", v.ID, "%s is shown as running %v after its end", short(v.ID), since)
			}
		}
		died, dead := e.m.shimDied(v.PodID)
		if dead && v.State.Stop != lifecycle.Killing && now-max(died.Sub(e.m.began), up) > bound+shimBound {
			e.say("shim", v.ID, "the shim of %s died %v ago, and it is not being killed", short(v.ID), now-died.Sub(e.m.began))
		}
	case lifecycle.Making, lifecycle.Created, lifecycle.Starting, lifecycle.Gone:
	}
	if v.StartedAt > 0 && v.StartedAt < v.CreatedAt || v.FinishedAt() > 0 && v.FinishedAt() < v.StartedAt {
		e.say("times", v.ID, "%s is shown as created at %d, started at %d, finished at %d", short(v.ID), v.CreatedAt, v.StartedAt, v.FinishedAt())
	}
	if e.m.isExempt(v.ID) {
		return
	}
	if p := e.promised[v.ID]; p.config != "" && !p.removalUnderWay && v.Config != sealed(p.config) {
		e.say("I9u", v.ID, "the update of %s to %s was answered and it is shown with %s", short(v.ID), p.config, v.Config)
	}
	if p := e.promised[v.ID]; p.started && r.reconciler.Settled() && !p.removalUnderWay && v.State.Phase < lifecycle.Running {
		e.say("I9s", v.ID, "the start of %s was answered and it is shown as %s", short(v.ID), v.State.Phase)
	} else if p.started && p.ended && v.State.Phase < lifecycle.Exited {
		e.say("I9e", v.ID, "the end of %s was answered and it is shown as %s", short(v.ID), v.State.Phase)
	}
	if v.State.Phase == lifecycle.Exited {
		e.exit(r, v, w, known)
	}
}

// exit checks how a container is shown to have ended.
func (e *eye) exit(r *run, v *store.Container, w workload, known bool) {
	x := v.State.Exit
	old, seen := e.shown[v.ID]
	if seen && old.run != r.no && (e.onDisk[v.ID] == 0 || e.onDisk[v.ID] > old.run) {
		seen = false // crid was killed before the end was on disk, which may have been full
	}
	if seen {
		if old.exit.Code != x.Code || old.exit.OOM != x.OOM || old.run == r.no && (old.exit != x || old.finished != v.FinishedAt()) {
			e.say("I4", v.ID, "the exit of %s changed from %+v to %+v", short(v.ID), old.exit, x)
		}
		return
	}
	e.shown[v.ID] = shown{x, v.FinishedAt(), r.no}
	if sh := e.m.shimOf(v.PodID); x.Source == lifecycle.Runtime && strings.HasPrefix(x.Message, "shim of pod sandbox") && sh != nil && !sh.Process().Exited() {
		e.say("start", v.ID, "the start of %s failed for want of a shim that lives: %s", short(v.ID), x.Message)
	}
	if !known || w.init == nil {
		return
	}
	st, _ := w.init.Status()
	switch {
	case x.Source == lifecycle.Runtime:
	case x.Source == lifecycle.Assumed:
		// One whose start was cut short before its workload began was never held: that it was killed is all there is to know.
		if w.upThen == r.no && (w.begun > 0 || st.Code() != int(x.Code)) {
			e.say("code", v.ID, "%s ended with %d before the eyes of crid, which shows %+v", short(v.ID), st.Code(), x)
		}
	case int(x.Code) != st.Code():
		e.say("code", v.ID, "%s ended with %d and is shown with %+v", short(v.ID), st.Code(), x)
	}
	if x.OOM && !w.oomed {
		e.say("oom", v.ID, "%s is shown as out of memory", short(v.ID))
	}
}

// kills is told that crid signals a container to its end. One of which the start
// was answered has to have been asked to go.
func (e *eye) kills(w *workload) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.promised[w.id].started && e.m.unasked(w) {
		e.say("killed", w.id, "%s is killed, and nobody asked for it", short(w.id))
	}
}

// follow counts the announced ends of one run.
func (e *eye) follow(r *run) {
	sub := r.ledger.Subscribe(1000)
	defer sub.Cancel()
	for {
		select {
		case <-r.gone:
			return
		case <-r.ctx.Done():
			return
		case n, ok := <-sub.Notices:
			if !ok {
				return
			}
			if n.Kind != lifecycle.NoticeStopped || n.Container == nil {
				continue
			}
			e.mu.Lock()
			k := stoppedKey{r.no, n.Container.ID}
			e.stopped[k]++
			if e.stopped[k] > 1 {
				e.say("I4s", k.id, "the end of %s was announced twice", short(k.id))
			}
			e.mu.Unlock()
		}
	}
}
