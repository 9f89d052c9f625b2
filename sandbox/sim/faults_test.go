package sim

import (
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/fake"
)

// kinds of faults. A seed has some of them: all at once would hide each other.
const (
	exits     = "exits"      // a process ends by itself
	kids      = "kids"       // children are left in the cgroup
	sticks    = "sticks"     // a process hangs in the kernel for a while
	shimDies  = "shim-dies"  // SIGKILL
	shimHangs = "shim-hangs" // SIGSTOP, and SIGCONT later
	jams      = "jams"       // a command of the OCI runtime hangs
	forgets   = "forgets"    // the OCI runtime forgets a container
	rpcFails  = "rpc-fails"  // before or after the effect
	rpcSlow   = "rpc-slow"
	rpcLate   = "rpc-late" // timed out, and takes effect later
	events    = "events"   // lost and repeated
	recycles  = "recycles" // pids are given away
	calls     = "calls"    // CNI and images fail or are slow
	diskFull  = "disk-full"
	crashes   = "crashes" // crid is killed
	moved     = "moved"   // the cgroup is emptied from outside
	netnsLost = "netns-lost"
	impatient = "impatient" // clients leave early
)

var allFaults = []string{exits, kids, sticks, shimDies, shimHangs, jams, forgets, rpcFails, rpcSlow, rpcLate, events, recycles, calls,
	diskFull, crashes, moved, netnsLost, impatient}

// faults makes the world misbehave.
type faults struct {
	m     *machine
	s     *supervisor
	kinds map[string]bool
	rate  float64
}

func newFaults(m *machine, s *supervisor) *faults {
	f := &faults{m: m, s: s, kinds: map[string]bool{}, rate: 0.02 + 0.2*float64(m.n(100))/100}
	for _, k := range allFaults {
		if only := onlyFaults(); only != nil && !slices.Contains(only, k) {
			continue
		}
		f.kinds[k] = m.chance(0.4)
	}
	m.mishaps = f.kinds
	m.rate = f.rate
	m.SetFault(f.call)
	var on []string
	for _, k := range allFaults {
		if f.kinds[k] {
			on = append(on, k)
		}
	}
	m.note("faults: %s, rate %.2f", strings.Join(on, " "), f.rate)
	return f
}

// mishap reports whether a call is to go wrong.
func (m *machine) mishap(string, string, string) bool {
	return !m.isCalm() && m.mishaps[calls] && m.chance(m.rate)
}

// call is asked about each call to a shim.
func (f *faults) call(c fake.Call) fake.Fault {
	if f.m.isCalm() {
		return fake.Fault{}
	}
	switch {
	case f.kinds[rpcFails] && f.m.chance(f.rate/2):
		after := f.m.chance(0.5)
		f.m.note("     %s %s fails, effect %v", c.Method, short(c.ID), after)
		return fake.Fault{Err: errInjected, After: after}
	case f.kinds[rpcSlow] && f.m.chance(f.rate/2):
		d := f.m.between(time.Millisecond, 15*time.Second)
		f.m.note("     %s %s takes %v", c.Method, short(c.ID), d)
		return fake.Fault{Delay: d, Hang: f.m.chance(0.2), After: true}
	case f.kinds[rpcLate] && f.m.chance(f.rate/2) && c.Method != "Wait":
		d := f.m.between(time.Millisecond, 20*time.Second)
		f.m.note("     %s %s takes effect after %v", c.Method, short(c.ID), d)
		if c.Shim == "" || c.Method == "Launch" || c.Method == "Adopt" || c.Method == "KillShim" || c.Method == "KillStuckCommands" {
			return fake.Fault{Hang: true, Delay: d, After: true, Err: shimclient.ErrUnreachable}
		}
		return fake.Fault{Late: d, Outlives: f.m.chance(0.5)}
	}
	return fake.Fault{}
}

// play lets accidents happen until the machine is calm.
func (f *faults) play() {
	acts := []struct {
		kind string
		do   func()
	}{
		{exits, f.exit}, {exits, f.exit}, {kids, f.kid}, {sticks, f.stick}, {shimDies, f.shimDie}, {shimHangs, f.shimHang}, {jams, f.jam},
		{forgets, f.forget}, {events, f.event}, {recycles, f.recycle}, {diskFull, f.fillDisk}, {crashes, f.crash}, {moved, f.move},
		{netnsLost, f.loseNetns},
	}
	acts = slices.DeleteFunc(acts, func(a struct {
		kind string
		do   func()
	}) bool {
		return !f.kinds[a.kind]
	})
	if len(acts) == 0 {
		return
	}
	for !f.m.isCalm() {
		time.Sleep(f.m.between(time.Millisecond, time.Duration(1+f.m.n(4000))*time.Millisecond+2*time.Millisecond))
		if f.m.isCalm() {
			return
		}
		acts[f.m.n(len(acts))].do()
	}
}

// soon does something after a while, and at the latest when calm comes.
func (f *faults) soon(do func()) {
	d := f.m.between(time.Millisecond, 20*time.Second)
	go func() {
		for end := time.Now().Add(d); time.Now().Before(end) && !f.m.isCalm(); {
			time.Sleep(f.m.between(10*time.Millisecond, 500*time.Millisecond))
		}
		do()
	}()
}

// one picks a container of which the init lives.
func (f *faults) one() *workload {
	f.m.mu.Lock()
	var all []*workload
	for _, w := range f.m.byID {
		if !w.init.Exited() {
			all = append(all, w)
		}
	}
	f.m.mu.Unlock()
	if len(all) == 0 {
		return nil
	}
	slices.SortFunc(all, func(a, b *workload) int { return a.init.Process().Pid - b.init.Process().Pid })
	return all[f.m.n(len(all))]
}

func (f *faults) exit() {
	w := f.one()
	if w == nil {
		return
	}
	switch f.m.n(4) {
	case 0:
		f.m.note("     %s is killed for memory", short(w.id))
		f.m.mu.Lock()
		w.oomed = true
		f.m.group("/crid/"+w.pod+"/"+w.id).ooms++
		f.m.mu.Unlock()
		_ = w.init.Signal(unix.SIGKILL)
	case 1:
		f.m.note("     %s is killed from outside", short(w.id))
		_ = w.init.Signal(unix.SIGKILL)
	default:
		code := f.m.n(256)
		f.m.note("     %s exits with %d", short(w.id), code)
		w.init.Exit(code)
	}
}

func (f *faults) kid() {
	w := f.one()
	if w == nil {
		return
	}
	f.m.mu.Lock()
	begun := w.begun > 0
	f.m.mu.Unlock()
	if !begun {
		return
	}
	kid := f.m.Spawn("sleep")
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if w.init.Exited() {
		go kid.Exit(0) // too late to be born
		return
	}
	w.all = append(w.all, kid)
	f.m.inits[kid.Process().Pid] = w
	g := f.m.group("/crid/" + w.pod + "/" + w.id)
	g.procs = append(g.procs, kid)
}

func (f *faults) stick() {
	w := f.one()
	if w == nil {
		return
	}
	f.m.mu.Lock()
	p := w.all[f.m.n(len(w.all))]
	f.m.mu.Unlock()
	f.m.note("     pid %d of %s hangs in the kernel", p.Process().Pid, short(w.id))
	p.Stick(true)
	f.soon(func() {
		f.m.note("     pid %d of %s hangs no more", p.Process().Pid, short(w.id))
		p.Stick(false)
	})
}

func (f *faults) shim() *fake.Shim {
	f.m.mu.Lock()
	var all []*fake.Shim
	for _, s := range f.m.shims {
		if !s.Process().Exited() {
			all = append(all, s)
		}
	}
	f.m.mu.Unlock()
	if len(all) == 0 {
		return nil
	}
	slices.SortFunc(all, func(a, b *fake.Shim) int { return a.Process().Process().Pid - b.Process().Process().Pid })
	return all[f.m.n(len(all))]
}

func (f *faults) shimDie() {
	if s := f.shim(); s != nil {
		f.m.note("     the shim of %s is killed", short(s.Ref().ID))
		_ = s.Process().Signal(unix.SIGKILL)
	}
}

func (f *faults) shimHang() {
	s := f.shim()
	if s == nil {
		return
	}
	f.m.note("     the shim of %s hangs", short(s.Ref().ID))
	_ = s.Process().Signal(unix.SIGSTOP)
	f.soon(func() {
		f.m.note("     the shim of %s hangs no more", short(s.Ref().ID))
		_ = s.Process().Signal(unix.SIGCONT)
	})
}

func (f *faults) jam() {
	if w := f.one(); w != nil {
		f.m.note("     a command of the runtime hangs for %s", short(w.id))
		f.soon(f.m.Jam(w.id))
	}
}

func (f *faults) forget() {
	if w := f.one(); w != nil {
		f.m.note("     the runtime forgets %s", short(w.id))
		f.m.ForgetRuntimeState(w.id)
	}
}

func (f *faults) event() {
	if f.m.chance(0.5) {
		f.m.LoseEvents(true)
		f.soon(func() { f.m.LoseEvents(false) })
		return
	}
	if w := f.one(); w != nil {
		f.m.Publish(shimclient.Event{Kind: shimclient.ExitEvent, ID: w.id, Pid: w.init.Process().Pid, Code: 1, At: time.Now()})
	}
	f.m.Publish(shimclient.Event{Kind: shimclient.Dirty})
}

func (f *faults) recycle() {
	f.m.mu.Lock()
	var pids []int
	for pid, w := range f.m.inits {
		if w.init.Process().Pid == pid && w.init.Exited() {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	f.m.mu.Unlock()
	if len(pids) == 0 {
		return
	}
	pid := pids[f.m.n(len(pids))]
	if p := f.m.Process(pid); p == nil || !f.m.Reaped(pid) {
		return
	}
	f.m.mu.Lock()
	delete(f.m.inits, pid)
	f.m.mu.Unlock()
	f.m.note("     pid %d is given away", pid)
	f.m.Recycle(pid)
}

func (f *faults) fillDisk() {
	f.m.note("     the disk is full")
	f.m.setFull(true)
	f.soon(func() {
		f.m.note("     the disk is full no more")
		f.m.setFull(false)
	})
}

func (m *machine) setFull(full bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.full = full
}

func (f *faults) crash() { f.s.crash(f.m.between(time.Millisecond, 10*time.Second)) }

func (f *faults) move() {
	w := f.one()
	if w == nil {
		return
	}
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if len(w.all) == 1 && w.begun > 0 { // what else is in it could not be found any more by anybody
		if g := f.m.cgroups["/crid/"+w.pod+"/"+w.id]; g != nil {
			g.procs = nil
		}
	}
}

func (f *faults) loseNetns() {
	f.m.mu.Lock()
	var all []string
	for p := range f.m.pins {
		if strings.HasSuffix(p, "/net") {
			all = append(all, p)
		}
	}
	slices.Sort(all)
	f.m.mu.Unlock()
	if len(all) == 0 {
		return
	}
	p := all[f.m.n(len(all))]
	f.m.note("     %s is unmounted from outside", p)
	f.m.mu.Lock()
	delete(f.m.pins, p)
	f.m.mu.Unlock()
	time.Sleep(f.m.between(500*time.Millisecond, 600*time.Millisecond))
	f.s.tell(func(r *run) { r.reconciler.LookAtNamespaces() })
}
