// Package reconcile looks at kernel and shims, compares what it sees with the
// records, and tells the law. It repairs nothing itself: what differs becomes
// an event, and the work that is owed then is done by the hands.
//
// It owns the start after a crash, an upgrade or a reboot, the sweep of what
// belongs to no record, a slow audit that counts what the event paths missed,
// and the statement of the ledger's invariants for `crid check`.
package reconcile

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/crid-project/crid/cni"
	"github.com/crid-project/crid/container"
	"github.com/crid-project/crid/sandbox"
	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

// Networks is what the sweep needs of CNI. *cni.Networks is one.
type Networks interface {
	GC(ctx context.Context, valid []cni.Attachment) error
}

// Images is what the sweep needs of the image store.
type Images interface {
	// Rootfses lists the ids of all prepared root file systems.
	Rootfses() []string
	RemoveRootfs(ctx context.Context, id string) error
}

// Shims ends shims that no record knows. *shimclient.Host is one.
type Shims interface {
	Kill(context.Context, shimclient.Ref) error
	Predict(shimclient.Launch) shimclient.Ref
}

// Config is what a Reconciler looks at and whom it tells.
type Config struct {
	Ledger     *store.Ledger
	Lost       []store.Lost
	Pods       *sandbox.Pods
	Containers *container.Containers
	Networks   Networks
	Images     Images
	Shims      Shims
	Kernel     container.Kernel
	// Runtimes are all handlers, for finding shims that no record knows.
	Runtimes []shimclient.Runtime
	// StateDir, RootDir and CgroupParent are crid's own: nothing outside them
	// is ever swept.
	StateDir, RootDir, CgroupParent string
	// Repaired is told what the audit or the start had to repair.
	Repaired func(kind string)
	// Heard is told of every event from a shim; may be nil.
	Heard func(kind string)
	Log   *slog.Logger
}

// Reconciler compares the world with the ledger.
type Reconciler struct {
	Config
	settled atomic.Bool
	// left: the last sweep left something. wait and rest count the audit's looks
	// until the next one; they are its goroutine's own.
	left       atomic.Bool
	wait, rest int
}

// New answers a Reconciler that has looked at nothing yet.
func New(c Config) *Reconciler { return &Reconciler{Config: c} }

// Settled reports whether everything of an earlier run has been taken up.
func (r *Reconciler) Settled() bool { return r.settled.Load() }

// askDeadline bounds what the start waits for shims that have to tell how a
// container ended: one that hangs must not keep the others from being served.
const askDeadline = 2 * time.Second

// Recover brings the ledger in line with what the kernel says; after it, lists
// are true and can be served. A shim is asked only where a container ended
// while nobody watched, for how it ended: an exit that was shown never changes.
func (r *Reconciler) Recover(ctx context.Context) {
	r.forgetProcesses()
	for _, p := range r.Ledger.Pods() {
		r.Pods.Adopt(p)
	}
	ended := map[string][]string{}
	for _, c := range r.Ledger.Containers() {
		if !r.Containers.Adopt(c) {
			ended[c.PodID] = append(ended[c.PodID], c.ID)
		}
	}
	r.learnEnds(ctx, ended)
	for _, c := range r.orphans() {
		// Shim, network and namespaces were in its pod's record: the sweep takes
		// them away, and nobody could find them for it any more.
		r.Log.Error("the record of a container's pod is lost; the container is killed", "container", c.ID, "pod", c.PodID)
		_, _ = r.Ledger.StepContainer(c.ID, lifecycle.SeenShimGone{})
	}
	for _, p := range r.Ledger.Pods() {
		r.Pods.AdoptShim(p)
	}
}

// forgetProcesses strikes the processes of an earlier boot off the records: a
// pid with the same start time, counted from the boot, is somebody else now.
func (r *Reconciler) forgetProcesses() {
	boot := r.Ledger.Boot()
	for _, p := range r.Ledger.Pods() {
		if p.Boot != boot && (p.PauseInit.Known() || p.Shim.Process.Known()) {
			_, _ = r.Ledger.UpdatePod(p.ID, func(p *store.Pod) { p.PauseInit, p.Shim.Process = store.Process{}, store.Process{} })
		}
	}
	for _, c := range r.Ledger.Containers() {
		if c.Boot != boot && c.Init.Known() {
			_, _ = r.Ledger.UpdateContainer(c.ID, func(c *store.Container) { c.Init = store.Process{} })
		}
	}
}

// learnEnds finds out how containers ended, pod by pod and side by side.
func (r *Reconciler) learnEnds(ctx context.Context, ended map[string][]string) {
	ctx, cancel := context.WithTimeout(ctx, askDeadline)
	defer cancel()
	var wg sync.WaitGroup
	for pod, ids := range ended {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if p, err := r.Ledger.Pod(pod); err == nil {
				r.Pods.Attach(ctx, p)
			}
			for _, id := range ids {
				wg.Add(1)
				go func() {
					defer wg.Done()
					r.Containers.Settle(ctx, id)
				}()
			}
		}()
	}
	wg.Wait()
}

// parallel bounds how many shims are connected to at once.
const parallel = 16

// Settle connects to the shims, each with a bound of its own, finishes what
// only they can tell, takes up what is owed, and sweeps what nobody owns.
func (r *Reconciler) Settle(ctx context.Context) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, parallel)
	for _, p := range r.Ledger.Pods() {
		wg.Add(1)
		slots <- struct{}{}
		go func() {
			defer func() { <-slots; wg.Done() }()
			r.Pods.Attach(ctx, p)
			if now, err := r.Ledger.Pod(p.ID); err == nil {
				r.Pods.AdoptShim(now) // it may have died since it was looked at
			}
			r.settleMembers(ctx, p.ID)
			r.Pods.Tend(p.ID)
		}()
	}
	wg.Wait()
	r.endOrphans(ctx)
	r.sweep(ctx)
	r.settled.Store(true)
}

// orphans are the containers whose pod has no record.
func (r *Reconciler) orphans() (out []*store.Container) {
	for _, c := range r.Ledger.Containers() {
		if _, err := r.Ledger.Pod(c.PodID); err != nil {
			out = append(out, c)
		}
	}
	return out
}

// endOrphans waits for the ends of orphans, as long as the sweep can wait: what
// it takes away is theirs.
func (r *Reconciler) endOrphans(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, orphansDeadline)
	defer cancel()
	var wg sync.WaitGroup
	for _, c := range r.orphans() {
		wg.Go(func() {
			r.Containers.Settle(ctx, c.ID)
			_, _ = r.Ledger.WaitContainer(ctx, c.ID, func(c *store.Container) bool { return !c.State.Alive() })
		})
	}
	wg.Wait()
}

const orphansDeadline = 10 * time.Second

func (r *Reconciler) settleMembers(ctx context.Context, pod string) {
	var wg sync.WaitGroup
	for _, c := range r.Ledger.Members(pod) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r.Containers.Settle(ctx, c.ID)
		}()
	}
	wg.Wait()
}

// Hear takes the shims' events as what they are, hints to look: they get lost,
// repeated, reordered, and anybody with root could send them.
func (r *Reconciler) Hear(ctx context.Context, events <-chan shimclient.Event) {
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-events:
			if !ok {
				return
			}
			if r.Heard != nil {
				r.Heard(e.Kind.String())
			}
			if e.Kind == shimclient.Dirty {
				r.audit()
			}
		}
	}
}

// auditEvery is how often the audit looks. It finds nothing as long as the
// event paths work; what it finds is counted.
const auditEvery = 30 * time.Second

// Audit repeats the audit until the context ends, and beside it asks the shims
// again that did not answer, and ends the execs that these would not end.
func (r *Reconciler) Audit(ctx context.Context) {
	t := time.NewTicker(auditEvery)
	defer t.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	asking := make(chan struct{}, 1)
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			r.audit()
			select {
			case asking <- struct{}{}:
				wg.Go(func() { r.Pods.AskSilent(ctx); r.Containers.EndExecs(ctx); r.sweepAgain(ctx); <-asking })
			default: // the last round is still under way
			}
		}
	}
}

// audit looks once at every container that is shown as running.
func (r *Reconciler) audit() {
	for _, c := range r.Ledger.Containers() {
		if c.State.Phase != lifecycle.Running || c.State.InitGone {
			continue
		}
		alive, err := container.Alive(r.Kernel, c.Init)
		if err != nil || alive {
			continue
		}
		// Give the event path its moment: it may be waiting for the last output.
		time.AfterFunc(2*time.Second, func() {
			now, err := r.Ledger.Container(c.ID)
			if err != nil || now.Version != c.Version || now.State.Phase != lifecycle.Running {
				return
			}
			r.repaired("missed-exit", "container", c.ID)
			r.Containers.Look(c.ID)
		})
	}
}

func (r *Reconciler) repaired(kind string, args ...any) {
	r.Log.Warn("the world and the records differed; repairing", append([]any{"kind", kind}, args...)...)
	if r.Repaired != nil {
		r.Repaired(kind)
	}
}
