// Package reset clears a node: the act behind "crid reset". It owns the order in
// which that is done: first the daemon's own way, from the records; then by
// force, from what lies in our folders and cgroups, whatever the records say or
// fail to say; then the files. It refuses to know how the parts are made, and
// everything about flags, locks and a daemon that runs.
package reset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/crid-project/crid/cni"
	"github.com/crid-project/crid/config"
	"github.com/crid-project/crid/container"
	"github.com/crid-project/crid/image"
	"github.com/crid-project/crid/sandbox"
	"github.com/crid-project/crid/sandbox/reconcile"
	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/pidfd"
	"github.com/crid-project/crid/store"
)

// Bounds of a reset. All pods are worked on side by side.
const (
	// orderlyPod is how long a pod may take to go in the daemon's own way.
	orderlyPod = 60 * time.Second
	// forcedKill is how long processes may take to die of SIGKILL after that.
	forcedKill = 10 * time.Second
	closeBound = 5 * time.Second
)

// Parts are what a daemon would have, without anything that serves. A reset
// closes them.
type Parts struct {
	Config     *config.Config
	Boot       string // this boot's id
	Driver     string // cgroup driver
	Ledger     *store.Ledger
	Host       *shimclient.Host
	Networks   *cni.Networks
	Images     *image.Store
	Watcher    *pidfd.Watcher
	Pods       *sandbox.Pods
	Containers *container.Containers
	Reconciler *reconcile.Reconciler
	// Runtimes are all handlers, those without a binary too.
	Runtimes []shimclient.Runtime
	// Scratch is a folder that stands in for what could not be opened; empty
	// if none was needed. It goes at the end.
	Scratch string
}

// Reset is one run.
type Reset struct {
	log   *slog.Logger
	parts Parts

	mu    sync.Mutex
	out   io.Writer
	left  []error
	stuck map[string]bool // ids of pods and containers of which something lives
}

// New prepares a run; what is done goes to out, a line each.
func New(log *slog.Logger, out io.Writer) *Reset {
	return &Reset{log: log, out: out, stuck: map[string]bool{}}
}

// Run returns the node to its first state, with its images if they are wanted
// gone too. The error says what is left. Idempotent, with fresh parts.
func (r *Reset) Run(ctx context.Context, parts Parts, images bool) error {
	r.parts = parts
	r.orderly(ctx)
	r.force(ctx)
	r.clear(ctx, images)
	if err := ctx.Err(); err != nil {
		r.leave("interrupted: %w", err)
	}
	return errors.Join(r.left...)
}

// Say tells one thing that was done. It may be called from any goroutine.
func (r *Reset) Say(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.out, format+"\n", args...)
}

// leave notes one thing that could not be done.
func (r *Reset) leave(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.out, "left: %v\n", err)
	r.left = append(r.left, err)
}

// orderly has every pod removed as a kubelet would, each within its bound, and
// lets go of everything.
func (r *Reset) orderly(ctx context.Context) {
	n := r.parts
	events, stop := context.WithCancel(ctx)
	var serving sync.WaitGroup
	serving.Go(func() { _ = n.Host.Serve(events) }) // a shim waits for somebody to tell
	serving.Go(func() { n.Reconciler.Hear(events, n.Host.Events()) })
	n.Reconciler.Recover(ctx)
	n.Reconciler.Settle(ctx)
	var wg sync.WaitGroup
	for _, p := range n.Ledger.Pods() {
		wg.Go(func() { r.removePod(ctx, p) })
	}
	for _, v := range n.Ledger.Containers() {
		if _, err := n.Ledger.Pod(v.PodID); err == nil {
			continue // goes with its pod
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, orderlyPod)
			defer cancel()
			if err := n.Containers.Remove(ctx, v.ID); err != nil {
				r.log.Warn("remove container", "container", v.ID, "err", err)
				return
			}
			r.Say("removed container %s %s", v.ID, v.Name.Name)
		})
	}
	wg.Wait()
	stop()
	serving.Wait()
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeBound)
	defer cancel()
	n.Containers.Close(bound)
	n.Pods.Close(bound)
	n.Ledger.Close()
}

func (r *Reset) removePod(ctx context.Context, p *store.Pod) {
	members := len(r.parts.Ledger.Members(p.ID))
	ctx, cancel := context.WithTimeout(ctx, orderlyPod)
	defer cancel()
	if err := r.parts.Pods.Remove(ctx, p.ID); err != nil {
		r.log.Warn("remove pod sandbox", "pod", p.ID, "err", err)
		return
	}
	r.Say("removed pod %s/%s (%s) with %d containers", p.Name.Namespace, p.Name.Name, p.ID, members)
}
