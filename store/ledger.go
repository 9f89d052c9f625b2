package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/crid-project/crid/store/lifecycle"
	"github.com/crid-project/crid/store/lifecycle/trace"
)

// Config says where the ledger lies and how to open what is sealed.
type Config struct {
	// Dir is the ledger's folder; it is made.
	Dir string
	// Copies is a folder for a second copy of each record, on another disk (a
	// tmpfs); empty: none. A record that is damaged, gone, or older than its copy
	// is taken from there.
	Copies string
	// Boot is this boot's id (/proc/sys/kernel/random/boot_id).
	Boot string
	// OpenPod, OpenContainer turn the bytes of a record into a sealed
	// configuration. An error sends the record to quarantine.
	OpenPod, OpenContainer func([]byte) (Sealed, error)
	// Disk writes the records; nil: the real one.
	Disk Disk
	// Trace, if set, is told every step of the law while Tracing says so; nil
	// means always.
	Trace   func(trace.Step)
	Tracing func() bool
	Log     *slog.Logger
}

// Ledger holds all records. Its methods may be called from any goroutine.
type Ledger struct {
	cfg  Config
	stop chan struct{}
	once sync.Once

	// mu guards the maps and nothing else; it is held for no I/O.
	mu             sync.Mutex
	pods           map[string]*cell[Pod]
	containers     map[string]*cell[Container]
	podNames       map[PodName]string
	containerNames map[containerKey]string
	// podList and containerList are what List answers from: rebuilt when one
	// comes or goes, read without a lock.
	podList       atomic.Pointer[[]*cell[Pod]]
	containerList atomic.Pointer[[]*cell[Container]]

	subs        subscribers
	quarantined atomic.Int64
}

// NewID answers a fresh id of 64 hexadecimal digits.
func NewID() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// ValidID reports whether s can be an id or the beginning of one: it may
// become part of a path.
func ValidID(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for _, r := range s {
		if (r < '0' || r > '9') && (r < 'a' || r > 'f') {
			return false
		}
	}
	return true
}

func (l *Ledger) podDir() string       { return filepath.Join(l.cfg.Dir, "pods") }
func (l *Ledger) containerDir() string { return filepath.Join(l.cfg.Dir, "containers") }
func (l *Ledger) lostDir() string      { return filepath.Join(l.cfg.Dir, "quarantine") }

func (l *Ledger) podPath(id string) string       { return filepath.Join(l.podDir(), id) }
func (l *Ledger) containerPath(id string) string { return filepath.Join(l.containerDir(), id) }

// Boot is the id of this boot.
func (l *Ledger) Boot() string { return l.cfg.Boot }

// Close ends the writing in the background. Records stay as they are. A write
// under way is waited for, for two seconds at most. Idempotent.
func (l *Ledger) Close() { l.once.Do(l.close) }

func (l *Ledger) close() {
	close(l.stop)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	l.mu.Lock()
	pods, containers := slices.Collect(maps.Values(l.pods)), slices.Collect(maps.Values(l.containers))
	l.mu.Unlock()
	for _, c := range pods {
		_ = c.rest(ctx)
	}
	for _, c := range containers {
		_ = c.rest(ctx)
	}
}

// AddPod makes the record of a new pod, and takes its name. If the name is
// taken the answer is the pod that has it, and false. Nothing is written yet:
// Flush before the first effect.
func (l *Ledger) AddPod(p *Pod) (*Pod, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if id, taken := l.podNames[p.Name]; taken {
		if c := l.pods[id]; c != nil {
			return c.cur.Load(), false
		}
	}
	p.Boot = l.cfg.Boot
	c := newCell(p)
	c.gen = 1
	l.pods[p.ID] = c
	l.podNames[p.Name] = p.ID
	l.relist()
	return p, true
}

// AddContainer makes the record of a new container, and takes its name in its
// pod; otherwise as AddPod.
func (l *Ledger) AddContainer(v *Container) (*Container, bool) {
	k := containerKey{v.PodID, v.Name}
	l.mu.Lock()
	defer l.mu.Unlock()
	if id, taken := l.containerNames[k]; taken {
		if c := l.containers[id]; c != nil {
			return c.cur.Load(), false
		}
	}
	v.Boot = l.cfg.Boot
	c := newCell(v)
	c.gen = 1
	l.containers[v.ID] = c
	l.containerNames[k] = v.ID
	l.relist()
	return v, true
}

// relist rebuilds what List answers from. mu is held.
func (l *Ledger) relist() {
	pods := make([]*cell[Pod], 0, len(l.pods))
	for _, c := range l.pods {
		pods = append(pods, c)
	}
	slices.SortFunc(pods, func(a, b *cell[Pod]) int { return order(a.cur.Load().CreatedAt, b.cur.Load().CreatedAt) })
	containers := make([]*cell[Container], 0, len(l.containers))
	for _, c := range l.containers {
		containers = append(containers, c)
	}
	slices.SortFunc(containers, func(a, b *cell[Container]) int { return order(a.cur.Load().CreatedAt, b.cur.Load().CreatedAt) })
	l.podList.Store(&pods)
	l.containerList.Store(&containers)
}

// order sorts the newest first, as operators expect of a list.
func order(a, b int64) int {
	switch {
	case a > b:
		return -1
	case a < b:
		return 1
	}
	return 0
}

// Pods answers a snapshot of every pod, the newest first, those in the making too.
func (l *Ledger) Pods() []*Pod {
	cells := *l.podList.Load()
	out := make([]*Pod, len(cells))
	for i, c := range cells {
		out[i] = c.cur.Load()
	}
	return out
}

// Containers answers a snapshot of every container, the newest first.
func (l *Ledger) Containers() []*Container {
	cells := *l.containerList.Load()
	out := make([]*Container, len(cells))
	for i, c := range cells {
		out[i] = c.cur.Load()
	}
	return out
}

// Members answers the containers of one pod.
func (l *Ledger) Members(podID string) []*Container {
	var out []*Container
	for _, c := range *l.containerList.Load() {
		if v := c.cur.Load(); v.PodID == podID {
			out = append(out, v)
		}
	}
	return out
}

// Pod answers the newest snapshot of a pod by its id or an unambiguous
// beginning of it; errdefs.ErrNotFound, or ErrInvalidArgument if it is no id or
// ambiguous.
func (l *Ledger) Pod(id string) (*Pod, error) {
	c, err := l.podCell(id)
	if err != nil {
		return nil, err
	}
	return c.cur.Load(), nil
}

// Container answers the newest snapshot of a container, by its id as Pod does.
func (l *Ledger) Container(id string) (*Container, error) {
	c, err := l.containerCell(id)
	if err != nil {
		return nil, err
	}
	return c.cur.Load(), nil
}

func (l *Ledger) podCell(id string) (*cell[Pod], error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return find(l.pods, id, "pod sandbox")
}

func (l *Ledger) containerCell(id string) (*cell[Container], error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return find(l.containers, id, "container")
}

func find[T any](all map[string]*cell[T], id, what string) (*cell[T], error) {
	if c := all[id]; c != nil {
		return c, nil
	}
	if !ValidID(id) {
		if id == "" {
			return nil, fmt.Errorf("%s id is empty: %w", what, errdefs.ErrInvalidArgument)
		}
		return nil, fmt.Errorf("%s %.80q: %w", what, id, errdefs.ErrNotFound)
	}
	var hit *cell[T]
	for k, c := range all {
		if strings.HasPrefix(k, id) {
			if hit != nil {
				return nil, fmt.Errorf("%s id %q is ambiguous, give more digits: %w", what, id, errdefs.ErrInvalidArgument)
			}
			hit = c
		}
	}
	if hit == nil {
		return nil, fmt.Errorf("%s %q: %w", what, id, errdefs.ErrNotFound)
	}
	return hit, nil
}

// StepPod puts an event to the law and publishes the new state. also, where
// given, changes further fields in the same step; it must do no I/O. The answer
// is the newest snapshot, with an error if the law refused.
func (l *Ledger) StepPod(id string, e lifecycle.PodEvent, also ...func(*Pod)) (*Pod, error) {
	c, err := l.podCell(id)
	if err != nil {
		return nil, err
	}
	v, err := l.stepPod(c, e, also...)
	if err != nil {
		return v, err
	}
	l.savePod(c)
	return v, nil
}

func (l *Ledger) stepPod(c *cell[Pod], e lifecycle.PodEvent, also ...func(*Pod)) (*Pod, error) {
	v, err := c.change(func(p *Pod) error {
		old := p.State
		next, err := p.State.Step(e)
		if err != nil {
			return err
		}
		if next == old && len(also) == 0 {
			return errUnchanged
		}
		p.State = next
		p.Version++
		for _, f := range also {
			f(p)
		}
		if l.tracing() {
			l.cfg.Trace(trace.OfPod(p.ID, e, old, next))
		}
		return nil
	}, func(old, now *Pod) {
		if old.State.Phase == lifecycle.Ready && now.State.Phase == lifecycle.Broken {
			l.subs.publish(Notice{Kind: lifecycle.NoticeStopped, Pod: now, At: time.Now().UnixNano()})
		}
	})
	if err != nil && !errors.Is(err, errUnchanged) {
		return v, fmt.Errorf("pod sandbox %s: %w", v.ID, err)
	}
	return v, nil
}

var errUnchanged = errors.New("unchanged")

// StepContainer is StepPod for a container; it announces what changed.
func (l *Ledger) StepContainer(id string, e lifecycle.Event, also ...func(*Container)) (*Container, error) {
	c, err := l.containerCell(id)
	if err != nil {
		return nil, err
	}
	v, err := l.stepContainer(c, e, also...)
	if err != nil {
		return v, err
	}
	l.saveContainer(c)
	return v, nil
}

func (l *Ledger) stepContainer(c *cell[Container], e lifecycle.Event, also ...func(*Container)) (*Container, error) {
	v, err := c.change(func(v *Container) error {
		old := v.State
		next, err := v.State.Step(e)
		if err != nil {
			return err
		}
		if next == old && len(also) == 0 {
			return errUnchanged
		}
		v.State = next
		v.Version++
		for _, f := range also {
			f(v)
		}
		if l.tracing() {
			l.cfg.Trace(trace.Of(v.ID, e, old, next))
		}
		return nil
	}, func(old, now *Container) {
		for _, n := range lifecycle.Announce(old.State, now.State) {
			l.subs.publish(Notice{Kind: n, Container: now, At: noticeTime(n, now)})
		}
	})
	if err != nil && !errors.Is(err, errUnchanged) {
		return v, fmt.Errorf("container %s: %w", v.ID, err)
	}
	return v, nil
}

// AnnounceCreated publishes the creation of a container whose record is complete.
func (l *Ledger) AnnounceCreated(id string) {
	if v, err := l.Container(id); err == nil {
		l.subs.publish(Notice{Kind: lifecycle.NoticeCreated, Container: v, At: v.CreatedAt})
	}
}

func (l *Ledger) tracing() bool {
	return l.cfg.Trace != nil && (l.cfg.Tracing == nil || l.cfg.Tracing())
}

// UpdatePod changes fields that the law does not know.
func (l *Ledger) UpdatePod(id string, f func(*Pod)) (*Pod, error) {
	c, err := l.podCell(id)
	if err != nil {
		return nil, err
	}
	v, _ := c.change(func(p *Pod) error { f(p); p.Version++; return nil }, nil)
	l.savePod(c)
	return v, nil
}

// UpdateContainer changes fields that the law does not know.
func (l *Ledger) UpdateContainer(id string, f func(*Container)) (*Container, error) {
	c, err := l.containerCell(id)
	if err != nil {
		return nil, err
	}
	v, _ := c.change(func(v *Container) error { f(v); v.Version++; return nil }, nil)
	l.saveContainer(c)
	return v, nil
}

// WaitPod blocks until cond holds of the pod; errdefs.ErrNotFound if there is none.
func (l *Ledger) WaitPod(ctx context.Context, id string, cond func(*Pod) bool) (*Pod, error) {
	c, err := l.podCell(id)
	if err != nil {
		return nil, err
	}
	return c.wait(ctx, cond)
}

// WaitContainer blocks until cond holds of the container.
func (l *Ledger) WaitContainer(ctx context.Context, id string, cond func(*Container) bool) (*Container, error) {
	c, err := l.containerCell(id)
	if err != nil {
		return nil, err
	}
	return c.wait(ctx, cond)
}
