package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/singleflight"

	"github.com/crid-project/crid/cni"
	"github.com/crid-project/crid/cni/netns"
	"github.com/crid-project/crid/container"
	"github.com/crid-project/crid/sandbox/plan"
	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/pidfd"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
	"github.com/crid-project/crid/store/upkeep"
)

// Host launches, finds and ends shims. shimclient.Shims is one.
type Host interface {
	Predict(shimclient.Launch) shimclient.Ref
	Launch(context.Context, shimclient.Launch) (shimclient.Tasks, error)
	// Adopt answers a shim that does not answer together with the error.
	Adopt(context.Context, shimclient.Ref) (shimclient.Tasks, error)
	DeleteTask(ctx context.Context, rt shimclient.Runtime, bundle, id string) error
	Kill(context.Context, shimclient.Ref) error
	KillStuckCommands(ctx context.Context, ref shimclient.Ref, containerID string, age time.Duration) (int, error)
}

// Networks attaches pods to the network. *cni.Networks is one.
type Networks interface {
	Prepare(cni.Attachment) ([]byte, error)
	Add(ctx context.Context, a cni.Attachment, intent []byte) (*cni.Result, error)
	Del(ctx context.Context, a cni.Attachment, saved []byte) error
}

// Namespaces makes, looks at and ends pinned namespaces, as package netns does.
type Namespaces interface {
	New(dir string, spec netns.Spec) (netns.Pinned, error)
	// PinPID pins the process namespace of a process at path, once it is sure that
	// it is that process's.
	PinPID(path string, init pidfd.Process) error
	IsPinned(path string) (bool, error)
	Unpin(dir string) error
}

// kernelNamespaces are those of this machine.
type kernelNamespaces struct{}

func (kernelNamespaces) New(dir string, spec netns.Spec) (netns.Pinned, error) {
	return netns.New(dir, spec)
}
func (kernelNamespaces) PinPID(path string, init pidfd.Process) error { return pinPID(path, init) }
func (kernelNamespaces) IsPinned(path string) (bool, error)           { return netns.IsPinned(path) }
func (kernelNamespaces) Unpin(dir string) error                       { return netns.Unpin(dir) }

// Members are the pod's containers. *container.Containers is one.
type Members interface {
	KillMember(id string)
	ShimGone(id string)
	Remove(ctx context.Context, id string) error
	Tend(id string)
}

// Handler is what a runtime handler means for a pod.
type Handler struct {
	Runtime shimclient.Runtime
	// Pause is true if the handler wants a sandbox container in every pod.
	Pause bool
	// Refused, if set, tells why no new pod may use the handler. Pods that are
	// there go on and are ended by it as ever.
	Refused func() error
}

// Config is what the hands need.
type Config struct {
	Ledger   *store.Ledger
	Host     Host
	Networks Networks
	// Namespaces are this machine's if nil.
	Namespaces Namespaces
	Members    Members
	Kernel     container.Kernel
	Handlers   container.Handlers
	// Handler answers a runtime handler by name; errdefs.ErrNotFound.
	Handler func(name string) (Handler, error)
	// Plan opens a record's configuration again.
	Plan     func(*store.Pod) (*plan.Pod, error)
	StateDir string
	// CgroupDriver and CgroupParent are as for containers.
	CgroupDriver, CgroupParent string
	Log                        *slog.Logger
	// Observe is told how long a network operation took ("add", "del").
	Observe func(op string, took time.Duration, err error)
	// ShimDied is told of the shim of a pod that nobody stops; may be nil.
	ShimDied func()
}

const (
	makeDeadline  = 2 * time.Minute
	rollback      = 15 * time.Second // how long a failure waits until all is given back
	failBy        = 28 * time.Second // but not beyond that age of the whole: a failure is worth knowing soon
	leastRollback = 2 * time.Second
	netDeadline   = 5 * time.Minute // beyond cni.plugin_timeout, which ends an operation
	shimDeadline  = 5 * time.Second
	endDeadline   = 10 * time.Second
	adoptDeadline = 5 * time.Second
)

// Pods works on the pods of the ledger, and is the [container.Shims] of its
// containers.
type Pods struct {
	Config
	desk upkeep.Desk

	mu    sync.Mutex
	shims map[string]kept
	// untaken are pods whose shim lives and could not be taken up yet.
	untaken map[string]struct{}
	// quietSince is when shims that do not answer were first asked again.
	quietSince map[string]time.Time
	// pauses are the holds on sandbox processes.
	pauses map[string]container.Proc
	// unsticking are dead containers for which hung commands are looked for.
	unsticking map[string]bool

	stop   chan struct{}
	wg     sync.WaitGroup
	late   singleflight.Group // sandbox processes added later
	taking singleflight.Group // shims of an earlier run that are connected to
}

// New answers hands that have done nothing yet.
func New(cfg Config) *Pods {
	if cfg.Namespaces == nil {
		cfg.Namespaces = kernelNamespaces{}
	}
	p := &Pods{Config: cfg, shims: map[string]kept{}, untaken: map[string]struct{}{}, quietSince: map[string]time.Time{}, pauses: map[string]container.Proc{}, unsticking: map[string]bool{}, stop: make(chan struct{})}
	p.desk = upkeep.Desk{Kind: "pod", Log: cfg.Log, Do: p.do, Owes: func(id string) lifecycle.Work {
		v, err := p.Ledger.Pod(id)
		if err != nil || v.ID != id {
			return 0
		}
		return v.State.Owes()
	}}
	return p
}

// Close lets go of all shims and leaves them as they are.
func (p *Pods) Close(ctx context.Context) {
	p.desk.Close(ctx)
	close(p.stop)
	p.mu.Lock()
	for id, s := range p.shims {
		s.leave()
		delete(p.shims, id)
	}
	for id, h := range p.pauses {
		_ = h.Close()
		delete(p.pauses, id)
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// Tend sees to it that what the pod owes is under way.
func (p *Pods) Tend(id string) { p.desk.Tend(id) }

// Late answers work that has been owed for longer than age.
func (p *Pods) Late(age time.Duration) []upkeep.Late { return p.desk.Late(age) }

func (p *Pods) step(id string, e lifecycle.PodEvent, also ...func(*store.Pod)) (*store.Pod, error) {
	v, err := p.Ledger.StepPod(id, e, also...)
	if err != nil {
		return v, err
	}
	p.Tend(id)
	return v, nil
}

func (p *Pods) do(ctx context.Context, id string, w lifecycle.Work) error {
	v, err := p.Ledger.Pod(id)
	if err != nil {
		return nil //nolint:nilerr // it is gone: nothing is owed
	}
	if v.State.Owes()&w == 0 {
		return nil // done since
	}
	switch w { //nolint:exhaustive // the rest are a container's
	case lifecycle.EndMembers:
		return p.endMembers(ctx, v)
	case lifecycle.EndSandbox:
		return p.endSandbox(ctx, v)
	case lifecycle.FreeNet:
		return p.freeNet(ctx, v)
	case lifecycle.Unpin:
		return p.unpin(v)
	case lifecycle.ErasePod:
		return p.erase(ctx, v)
	}
	return nil
}

// Dir is the pod's folder: its bundle, its files, its pins.
func (p *Pods) Dir(id string) string { return filepath.Join(p.StateDir, "pods", id) }

func (p *Pods) pins(id string) string { return filepath.Join(p.Dir(id), "ns") }

// Of implements container.Shims. A shim of an earlier run that nobody has
// connected to yet is connected to here, within a bound: who asks in the first
// moments after a start is not told that there is none.
func (p *Pods) Of(podID string) (shimclient.Tasks, error) {
	s := p.held(podID)
	if s == nil {
		v, err := p.Ledger.Pod(podID)
		if err != nil || v.State.Holds&lifecycle.HoldsShim == 0 || !v.Shim.Process.Known() || !p.living(v.Shim.Process) {
			return nil, fmt.Errorf("shim of pod sandbox %s: %w", podID, errdefs.ErrNotFound)
		}
		if !p.tried(podID) {
			p.Attach(context.Background(), v)
		}
		if s = p.held(podID); s == nil {
			return nil, fmt.Errorf("shim of pod sandbox %s: crid has not reached it yet, try again: %w", podID, errdefs.ErrUnavailable)
		}
	}
	select {
	case <-s.Gone():
		return nil, fmt.Errorf("shim of pod sandbox %s is dead: %w", podID, errdefs.ErrNotFound)
	default:
		return s, nil
	}
}

func (p *Pods) held(podID string) shimclient.Tasks {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shims[podID].Tasks
}

// Connected reports whether the pod's shim is held; it waits for nothing.
func (p *Pods) Connected(podID string) bool { return p.held(podID) != nil }

// tried reports whether the shim could not be taken up and will be tried again.
func (p *Pods) tried(podID string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.untaken[podID]
	return ok
}

// DeleteTask implements container.Shims.
func (p *Pods) DeleteTask(ctx context.Context, handler, bundle, id string) error {
	h, err := p.Handler(handler)
	if err != nil {
		return err
	}
	return p.Host.DeleteTask(ctx, h.Runtime, bundle, id)
}

// kept is a shim that is held, and whether we still care for its death: Gone
// stays open for ever once our side of a shim is closed.
type kept struct {
	shimclient.Tasks
	left chan struct{}
}

func (h kept) leave() {
	if h.Tasks != nil {
		close(h.left)
		_ = h.Close()
	}
}

// keep takes a connected shim up and has its death reported.
func (p *Pods) keep(id string, s shimclient.Tasks) {
	now := kept{s, make(chan struct{})}
	p.mu.Lock()
	old := p.shims[id]
	p.shims[id] = now
	delete(p.untaken, id)
	p.wg.Add(1)
	p.mu.Unlock()
	old.leave()
	go func() {
		defer p.wg.Done()
		select {
		case <-s.Gone():
			p.shimGone(id)
		case <-now.left:
		case <-p.stop:
		}
	}()
}

func (p *Pods) drop(id string) {
	p.mu.Lock()
	s := p.shims[id]
	delete(p.shims, id)
	p.mu.Unlock()
	s.leave()
}

// shimGone: the shim's process is dead, by the kernel's word. Its containers'
// pipes are gone with it, so the whole pod goes.
func (p *Pods) shimGone(id string) {
	v, err := p.Ledger.Pod(id)
	if err != nil {
		return
	}
	if v.State.Phase == lifecycle.Ready || v.State.Phase == lifecycle.Broken {
		p.Log.Error("the shim of a pod died; its containers are killed", "pod", id)
		if p.ShimDied != nil {
			p.ShimDied()
		}
	}
	_, _ = p.step(id, lifecycle.SeenPodBroken{Why: lifecycle.WhyShim})
	for _, m := range p.Ledger.Members(id) {
		p.Members.ShimGone(m.ID)
	}
}

func isNotFound(err error) bool { return errors.Is(err, errdefs.ErrNotFound) }

func toStore(r shimclient.Ref) store.ShimRef {
	return store.ShimRef{ID: r.ID, Address: r.Address, Version: r.Version, Binary: r.Binary, Bundle: r.Bundle,
		Process: store.Process{Pid: r.Process.Pid, StartTime: r.Process.StartTime}}
}

func toRef(r store.ShimRef) shimclient.Ref {
	return shimclient.Ref{ID: r.ID, Address: r.Address, Version: r.Version, Binary: r.Binary, Bundle: r.Bundle,
		Process: pidfd.Process{Pid: r.Process.Pid, StartTime: r.Process.StartTime}}
}

// attachment is what CNI needs to know of a pod.
func (p *Pods) attachment(v *store.Pod, want *plan.Pod) cni.Attachment {
	a := cni.Attachment{ID: v.ID, NetNS: v.NetNS, Name: v.Name.Name, Namespace: v.Name.Namespace, UID: v.Name.UID, CgroupPath: v.Cgroup}
	if want == nil {
		return a
	}
	a.Ingress, a.Egress, a.Args, a.Annotations = want.Ingress, want.Egress, want.CNIArgs, want.Annotations
	for _, m := range want.Ports {
		a.Ports = append(a.Ports, cni.Port{Protocol: m.Protocol, ContainerPort: m.ContainerPort, HostPort: m.HostPort, HostIP: m.HostIP})
	}
	if d := want.DNS; d != nil {
		a.DNS = &cni.DNS{Servers: d.Servers, Searches: d.Searches, Options: d.Options}
	}
	return a
}
