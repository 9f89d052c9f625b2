package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/crid-project/crid/cni"
	"github.com/crid-project/crid/config"
	"github.com/crid-project/crid/container"
	"github.com/crid-project/crid/container/cgroup"
	"github.com/crid-project/crid/image"
	"github.com/crid-project/crid/sandbox/reconcile"
	"github.com/crid-project/crid/server/metrics"
	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/pidfd"
	"github.com/crid-project/crid/store"
)

func init() { Reset = reset }

// Bounds of a reset. All pods are worked on side by side.
const (
	// orderlyPod is how long a pod may take to go in the daemon's own way.
	orderlyPod = 60 * time.Second
	// forcedKill is how long processes may take to die of SIGKILL after that.
	forcedKill = 10 * time.Second
	closeBound = 5 * time.Second
)

// resetter undoes what crid made on this node: first in the daemon's own way,
// from the records; then by force, from what lies in our folders and cgroups,
// whatever the records say or fail to say.
type resetter struct {
	c    *config.Config
	log  *slog.Logger
	n    *node
	boot string

	// scratch stands in for what cannot be opened; empty if not needed.
	scratch string

	mu    sync.Mutex
	out   io.Writer
	left  []error
	stuck map[string]bool // ids of pods and containers of which something lives
}

// reset returns the node to its first state. The error says what is left.
func reset(ctx context.Context, c *config.Config, o ResetOptions, out io.Writer) error {
	r := &resetter{c: c, log: o.Log, out: out, stuck: map[string]bool{}}
	if r.log == nil {
		r.log = slog.Default()
	}
	if err := r.open(); err != nil {
		return err
	}
	r.orderly(ctx)
	r.force(ctx)
	r.clear(ctx, o.Images)
	if err := ctx.Err(); err != nil {
		r.leave("interrupted: %w", err)
	}
	return errors.Join(r.left...)
}

// say tells one thing that was done.
func (r *resetter) say(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.out, format+"\n", args...)
}

// leave notes one thing that could not be done.
func (r *resetter) leave(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.out, "left: %v\n", err)
	r.left = append(r.left, err)
}

// sealedBytes is a configuration that nobody opens: whether it can be read does
// not matter to a reset.
type sealedBytes []byte

// Marshal implements store.Sealed.
func (b sealedBytes) Marshal() ([]byte, error) { return b, nil }

func openSealed(b []byte) (store.Sealed, error) { return sealedBytes(b), nil }

// open makes the parts that a daemon would have, without anything that serves.
func (r *resetter) open() error {
	c := r.c
	n := &node{cfg: c, log: r.log, driver: c.DriverFor(c.DefaultRuntime, cgroup.AutoDriver), handlers: resolveHandlers(c, r.log)}
	r.n = n
	n.metrics = metrics.New(version(), metrics.Facts{})
	var err error
	if r.boot, err = bootID(); err != nil {
		return err
	}
	if n.watcher, err = pidfd.NewWatcher(); err != nil {
		return fmt.Errorf("watch processes: %w", err)
	}
	if n.host, err = shimclient.NewHost(shimclient.HostConfig{State: c.State, SocketDir: c.ShimSocketDir, Namespace: container.Namespace,
		Address: c.Address, Log: r.log}); err != nil {
		return fmt.Errorf("prepare for shims: %w", err)
	}
	if n.networks, err = cni.New(cni.Config{ConfDir: c.CNI.ConfDir, BinDirs: c.CNI.BinDirs, CacheDir: c.CNI.CacheDir,
		Owned: filepath.Join(c.State, "pods"), Timeout: c.CNI.PluginTimeout.Std(), Log: r.log}); err != nil {
		return fmt.Errorf("prepare networks: %w", err)
	}
	lost, err := r.openStores()
	if err != nil {
		return err
	}
	kernel := container.RealKernel{Watcher: n.watcher}
	n.makeHands(kernel)
	n.reconciler = reconcile.New(reconcile.Config{Ledger: n.ledger, Lost: lost, Pods: n.pods, Containers: n.containers, Networks: n.networks,
		Images: n.images, Shims: n.host, Kernel: kernel, Runtimes: r.runtimes(), StateDir: c.State, RootDir: c.Root, CgroupParent: c.CgroupParent,
		Repaired: func(kind string) { r.say("swept: %s", strings.ReplaceAll(kind, "-", " ")) }, Log: r.log})
	return nil
}

// openStores opens the records and the images. Where one of them cannot be
// opened an empty one stands in: what it knew is found by force.
func (r *resetter) openStores() ([]store.Lost, error) {
	ledger := store.Config{Dir: filepath.Join(r.c.Root, "ledger"), Boot: r.boot, OpenPod: openSealed, OpenContainer: openSealed,
		Log: r.log, Trace: tracer(r.log)}
	var lost []store.Lost
	var err error
	r.n.ledger, lost, err = store.Open(ledger)
	if err != nil {
		r.say("the records cannot be opened, going on without: %v", err)
		if ledger.Dir, err = r.standIn("ledger"); err != nil {
			return nil, err
		}
		if r.n.ledger, _, err = store.Open(ledger); err != nil {
			return nil, fmt.Errorf("open ledger: %w", err)
		}
	}
	for _, l := range lost {
		r.say("record %s cannot be read (%s), going on without", l.Path, l.Why)
	}
	images := imageConfig(r.c, r.log)
	if r.n.images, err = image.Open(images); err != nil {
		r.say("the image store cannot be opened, going on without: %v", err)
		if images.Root, err = r.standIn("images"); err != nil {
			return nil, err
		}
		if r.n.images, err = image.Open(images); err != nil {
			return nil, fmt.Errorf("open image store: %w", err)
		}
	}
	return lost, nil
}

func (r *resetter) standIn(name string) (string, error) {
	if r.scratch == "" {
		dir, err := os.MkdirTemp(r.c.State, "reset-")
		if err != nil {
			return "", fmt.Errorf("make a place to work in: %w", err)
		}
		r.scratch = dir
	}
	return filepath.Join(r.scratch, name), nil
}

// runtimes are all handlers, those without a binary too: where they keep their
// state is known nevertheless.
func (r *resetter) runtimes() []shimclient.Runtime {
	var out []shimclient.Runtime
	for name, one := range r.n.handlers.all {
		rt := one.runtime
		if one.err != nil {
			root, _ := r.c.Runtimes[name].Options["Root"].(string)
			if root == "" {
				root = filepath.Join(r.c.State, "runc")
			}
			rt = shimclient.Runtime{Name: name, Options: map[string]any{"Root": root}}
		}
		out = append(out, rt)
	}
	return out
}

// orderly has every pod removed as a kubelet would, each within its bound, and
// lets go of everything.
func (r *resetter) orderly(ctx context.Context) {
	n := r.n
	events, stop := context.WithCancel(ctx)
	var serving sync.WaitGroup
	serving.Go(func() { _ = n.host.Serve(events) }) // a shim waits for somebody to tell
	serving.Go(func() { n.reconciler.Hear(events, n.host.Events()) })
	n.reconciler.Recover(ctx)
	n.reconciler.Settle(ctx)
	var wg sync.WaitGroup
	for _, p := range n.ledger.Pods() {
		wg.Go(func() { r.removePod(ctx, p) })
	}
	for _, v := range n.ledger.Containers() {
		if _, err := n.ledger.Pod(v.PodID); err == nil {
			continue // goes with its pod
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, orderlyPod)
			defer cancel()
			if err := n.containers.Remove(ctx, v.ID); err != nil {
				r.log.Warn("remove container", "container", v.ID, "err", err)
				return
			}
			r.say("removed container %s %s", v.ID, v.Name.Name)
		})
	}
	wg.Wait()
	stop()
	serving.Wait()
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeBound)
	defer cancel()
	n.containers.Close(bound)
	n.pods.Close(bound)
	n.ledger.Close()
}

func (r *resetter) removePod(ctx context.Context, p *store.Pod) {
	members := len(r.n.ledger.Members(p.ID))
	ctx, cancel := context.WithTimeout(ctx, orderlyPod)
	defer cancel()
	if err := r.n.pods.Remove(ctx, p.ID); err != nil {
		r.log.Warn("remove pod sandbox", "pod", p.ID, "err", err)
		return
	}
	r.say("removed pod %s/%s (%s) with %d containers", p.Name.Namespace, p.Name.Name, p.ID, members)
}
