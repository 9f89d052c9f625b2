package sim

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/container"
	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/fake"
)

// machine is a node without crid: what outlives a crash of it.
type machine struct {
	*fake.World
	script     script
	seed       uint64
	dir        string
	state      string
	root       string
	handlerDir string // where the OCI runtime keeps its state
	began      time.Time

	*dice // of all that has none of its own
	table sync.Mutex
	all   map[string]*dice

	mu      sync.Mutex
	calm    bool // no new faults
	calmAt  time.Time
	cgroups map[string]*group
	mounts  map[string]bool
	pins    map[string]bool // namespaces
	nets    map[string]int  // attachments by pod, and the run that made them
	adds    map[string]int
	rootfs  map[string]bool
	inits   map[int]*workload // by pid of the newest init
	byID    map[string]*workload
	shims   map[string]*fake.Shim // by pod
	members map[string]string     // pods by container
	shimEnd map[string]time.Time  // by pod
	sharing map[string]bool       // pods with one process namespace for all
	unknown map[string]bool       // containers that their shim has forgotten
	exempt  map[string]bool       // of which a power loss took what was written
	boot    int                   // how often the machine was started
	booted  time.Time
	writes  []write
	tags    map[string]int  // execs that were given up, and by which run
	asked   map[string]bool // containers and pods that somebody asked to end
	full    bool            // the disk
	pause   bool            // pods have a sandbox process
	mishaps map[string]bool
	rate    float64
	lines   []string
	steps   []taken // of the law, if they are kept
	failed  []string
}

// group is one cgroup.
type group struct {
	procs []*fake.Process
	ooms  uint64
}

// workload is what is really the case with one container.
type workload struct {
	id, pod string
	init    *fake.Process
	begun   int // how often it was started
	all     []*fake.Process
	execs   []*fake.Process
	endedAt time.Time // of the init
	lastEnd time.Time // of any of its processes
	upThen  int       // the run of crid that was up when it ended; 0: none
	oomed   bool
}

func newMachine(seed uint64, sc script, dir string) *machine {
	m := &machine{World: fake.NewWorld(), script: sc, seed: seed, dir: dir, state: filepath.Join(dir, "state"), root: filepath.Join(dir, "root"),
		handlerDir: filepath.Join(dir, "runc"), began: time.Now(), dice: newDice(seed, ""), all: map[string]*dice{},
		cgroups: map[string]*group{}, mounts: map[string]bool{}, pins: map[string]bool{}, nets: map[string]int{}, adds: map[string]int{},
		rootfs: map[string]bool{}, inits: map[int]*workload{}, byID: map[string]*workload{}, shims: map[string]*fake.Shim{}, members: map[string]string{},
		shimEnd: map[string]time.Time{}, asked: map[string]bool{}, sharing: map[string]bool{}, exempt: map[string]bool{}, unknown: map[string]bool{},
		tags: map[string]int{}, booted: time.Now()}
	return m
}

// note keeps a line of what happened, for whoever looks into a seed.
func (m *machine) note(format string, args ...any) {
	line := fmt.Sprintf("%12s ", time.Since(m.began)) + strings.ReplaceAll(fmt.Sprintf(format, args...), m.dir, "")
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lines = append(m.lines, line)
}

// violated reports a broken invariant; the seed goes on to its end.
func (m *machine) violated(what, format string, args ...any) {
	line := what + ": " + fmt.Sprintf(format, args...)
	m.note("!!! %s", line)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failed = append(m.failed, line)
}

func (m *machine) isCalm() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calm
}

func short(id string) string {
	if len(id) > 6 {
		return id[:6]
	}
	return id
}

// hooks follow what the fake shims do.
func (m *machine) hooks(up func() int) fake.Hooks {
	return fake.Hooks{
		Bundle: func(path string) bool {
			_, err := os.Stat(filepath.Join(path, "config.json"))
			return err == nil && !m.namespaceGone(filepath.Base(path))
		},
		Created: func(shim string, c shimclient.Create, init *fake.Process) {
			m.mu.Lock()
			defer m.mu.Unlock()
			w := m.byID[c.ID]
			if w == nil {
				w = &workload{id: c.ID, pod: shim}
				m.byID[c.ID] = w
			}
			if id := c.ID; w.pod == id && w.init != nil && !w.init.Exited() {
				go m.violated("I3", "two sandbox processes of pod %s live at once", short(id))
			}
			w.init = init
			w.all = append(w.all, init)
			m.inits[init.Process().Pid] = w
			g := m.group("/crid/" + shim + "/" + c.ID)
			g.procs = append(g.procs, init)
		},
		Started: func(id string, init *fake.Process) {
			m.mu.Lock()
			w := m.byID[id]
			w.begun++
			n, exempt := w.begun, m.exempt[id]
			m.mu.Unlock()
			m.note("     workload %s begins as pid %d", short(id), init.Process().Pid)
			if n > 1 && !exempt && id != w.pod { // a sandbox process may be tried again
				m.violated("I3", "the workload of %s was started %d times", short(id), n)
			}
		},
		Entered: func(id string, p *fake.Process) {
			m.mu.Lock()
			defer m.mu.Unlock()
			w := m.byID[id]
			w.all = append(w.all, p)
			w.execs = append(w.execs, p)
			m.inits[p.Process().Pid] = w
			g := m.group("/crid/" + w.pod + "/" + id)
			g.procs = append(g.procs, p)
		},
		Knows: func(id string, knows bool) {
			dir := filepath.Join(m.handlerDir, container.Namespace, id)
			if knows {
				_ = os.MkdirAll(dir, 0o700)
			} else {
				_ = os.RemoveAll(dir)
			}
		},
		Folder: func(path string) bool {
			_, err := os.Stat(path)
			return err == nil
		},
		Thaws: func(id string) {
			go func() { // a hook must not call the world
				for _, p := range m.insideOf(id) {
					p.Freeze(false)
				}
			}()
		},
		KillsAll: func(id string) {
			go func() {
				for _, p := range m.insideOf(id) {
					_ = p.Signal(unix.SIGKILL)
				}
			}()
		},
		Ended: func(p *fake.Process) {
			m.mu.Lock()
			for pod, sh := range m.shims {
				if sh.Process() == p {
					m.shimEnd[pod] = time.Now()
				}
			}
			w := m.inits[p.Process().Pid]
			if w != nil {
				w.lastEnd = time.Now()
			}
			if w != nil && w.init == p {
				w.endedAt, w.upThen = time.Now(), up()
			}
			if w != nil && w.init == p && w.id == w.pod && m.sharing[w.pod] {
				go m.endNamespace(w.pod)
			}
			m.mu.Unlock()
			if w != nil {
				m.note("     pid %d of %s ends", p.Process().Pid, short(w.id))
			}
		},
	}
}

// endNamespace is the kernel's part when the first process of the process
// namespace of a pod has ended.
func (m *machine) endNamespace(pod string) {
	m.mu.Lock()
	var all []*fake.Process
	for id, w := range m.byID {
		if w.pod == pod && id != pod {
			all = append(all, w.all...)
		}
	}
	m.mu.Unlock()
	slices.SortFunc(all, func(a, b *fake.Process) int { return a.Process().Pid - b.Process().Pid })
	for _, p := range all {
		_ = p.Signal(unix.SIGKILL)
	}
}

// namespaceGone reports whether a container would have to join a process
// namespace that has ended.
func (m *machine) namespaceGone(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	pod := m.members[id]
	w := m.byID[pod]
	return m.sharing[pod] && w != nil && w.init.Exited()
}

// group is called with the lock held.
func (m *machine) group(path string) *group {
	g := m.cgroups[path]
	if g == nil {
		g = &group{}
		m.cgroups[path] = g
	}
	return g
}

// inside answers who lives in a cgroup and below.
func (m *machine) inside(path string) []*fake.Process {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []*fake.Process
	for p, g := range m.cgroups {
		if p == path || strings.HasPrefix(p, path+"/") {
			for _, q := range g.procs {
				if !q.Exited() {
					out = append(out, q)
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b *fake.Process) int { return a.Process().Pid - b.Process().Pid })
	return out
}

// insideOf answers who lives in a container's cgroup.
func (m *machine) insideOf(id string) []*fake.Process {
	m.mu.Lock()
	w := m.byID[id]
	m.mu.Unlock()
	if w == nil {
		return nil
	}
	return m.inside("/crid/" + w.pod + "/" + id)
}

// livesOf answers a living process of the container.
func (m *machine) livesOf(id string) *fake.Process {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.byID[id]
	if w == nil {
		return nil
	}
	for _, p := range w.all {
		if !p.Exited() {
			return p
		}
	}
	return nil
}

func (m *machine) shimOf(pod string) *fake.Shim {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.shims[pod]
}

// shimDied answers when the pod's shim died, if it did.
func (m *machine) shimDied(pod string) (time.Time, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, dead := m.shimEnd[pod]
	return at, dead
}

// wanted notes that somebody asks for the end of a container or pod.
func (m *machine) wanted(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked[id] = true
}

// unasked reports whether nobody has asked for the end of a container, and
// nothing has happened that has to end it: a timeout is never a reason.
func (m *machine) unasked(w *workload) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, shimDead := m.shimEnd[w.pod]
	return w.id != w.pod && !m.asked[w.id] && !m.asked[w.pod] && !shimDead && !w.init.Exited()
}

// livesIn answers a container of the pod of which a process lives; the sandbox
// process counts as one.
func (m *machine) livesIn(pod string) string {
	if m.livesOf(pod) != nil {
		return pod
	}
	return m.memberLives(pod)
}

// memberLives is livesIn without the sandbox process.
func (m *machine) memberLives(pod string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, w := range m.byID {
		if w.pod != pod || id == pod {
			continue
		}
		for _, p := range w.all {
			if !p.Exited() {
				return id
			}
		}
	}
	return ""
}

func (m *machine) truth(id string) (w workload, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.byID[id]; p != nil {
		return *p, true
	}
	return workload{}, false
}
