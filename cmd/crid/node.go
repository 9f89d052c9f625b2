package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/crid-project/crid/cni"
	"github.com/crid-project/crid/config"
	"github.com/crid-project/crid/container"
	"github.com/crid-project/crid/container/cgroup"
	outputs "github.com/crid-project/crid/container/holder"
	"github.com/crid-project/crid/container/logs"
	"github.com/crid-project/crid/container/spec/host"
	"github.com/crid-project/crid/image"
	"github.com/crid-project/crid/image/user"
	"github.com/crid-project/crid/sandbox"
	podplan "github.com/crid-project/crid/sandbox/plan"
	"github.com/crid-project/crid/sandbox/reconcile"
	podspec "github.com/crid-project/crid/sandbox/spec"
	"github.com/crid-project/crid/server"
	"github.com/crid-project/crid/server/admin"
	"github.com/crid-project/crid/server/metrics"
	cri "github.com/crid-project/crid/server/node"
	"github.com/crid-project/crid/server/seal"
	"github.com/crid-project/crid/server/stats"
	"github.com/crid-project/crid/server/status"
	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/pidfd"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
	"github.com/crid-project/crid/store/lifecycle/trace"
	"github.com/crid-project/crid/store/upkeep"
	"github.com/crid-project/crid/streaming"

	containerspec "github.com/crid-project/crid/container/spec"
)

// node holds the parts of a running daemon. It only wires: no part knows it.
type node struct {
	cfg        *config.Config
	log        *slog.Logger
	driver     string
	handlers   *handlers
	watcher    *pidfd.Watcher
	ledger     *store.Ledger
	host       *shimclient.Host
	holder     *outputs.Holder // nil: none (a reset)
	buffers    *logs.Buffers   // nil: none (a reset, or no file system for them)
	networks   *cni.Networks
	images     *image.Store
	containers *container.Containers
	pods       *sandbox.Pods
	reconciler *reconcile.Reconciler
	streams    *streaming.Server
	metrics    *metrics.Metrics

	eventsDropped func() uint64
	eventStreams  func() int
	stuckReads    func() int
}

// newNode makes the parts from the bottom up. Nothing is served yet.
func newNode(d Daemon) (*node, error) {
	n := &node{cfg: d.Config, log: d.Log}
	c := d.Config
	n.driver = c.DriverFor(c.DefaultRuntime, cgroup.AutoDriver)
	n.metrics = metrics.New(version(), n.facts())
	var err error
	if n.handlers, err = newHandlers(c, d.Log); err != nil {
		return nil, err
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	var lost []store.Lost
	n.ledger, lost, err = store.Open(store.Config{Dir: filepath.Join(c.Root, "ledger"), Copies: filepath.Join(c.State, "records"), Boot: boot,
		OpenPod: seal.OpenPod, OpenContainer: seal.OpenContainer, Log: d.Log, Trace: tracer(d.Log),
		Tracing: func() bool { return d.Log.Enabled(context.Background(), slog.LevelDebug) }})
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	if n.watcher, err = pidfd.NewWatcher(); err != nil {
		return nil, fmt.Errorf("watch processes: %w", err)
	}
	kernel := container.RealKernel{Watcher: n.watcher}
	if n.host, err = shimclient.NewHost(shimclient.HostConfig{State: c.State, SocketDir: c.ShimSocketDir, Namespace: container.Namespace,
		Address: c.Address, SearchPaths: c.SearchPaths(), StartTimeout: c.Timeouts.ShimStart.Std(), Log: d.Log}); err != nil {
		return nil, fmt.Errorf("prepare for shims: %w", err)
	}
	if err := n.openNetworks(); err != nil {
		return nil, err
	}
	if n.images, err = image.Open(image.Config{Root: filepath.Join(c.Root, "images"), Containers: filepath.Join(c.Root, "containers"),
		CertsDirs: c.Registry.CertsDirs, Snapshotter: snapshotter(c.Images.Snapshotter), ProgressTimeout: c.Images.ProgressTimeout.Std(),
		Parallel: c.Images.MaxConcurrentLayers, MaxLayerBytes: int64(c.Images.MaxLayerSize), Pinned: c.Images.Pinned,
		UserAgent: "crid/" + version(), Observer: n.metrics, Log: d.Log}); err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	n.holder = outputs.Open(context.Background(), c.State, d.Log)
	if n.buffers, err = logs.OpenBuffers(filepath.Join(c.State, "output"), int(c.Limits.MaxLogLineSize), d.Log); err != nil {
		d.Log.Warn("what crid has read of containers' output and not written yet is lost if it is killed", "err", err)
	}
	n.makeHands(kernel)
	n.containers.KeepOutput()
	if n.streams, err = streaming.New(streaming.Config{Address: c.Streaming.Address, IdleTimeout: c.Streaming.IdleTimeout.Std(), Log: d.Log}, streamRuntime{n}); err != nil {
		return nil, fmt.Errorf("listen for streaming (streaming.address): %w", err)
	}
	n.reconciler = reconcile.New(reconcile.Config{Ledger: n.ledger, Lost: lost, Pods: n.pods, Containers: n.containers, Networks: n.networks,
		Images: n.images, Shims: n.host, Kernel: kernel, Runtimes: n.handlers.runtimes(), StateDir: c.State, RootDir: c.Root,
		CgroupParent: c.CgroupParent, Repaired: n.metrics.Repaired, Heard: n.metrics.ShimEvent, Log: d.Log})
	return n, nil
}

// makeHands makes the two kinds of hands; each needs the other's.
func (n *node) makeHands(kernel container.Kernel) {
	c := n.cfg
	n.pods = sandbox.New(sandbox.Config{Ledger: n.ledger, Host: n.host.Shims(), Networks: n.networks, Kernel: kernel, Handlers: n.handlers,
		Handler: n.handlers.pod, Plan: n.plan, StateDir: c.State, CgroupDriver: n.driver, CgroupParent: c.CgroupParent, Log: n.log,
		Observe: n.metrics.Network, ShimDied: n.metrics.ShimDied})
	n.containers = container.New(container.Config{Ledger: n.ledger, Shims: n.pods, Handlers: n.handlers, Images: n.images, Users: user.Resolve,
		Kernel: kernel, StateDir: c.State, RootDir: c.Root, CgroupDriver: n.driver, CgroupParent: c.CgroupParent,
		MaxLogLine: int(c.Limits.MaxLogLineSize), Buffers: n.buffers, Log: n.log})
	if n.holder != nil {
		n.containers.Holder = n.holder
	}
	n.pods.Members = n.containers
}

func (n *node) openNetworks() error {
	c := n.cfg
	if d := c.CNI.DefaultNetwork; d.Write {
		wrote, err := cni.WriteDefault(c.CNI.ConfDir, cni.Default{Name: d.Name, Bridge: d.Bridge, Subnets: []string{d.Subnet}})
		if err != nil {
			return fmt.Errorf("write the default network: %w", err)
		}
		if wrote {
			n.log.Info("wrote the default network", "dir", c.CNI.ConfDir, "subnet", d.Subnet)
		}
	}
	var err error
	n.networks, err = cni.New(cni.Config{ConfDir: c.CNI.ConfDir, BinDirs: c.CNI.BinDirs, CacheDir: c.CNI.CacheDir,
		Owned: filepath.Join(c.State, "pods"), Timeout: c.CNI.PluginTimeout.Std(), Log: n.log})
	if err != nil {
		return fmt.Errorf("prepare networks: %w", err)
	}
	return nil
}

// snapshotter is the image store's name for a configured one.
func snapshotter(s string) string {
	if s == "overlayfs" {
		return "auto" // overlay, or copies where the file system has none
	}
	return s
}

// serverConfig is what the CRI server is made of.
func (n *node) serverConfig() server.Config {
	c := n.cfg
	return server.Config{Ledger: n.ledger, Pods: n.pods, Containers: n.containers, Images: n.images, Streams: n.streams, Specs: n.specs(),
		Source: &stats.Kernel{Layers: filepath.Join(c.Root, "containers"), Measure: func(id string) (uint64, uint64, error) {
			return n.images.RootfsUsage(context.Background(), id)
		}},
		Node: cri.Deps{Version: version(), Systemd: n.driver == cgroup.Systemd, Handlers: n.handlers.list, HostNetworkUserNS: true, Log: n.log,
			Runtime: func() (bool, string) { return true, "" }, Network: n.networks.Ready,
			Info: func() map[string]any { return map[string]any{"config": c, "settled": n.reconciler.Settled()} }},
		Bundle: n.containers.Bundle, ImageDir: filepath.Join(c.Root, "images"), LayerDir: filepath.Join(c.Root, "containers"),
		MaxExecSync: int(c.Limits.MaxExecSyncOutput), StatsTimeout: c.Timeouts.Stats.Std(),
		Observer: n.metrics, Panics: n.metrics.Panic, Log: n.log}
}

// specs opens CRI's configurations by the options of each handler.
func (n *node) specs() *seal.Specs {
	return &seal.Specs{
		Kernel: n.handlers.Kernel,
		Container: func(h string) containerspec.Options {
			o := host.Options(n.handlers.Kernel(h), n.cfg.CDISpecDirs...)
			o.SeccompProfile, o.DeviceOwnership = n.cfg.SeccompProfile, n.cfg.DeviceOwnership
			o.PodAnnotations, o.ContainerAnnotations = n.cfg.Runtimes[h].PodAnnotations, n.cfg.Runtimes[h].ContainerAnnotations
			return o
		},
		Pod: func(h string) podspec.Options {
			o := host.Options(n.handlers.Kernel(h))
			return podspec.Options{Kernel: o.Kernel, ReadFile: o.ReadFile, SELinux: o.SELinux, AppArmor: o.AppArmor,
				SeccompProfile: n.cfg.SeccompProfile, PodAnnotations: n.cfg.Runtimes[h].PodAnnotations}
		},
	}
}

// plan opens the configuration of a pod's record again.
func (n *node) plan(p *store.Pod) (*podplan.Pod, error) {
	_, w, err := n.specs().SealPod(p.Handler, status.PodConfig(p.Config))
	return w, err
}

// facts are what a scrape asks for.
func (n *node) facts() metrics.Facts {
	const longOwed = 30 * time.Second
	return metrics.Facts{
		Pods:             func() map[string]int { return server.PodCounts(n.ledger) },
		Containers:       func() map[string]int { return server.ContainerCounts(n.ledger) },
		Tasks:            func() map[string]int { return server.TaskCounts(n.ledger) },
		ShimsUp:          func() int { return len(n.pods.ShimPids()) },
		ShimsUnreachable: n.unreachable,
		ShimsRSS:         n.shimMemory,
		Stuck: func() map[string]int {
			late := func(l []upkeep.Late) int { return len(l) }
			return map[string]int{"container": late(n.containers.Late(longOwed)), "pod": late(n.pods.Late(longOwed)), "stats": call(n.stuckReads)}
		},
		Quarantined:     func() int { return int(n.ledger.Quarantined()) },
		Unsaved:         func() int { k, _ := n.ledger.Unsaved(); return k },
		EventsDropped:   func() uint64 { return call(n.eventsDropped) },
		EventStreams:    func() int { return call(n.eventStreams) },
		LogLinesDropped: func() uint64 { return logs.Totals().DroppedEntries },
		ImageBytes:      func() uint64 { b, _ := n.images.Usage(); return b },
		ImageCount:      func() int { return len(n.images.List()) },
	}
}

// unreachable counts shims; n.pods comes after the metrics.
func (n *node) unreachable() int { return n.pods.Unreachable() }

// shimMemory is the resident memory of all shims, in bytes. A pid that is
// another's by now, in the moment since the kernel was last heard, only spoils
// one sample.
func (n *node) shimMemory() uint64 {
	var pages uint64
	for _, pid := range n.pods.ShimPids() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if err != nil {
			continue
		}
		if f := strings.Fields(string(b)); len(f) > 1 {
			resident, _ := strconv.ParseUint(f[1], 10, 64)
			pages += resident
		}
	}
	return pages * uint64(os.Getpagesize())
}

func call[T any](f func() T) (zero T) {
	if f == nil {
		return zero
	}
	return f()
}

// takeReloads takes over what a SIGHUP may change while serving. The log level
// has been taken already by whoever reads the file.
func (n *node) takeReloads(ctx context.Context, reloads <-chan *config.Config) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-reloads:
			n.networks.Reload()
		}
	}
}

// streamRuntime is what the streaming server asks for.
type streamRuntime struct{ n *node }

func (r streamRuntime) Exec(ctx context.Context, id string, q execRequest) (int, error) {
	return r.n.containers.Exec(ctx, id, q)
}

func (r streamRuntime) Attach(ctx context.Context, id string, q attachRequest) error {
	return r.n.containers.Attach(ctx, id, q)
}

func (r streamRuntime) PodNetNS(id string) (string, error) {
	p, err := r.n.ledger.Pod(id)
	if err != nil {
		return "", err
	}
	if p.State.Phase != lifecycle.Ready {
		return "", fmt.Errorf("pod sandbox %s is not ready: %w", p.ID, errdefs.ErrFailedPrecondition)
	}
	return p.NetNS, nil
}

func (n *node) importImages(ctx context.Context, r io.Reader, _ func(string)) ([]admin.Image, error) {
	got, err := n.images.Import(ctx, r, image.ImportOptions{})
	return adminImages(got), err
}

func adminImages(in []image.Image) []admin.Image {
	out := make([]admin.Image, 0, len(in))
	for _, i := range in {
		out = append(out, admin.Image{ID: i.ID, Tags: i.Tags, Digests: i.Digests, Size: i.Size, Pinned: i.Pinned})
	}
	return out
}

// tracer logs every step of the law at debug level.
func tracer(log *slog.Logger) func(trace.Step) {
	return func(s trace.Step) { log.Debug(trace.Message, s.Attrs()...) }
}
