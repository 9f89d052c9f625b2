package sim

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/store/lifecycle"
)

var (
	oneSeed  = flag.Uint64("seed", 1, "the seed that TestSeed runs")
	manyUpTo = flag.Int("seeds", 0, "how many seeds TestSeeds tries; 0: a few")
	firstOf  = flag.Uint64("from", 1, "the first of them")
)

// keepSteps is true if the steps of the law are replayed.
var keepSteps bool

// keepLog is true if somebody looks at one seed.
var keepLog bool

// result is what came of a seed.
type result struct {
	failed []string
	lines  []string
	sum    string
	took   time.Duration // simulated
	// What there was to leave out: see script.
	kinds                        []string
	clients, accidents, badCalls int
	lasts                        time.Duration
	steps                        []taken
}

// TestSeed runs one seed and tells all.
func TestSeed(t *testing.T) {
	keepLog = testing.Verbose()
	res := play(t, *oneSeed, given())
	if keepLog || len(res.failed) > 0 {
		for _, l := range res.lines {
			t.Log(l)
		}
	}
	t.Logf("seed %d: %d lines, sum %s, %v simulated", *oneSeed, len(res.lines), res.sum, res.took)
	for _, f := range res.failed {
		t.Error(f)
	}
}

// play runs one seed in a bubble of its own.
func play(t *testing.T, seed uint64, sc script) (res result) {
	t.Helper()
	// Two goroutines at once would make an order that no seed knows.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	cryptotest.SetGlobalRandom(t, seed)
	dir, err := os.MkdirTemp(memory(), "crid-sim-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	synctest.Test(t, func(*testing.T) {
		res = scenario(seed, sc, dir)
	})
	return res
}

// scenario is a node's life: clients and faults for a while, then calm, in
// which everything has to come to rest, then the end of all pods.
func scenario(seed uint64, sc script, dir string) result {
	m := newMachine(seed, sc, dir)
	e := newEye(m)
	s := &supervisor{m: m, eye: e}
	m.SetHooks(m.hooks(s.upNo))
	for _, d := range []string{m.root, m.state} {
		_ = os.MkdirAll(d, 0o700)
	}
	plot := m.of("plot")
	m.pause = plot.chance(0.3)
	f := newFaults(m, s)
	s.start()
	var clients []*client
	var wg sync.WaitGroup
	crowd := 2 + plot.n(2)
	for i := range crowd {
		if !sc.plays(i) {
			continue
		}
		name := fmt.Sprintf("p%d", i)
		c := &client{s: s, m: m, dice: m.of(name), name: name, impatient: f.kinds[impatient]}
		clients = append(clients, c)
		wg.Go(c.live)
	}
	go f.play()
	lasts := plot.between(5*time.Second, 60*time.Second)
	if sc.until > 0 {
		lasts = min(lasts, sc.until)
	}
	time.Sleep(lasts)
	m.mu.Lock()
	m.calm, m.full, m.calmAt = true, false, time.Now()
	m.mu.Unlock()
	m.note("calm")
	m.LoseEvents(false)
	time.Sleep(m.between(20*time.Second, 21*time.Second)) // what was under way takes effect
	wg.Wait()
	m.rest(s, "at rest")
	for _, c := range clients {
		c.end()
	}
	m.rest(s, "at the end")
	for end := time.Now().Add(2 * patience); ; {
		left := m.leftovers(s)
		if len(left) == 0 {
			break
		}
		if time.Now().After(end) {
			for _, l := range left {
				m.violated("leak", "%s", l)
			}
			break
		}
		time.Sleep(5 * time.Second) // what could not be swept is tried again
	}
	for _, r := range s.all {
		r.bury()
	}
	for _, sh := range m.shims {
		_ = sh.Process().Signal(unix.SIGKILL)
	}
	took := time.Since(m.began)
	time.Sleep(10 * time.Minute) // every deadline of what was buried
	m.mu.Lock()
	defer m.mu.Unlock()
	sum := sha256.Sum256([]byte(strings.Join(m.lines, "\n")))
	return result{failed: m.failed, lines: m.lines, sum: fmt.Sprintf("%x", sum[:6]), took: took,
		kinds: f.on(), clients: crowd, accidents: f.accidents, badCalls: f.badCalls, lasts: lasts, steps: m.steps}
}

// patience is within what time a calm machine comes to rest.
const patience = 3 * time.Minute

// rest waits until nothing is owed, and compares records and world.
func (m *machine) rest(s *supervisor, when string) {
	end := time.Now().Add(patience)
	for {
		owed := m.owed(s)
		if owed == "" {
			break
		}
		if time.Now().After(end) {
			m.violated("liveness", "%s: %s", when, owed)
			return
		}
		time.Sleep(m.between(100*time.Millisecond, time.Second))
	}
	r := s.cur.Load()
	r.eye.look(r)
	for _, v := range r.ledger.Containers() {
		w, known := m.truth(v.ID)
		alive := known && !w.init.Exited()
		m.mu.Lock()
		root := m.rootfs[v.ID]
		m.mu.Unlock()
		if !root && !m.isExempt(v.ID) {
			m.violated("truth", "%s: %s is %s, and has no root file system", when, short(v.ID), v.State.Phase)
		}
		if (v.State.Phase == lifecycle.Running) != alive {
			m.violated("truth", "%s: %s is %s, its process lives: %v", when, short(v.ID), v.State.Phase, alive)
		}
	}
	for _, p := range r.ledger.Pods() {
		m.mu.Lock()
		net, ns := m.nets[p.ID] > 0, m.pins[p.NetNS]
		m.mu.Unlock()
		_, err := r.pods.Of(p.ID)
		if p.State.Phase == lifecycle.Ready && p.Pause && (p.PIDNS != "" || m.pause) && m.livesOf(p.ID) == nil {
			m.violated("truth", "%s: pod %s is ready, and its sandbox process is gone", when, short(p.ID))
		}
		if p.State.Phase == lifecycle.Ready && (!net || !ns || err != nil) {
			m.violated("truth", "%s: pod %s is ready, network %v, namespace %v, shim %v", when, short(p.ID), net, ns, err)
		}
		if p.State.Phase == lifecycle.Stopped && (net || ns || err == nil) {
			m.violated("I7", "%s: pod %s is stopped, network %v, namespace %v, shim %v", when, short(p.ID), net, ns, err)
		}
	}
}

// owed says what is not done yet.
func (m *machine) owed(s *supervisor) string {
	if s.upNo() == 0 {
		return "crid does not answer"
	}
	r := s.cur.Load()
	if !r.reconciler.Settled() {
		return "crid has not settled"
	}
	for _, v := range r.ledger.Containers() {
		if tag := m.givenUp(v.ID, r.no); tag != "" {
			return fmt.Sprintf("exec %s in container %s was given up, and its process lives", tag, short(v.ID))
		}
		if w := v.State.Owes(); w != 0 || v.State.Phase == lifecycle.Making {
			return fmt.Sprintf("container %s is %s and owes %q (%v)", short(v.ID), v.State.Phase, w, r.containers.Late(0))
		}
	}
	for _, p := range r.ledger.Pods() {
		if w := p.State.Owes(); w != 0 || p.State.Phase == lifecycle.PodMaking {
			return fmt.Sprintf("pod %s is %s and owes %q (%v)", short(p.ID), p.State.Phase, w, r.pods.Late(0))
		}
	}
	if l := append(r.containers.Late(0), r.pods.Late(0)...); len(l) > 0 {
		return fmt.Sprintf("work goes on: %v", l)
	}
	return ""
}

// leftovers are what a machine without pods has no business to have.
func (m *machine) leftovers(s *supervisor) (left []string) {
	r := s.cur.Load()
	if r.ledger == nil {
		return nil // that is told already
	}
	known := map[string]bool{}
	for _, v := range r.ledger.Containers() {
		known[v.ID] = true
	}
	for _, p := range r.ledger.Pods() {
		known[p.ID] = true
	}
	gone := func(what, id string) {
		if !known[id] {
			left = append(left, what+" of "+short(id))
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range []string{"pods", "containers", "fenced"} {
		for _, p := range glob(m.state, d, "*") {
			gone(d+" folder", filepath.Base(p))
		}
	}
	for _, p := range glob(m.handlerDir, "*", "*") {
		gone("runtime state", filepath.Base(p))
	}
	for id := range m.rootfs {
		gone("root file system", id)
	}
	for p := range m.mounts {
		gone("mount", ownerOf(m.state, p))
	}
	for p := range m.pins {
		gone("namespace", ownerOf(m.state, p))
	}
	for id := range m.nets {
		gone("network", id)
	}
	for p := range m.cgroups {
		if p != "/crid" {
			gone("cgroup "+p, strings.Split(p, "/")[2])
		}
	}
	for id, sh := range m.shims {
		if !sh.Process().Exited() {
			gone("shim", id)
		}
	}
	for id, w := range m.byID {
		for _, p := range w.all {
			if !p.Exited() {
				gone("process", id)
			}
		}
	}
	slices.Sort(left)
	return left
}

func glob(parts ...string) []string {
	out, _ := filepath.Glob(filepath.Join(parts...))
	return out
}
