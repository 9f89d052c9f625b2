package sim

import (
	"fmt"
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
	freezes   = "freezes"
	unknown   = "unknown" // a shim forgets a task
	reboots   = "reboots" // of the machine, with power loss at times
	clock     = "clock"   // the wall clock is set while crid is down
)

var allFaults = []string{exits, kids, sticks, shimDies, shimHangs, jams, forgets, rpcFails, rpcSlow, rpcLate, events, recycles, calls,
	diskFull, crashes, moved, netnsLost, impatient, freezes, unknown, reboots, clock}

// faults makes the world misbehave.
type faults struct {
	m         *machine
	s         *supervisor
	kinds     map[string]bool
	rate      float64
	badCalls  int
	accidents int
	*dice     // of the accident under way
}

func newFaults(m *machine, s *supervisor) *faults {
	f := &faults{m: m, s: s, kinds: map[string]bool{}, dice: m.of("faults")}
	f.rate = 0.02 + 0.2*float64(f.n(100))/100
	for _, k := range allFaults {
		f.kinds[k] = f.chance(0.4) && m.script.has(k)
	}
	m.mishaps = f.kinds
	m.rate = f.rate
	m.SetFault(f.call)
	m.note("faults: %s, rate %.2f", strings.Join(f.on(), " "), f.rate)
	return f
}

func (f *faults) on() (on []string) {
	for _, k := range allFaults {
		if f.kinds[k] {
			on = append(on, k)
		}
	}
	return on
}

// mishap reports whether a call is to go wrong.
func (m *machine) mishap(d *dice) bool {
	return d.chance(m.rate) && !m.isCalm() && m.mishaps[calls]
}

// call is asked about each call to a shim.
func (f *faults) call(c fake.Call) fake.Fault {
	if f.m.isCalm() {
		return fake.Fault{}
	}
	bad, note := f.choose(c)
	if note == "" {
		return fake.Fault{}
	}
	f.badCalls++ // one at a time, for there is one processor
	if f.m.script.skips("c", f.badCalls) {
		return fake.Fault{}
	}
	f.m.note("     %s %s %s (c%d)", c.Method, short(c.ID), note, f.badCalls)
	return bad
}

// choose says what befalls a call; no note: nothing.
func (f *faults) choose(c fake.Call) (bad fake.Fault, note string) {
	d := f.m.by("call", c.Method, c.Shim, c.ID)
	switch {
	case f.kinds[rpcFails] && d.chance(f.rate/2):
		after := d.chance(0.5)
		return fake.Fault{Err: errInjected, After: after}, fmt.Sprintf("fails, effect %v", after)
	case f.kinds[rpcSlow] && d.chance(f.rate/2):
		wait := d.between(time.Millisecond, 15*time.Second)
		return fake.Fault{Delay: wait, Hang: d.chance(0.2), After: true}, fmt.Sprintf("takes %v", wait)
	case f.kinds[rpcLate] && d.chance(f.rate/2) && c.Method != "Wait":
		wait := d.between(time.Millisecond, 20*time.Second)
		note = fmt.Sprintf("takes effect after %v", wait)
		if c.Shim == "" || c.Method == "Launch" || c.Method == "Adopt" || c.Method == "KillShim" || c.Method == "KillStuckCommands" {
			return fake.Fault{Hang: true, Delay: wait, After: true, Err: shimclient.ErrUnreachable}, note
		}
		return fake.Fault{Late: wait, Outlives: d.chance(0.5)}, note
	}
	return fake.Fault{}, ""
}

// play lets accidents happen until the machine is calm.
func (f *faults) play() {
	acts := []struct {
		kind string
		do   func()
	}{
		{exits, f.exit}, {exits, f.exit}, {kids, f.kid}, {sticks, f.stick}, {shimDies, f.shimDie}, {shimHangs, f.shimHang}, {jams, f.jam},
		{forgets, f.forget}, {events, f.event}, {recycles, f.recycle}, {diskFull, f.fillDisk}, {crashes, f.crash}, {moved, f.move},
		{netnsLost, f.loseNetns}, {freezes, f.freeze}, {unknown, f.unknow}, {reboots, f.rarely(f.reboot)},
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
	d := f.dice
	for i := 1; ; i++ {
		time.Sleep(d.between(time.Millisecond, time.Duration(1+d.n(4000))*time.Millisecond+2*time.Millisecond))
		if f.m.isCalm() {
			return
		}
		act := acts[d.n(len(acts))]
		f.accidents = i
		if f.m.script.skips("a", i) {
			continue
		}
		f.dice = f.m.of(fmt.Sprint("accident", i))
		f.m.note("     accident a%d", i)
		act.do()
	}
}

// rarely does something one time of four.
func (f *faults) rarely(do func()) func() {
	return func() {
		if f.chance(0.25) {
			do()
		}
	}
}

// soon does something after a while, and at the latest when calm comes.
func (f *faults) soon(do func()) {
	d := f.between(time.Millisecond, 20*time.Second)
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
	return all[f.n(len(all))]
}

func (f *faults) exit() {
	w := f.one()
	if w == nil {
		return
	}
	switch f.n(4) {
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
		code := f.n(256)
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
	p := w.all[f.n(len(w.all))]
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
	return all[f.n(len(all))]
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
	if f.chance(0.5) {
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
	pid := pids[f.n(len(pids))]
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
			go w.init.Freeze(false) // where it is now nobody is frozen
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
	p := all[f.n(len(all))]
	f.m.note("     %s is unmounted from outside", p)
	f.m.mu.Lock()
	delete(f.m.pins, p)
	f.m.mu.Unlock()
	time.Sleep(f.between(500*time.Millisecond, 600*time.Millisecond))
	f.s.tell(func(r *run) { r.reconciler.LookAtNamespaces() })
}
