package soak

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/harness"
)

// known is what was seen of containers: what the kernel can be asked about later, and what must not change.
type known struct {
	mu   sync.Mutex
	of   map[string]*sighting
	told map[string]int // CONTAINER_STOPPED events
}

// sighting is one container.
type sighting struct {
	// of the goroutine that watches
	init  harness.Proc // while it ran
	ran   bool
	dead  time.Time // since when its first process is seen dead while it is told as running
	doubt int       // looks in a row that found a live process in an exited container
	// of known's lock
	began  bool // its start was answered
	over   bool // told as exited
	code   int32
	reason string
	at     int64
}

// started keeps that a start was answered.
func (n *known) started(id string) {
	s := n.get(id)
	n.mu.Lock()
	defer n.mu.Unlock()
	s.began = true
}

func (n *known) wasStarted(s *sighting) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return s.began
}

// ended tells whether it was told to have exited.
func (n *known) ended(s *sighting) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return s.over
}

func newKnown() *known { return &known{of: map[string]*sighting{}, told: map[string]int{}} }

func (n *known) get(id string) *sighting {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.of[id]
	if s == nil {
		s = &sighting{}
		n.of[id] = s
	}
	return s
}

// Bounds of the laws that hold under faults, too. Twice what is promised, and a second for a machine that has other work.
const (
	truthLimit = 5 * time.Second // kernel truth to CRI
	listLimit  = 3 * time.Second // a list, whatever is stuck
)

// info is the part of verbose status that says where to look.
type info struct {
	Pid          int    `json:"pid"`
	PidStartTime uint64 `json:"pidStartTime"`
	ShimPid      int    `json:"shimPid"`
	ShimAddress  string `json:"shimAddress"`
	ExitCodeFrom string `json:"exitCodeFrom"`
	Namespaces   struct {
		Net string `json:"net"`
	} `json:"namespaces"`
}

func parseInfo(m map[string]string) (i info) {
	_ = json.Unmarshal([]byte(m["info"]), &i)
	return i
}

func (k *kubelet) verbose(ctx context.Context, id string) (*runtimeapi.ContainerStatus, info, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	r, err := k.cri.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id, Verbose: true})
	return r.GetStatus(), parseInfo(r.GetInfo()), err
}

// watch looks all the time at the laws that hold all the time.
func (k *kubelet) watch(ctx context.Context) {
	for ctx.Err() == nil {
		pause(ctx, 500*time.Millisecond)
		if k.up() == 0 {
			continue
		}
		slept := time.Now()
		time.Sleep(10 * time.Millisecond)
		lag := time.Since(slept) // what this machine adds to everything
		start := time.Now()
		list, err := k.cri.Containers(ctx)
		took := time.Since(start)
		if err != nil || k.up() < took+lag {
			continue // it went away meanwhile
		}
		k.took("ListContainers", took)
		if took > listLimit+20*lag {
			k.broken("a list took %s (and a sleep of 10ms %s)", took, lag)
		}
		k.laws(ctx, list)
	}
}

// laws compares a list with the kernel and with the lists before.
func (k *kubelet) laws(ctx context.Context, list []*runtimeapi.Container) {
	running := map[string]string{}
	for _, c := range list {
		s := k.known.get(c.GetId())
		switch c.GetState() {
		case runtimeapi.ContainerState_CONTAINER_RUNNING:
			if k.known.ended(s) {
				k.broken("container %.12s (%s) was EXITED and is RUNNING", c.GetId(), c.GetMetadata().GetName())
			}
			key := c.GetPodSandboxId() + " " + c.GetMetadata().GetName()
			if other, twice := running[key]; twice {
				k.broken("two containers %s run in one sandbox: %.12s and %.12s", c.GetMetadata().GetName(), other, c.GetId())
			}
			running[key] = c.GetId()
			k.runs(ctx, c, s)
		case runtimeapi.ContainerState_CONTAINER_EXITED:
			k.exited(ctx, c, s)
		case runtimeapi.ContainerState_CONTAINER_CREATED:
			if k.known.ended(s) || s.ran {
				k.broken("container %.12s (%s) ran and is CREATED", c.GetId(), c.GetMetadata().GetName())
			}
		default: // UNKNOWN promises nothing
		}
	}
}

// runs looks whether what is told to run does.
func (k *kubelet) runs(ctx context.Context, c *runtimeapi.Container, s *sighting) {
	if !s.ran {
		_, i, err := k.verbose(ctx, c.GetId())
		if err != nil || i.Pid == 0 {
			return
		}
		if p, ok := harness.Find(i.Pid); ok && p.Start() == i.PidStartTime {
			s.init, s.ran = p, true
		}
		return
	}
	if s.init.Lives() {
		s.dead = time.Time{}
		return
	}
	if s.dead.IsZero() {
		s.dead = time.Now()
		return
	}
	if since := time.Since(s.dead); since > truthLimit && k.up() > truthLimit {
		k.broken("container %.12s (%s) is RUNNING, and its process %d has been dead for %s", c.GetId(), c.GetMetadata().GetName(), s.init.Pid, since.Round(time.Millisecond))
		s.dead = time.Now().Add(time.Hour) // told once
	}
}

// exited looks whether what is told to have ended has, and whether it is told as before.
func (k *kubelet) exited(ctx context.Context, c *runtimeapi.Container, s *sighting) {
	if !s.dead.IsZero() {
		k.took("from a death to EXITED", time.Since(s.dead))
		s.dead = time.Time{}
	}
	live := harness.ProcsIn(k.home.CgroupsOf(c.GetId()))
	if s.ran && s.init.Lives() {
		live = append(live, s.init)
	}
	if len(live) == 0 {
		s.doubt = 0
	} else if s.doubt++; s.doubt == 3 { // an exec that came too late is there for a moment
		k.broken("container %.12s (%s) is EXITED, and %v lives", c.GetId(), c.GetMetadata().GetName(), live)
	}
	if !k.known.ended(s) {
		k.known.end(ctx, k, c.GetId(), s)
	}
}

// end keeps what is told of an end, and breaks the law if it differs from what was told before.
func (n *known) end(ctx context.Context, k *kubelet, id string, s *sighting) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	st, err := k.cri.Status(ctx, id)
	if err != nil || st.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	same := s.at == st.GetFinishedAt()
	if off := time.Duration(st.GetFinishedAt() - s.at).Abs(); !same && off < time.Second && k.wasFull(time.Unix(0, s.at)) {
		k.count("times learnt anew")
		same = true // the disk was full, so the end could not be kept over the daemon's own: it was learnt anew, from the shim
	}
	if s.over && (s.code != st.GetExitCode() || s.reason != st.GetReason() || !same) {
		k.broken("container %.12s had ended with %d, %q at %d, and now with %d, %q at %d", id, s.code, s.reason, s.at, st.GetExitCode(), st.GetReason(), st.GetFinishedAt())
	}
	s.over, s.code, s.reason, s.at = true, st.GetExitCode(), st.GetReason(), st.GetFinishedAt()
}

// inspect looks at a container for the last time.
func (k *kubelet) inspect(ctx context.Context, p *pod, c *runtimeapi.Container) {
	s := k.known.get(c.GetId())
	defer func() {
		k.known.mu.Lock()
		defer k.known.mu.Unlock()
		delete(k.known.of, c.GetId())
	}()
	st, i, err := k.verbose(ctx, c.GetId())
	if err != nil || st.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED {
		return
	}
	if k.known.ended(s) {
		k.known.end(ctx, k, c.GetId(), s)
	}
	name := title(c.GetMetadata().GetName(), c.GetMetadata().GetAttempt(), c.GetPodSandboxId())
	starts := k.starts(p, name)
	if starts > 1 {
		k.broken("container %.12s (%s) was started %d times", c.GetId(), name, starts)
	}
	if f, b := st.GetFinishedAt(), st.GetStartedAt(); f < b || b > 0 && b < st.GetCreatedAt() {
		k.broken("container %.12s: created %d, started %d, finished %d", c.GetId(), st.GetCreatedAt(), b, f)
	}
	w, ok := p.workload(c.GetMetadata().GetName())
	if !ok || starts == 0 {
		return
	}
	k.count("ended by " + i.ExitCodeFrom)
	if st.GetReason() == "StartError" && !k.known.wasStarted(s) {
		return // runc ran it and said that it had not: the start was answered with an error, and it was ended
	}
	if wrong := p.wrongEnd(w, st); wrong != "" {
		k.broken("container %.12s (%s): %s (reason %q, from %s)", c.GetId(), name, wrong, st.GetReason(), i.ExitCodeFrom)
	}
	if w.kind == "talker" {
		k.talk(p, name, c.GetId())
	}
}

// starts is how often a workload ran.
func (k *kubelet) starts(p *pod, title string) int {
	data, err := os.ReadFile(filepath.Join(marks(k.home, p, title), "starts"))
	if err != nil {
		return 0
	}
	return strings.Count(string(data), "\n")
}

// talk reads the log of a talker, rotated parts first: every line in its order.
func (k *kubelet) talk(p *pod, title, id string) {
	path := filepath.Join(p.config.GetLogDirectory(), title+".log")
	parts, _ := filepath.Glob(path + ".*") // in order of time: the numbers have one length
	next := 1
	for _, part := range append(parts, path) {
		data, err := os.ReadFile(part)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			_, text, ok := strings.Cut(line, " stdout F ")
			if !ok {
				k.broken("container %.12s: a line of %s is %.100q", id, filepath.Base(part), line)
				return
			}
			if want := fmt.Sprintf("line %d\n", next); text != want {
				k.broken("container %.12s: %s has %.100q where %q should be", id, filepath.Base(part), text, want)
				return
			}
			next++
		}
	}
	k.count("logs read")
}

// listen follows the events, and counts ends: none comes twice in a stream. (Each begins with what there is.)
func (k *kubelet) listen(ctx context.Context) {
	for ctx.Err() == nil {
		stream, err := k.cri.Runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
		k.known.anew()
		for err == nil {
			var e *runtimeapi.ContainerEventResponse
			if e, err = stream.Recv(); err != nil {
				break
			}
			k.event(e)
		}
		pause(ctx, 300*time.Millisecond)
	}
}

func (n *known) anew() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.told = map[string]int{}
}

func (k *kubelet) event(e *runtimeapi.ContainerEventResponse) {
	k.known.mu.Lock()
	defer k.known.mu.Unlock()
	switch e.GetContainerEventType() {
	case runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT:
		if e.GetContainerId() == e.GetPodSandboxStatus().GetId() {
			return // a sandbox can be told as broken first, and as stopped then
		}
		if k.known.told[e.GetContainerId()]++; k.known.told[e.GetContainerId()] == 2 {
			k.broken("container %.12s: a second event of its end", e.GetContainerId())
		}
	case runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT:
		delete(k.known.told, e.GetContainerId())
	default:
	}
}

// signal sends a signal to a process that verbose status named, if it is still what it was.
func signal(pid int, command string, sig syscall.Signal) error {
	p, ok := harness.Find(pid)
	if !ok || !strings.Contains(p.Command, command) {
		return os.ErrProcessDone
	}
	return p.Signal(sig)
}
