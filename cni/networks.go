package cni

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/version"
)

// Config says where the network's configuration and plugins are.
type Config struct {
	// ConfDir holds *.conflist, *.conf and *.json; the first valid one in
	// lexical order is the pods' network, as with other runtimes.
	ConfDir string
	// BinDirs are searched for plugins, in order.
	BinDirs []string
	// CacheDir keeps a copy of each attachment's record under results/; empty:
	// /var/lib/cni, where other runtimes keep theirs.
	CacheDir string
	// Owned is the directory under which this daemon's network namespaces lie.
	// [Networks.GC] leaves attachments of other namespaces alone.
	Owned string
	// Timeout bounds one ADD, DEL or CHECK of an attachment, all plugins
	// together; 0: 30 s.
	Timeout time.Duration
	// IfName is the pods' interface; empty: eth0.
	IfName string
	// IPPreference orders a pod's addresses: "ipv4" (default), "ipv6", or "cni"
	// for the plugins' own order.
	IPPreference string
	// SearchPath is the plugins' PATH (they call iptables, nft, modprobe);
	// empty: the usual directories.
	SearchPath string
	// SkipIdle leaves out ADD and DEL of the standard portmap plugin for pods
	// without host ports, for which it does nothing (3 ms each). The CNI
	// specification has every plugin called, so this is to be asked for.
	SkipIdle bool
	// Log receives what has no caller; nil: the default.
	Log *slog.Logger
}

const (
	defaultTimeout    = 30 * time.Second
	defaultCacheDir   = "/var/lib/cni"
	defaultIfName     = "eth0"
	defaultSearchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// Networks is the node's pod network. All methods can be called at once from
// many goroutines.
type Networks struct {
	cfg     Config
	log     *slog.Logger
	current atomic.Pointer[loaded]
	status  atomic.Pointer[statusAnswer]
	asking  atomic.Bool
	loading sync.Mutex
	torn    tornFiles
	gate    gate

	mu   sync.Mutex
	busy map[string]chan struct{}
}

// New checks cfg and loads the network once. A missing directory or a broken
// file is no error, but what [Networks.Ready] tells.
func New(cfg Config) (*Networks, error) {
	if !filepath.IsAbs(cfg.ConfDir) {
		return nil, fmt.Errorf("set up networks: conf_dir %q is not an absolute path: %w", cfg.ConfDir, errdefs.ErrInvalidArgument)
	}
	if len(cfg.BinDirs) == 0 {
		return nil, fmt.Errorf("set up networks: bin_dirs is empty: %w", errdefs.ErrInvalidArgument)
	}
	for _, dir := range cfg.BinDirs {
		if !filepath.IsAbs(dir) || strings.ContainsRune(dir, filepath.ListSeparator) {
			return nil, fmt.Errorf("set up networks: bin dir %q is not an absolute path: %w", dir, errdefs.ErrInvalidArgument)
		}
	}
	switch cfg.IPPreference {
	case "", "ipv4", "ipv6", "cni":
	default:
		return nil, fmt.Errorf("set up networks: ip preference %q is none of ipv4, ipv6, cni: %w", cfg.IPPreference, errdefs.ErrInvalidArgument)
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.CacheDir == "" {
		cfg.CacheDir = defaultCacheDir
	}
	if cfg.IfName == "" {
		cfg.IfName = defaultIfName
	}
	if cfg.SearchPath == "" {
		cfg.SearchPath = defaultSearchPath
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	n := &Networks{cfg: cfg, log: cfg.Log, busy: map[string]chan struct{}{}}
	n.Reload()
	return n, nil
}

// loaded is what the configuration directory said last; immutable.
type loaded struct {
	list   *libcni.NetworkConfigList // nil: none
	file   string
	reason string // why there is none, and what to do
}

// network is the pods' network, or why there is none.
func (n *Networks) network() (*libcni.NetworkConfigList, error) {
	l := n.current.Load()
	if l == nil || l.list == nil {
		reason := "no network configuration was loaded"
		if l != nil {
			reason = l.reason
		}
		return nil, fmt.Errorf("%s: %w", reason, errdefs.ErrFailedPrecondition)
	}
	return l.list, nil
}

// Name is the name of the pods' network, empty if there is none.
func (n *Networks) Name() string {
	if l := n.current.Load(); l != nil && l.list != nil {
		return l.list.Name
	}
	return ""
}

// speaks is true if the network's version is at least v.
func speaks(list *libcni.NetworkConfigList, v string) bool {
	have := list.CNIVersion
	if have == "" {
		have = "0.1.0"
	}
	ok, err := version.GreaterThanOrEqualTo(have, v)
	return err == nil && ok
}

// lock waits until nothing else works on the attachments of id, so that a DEL
// never overtakes the ADD it is to undo. It waits no longer than a failing ADD
// and its clean-up may take.
func (n *Networks) lock(ctx context.Context, id string) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*n.cfg.Timeout+2*killGrace)
	defer cancel()
	for {
		n.mu.Lock()
		held, taken := n.busy[id]
		if !taken {
			mine := make(chan struct{})
			n.busy[id] = mine
			n.mu.Unlock()
			return func() {
				n.mu.Lock()
				delete(n.busy, id)
				n.mu.Unlock()
				close(mine)
			}, nil
		}
		n.mu.Unlock()
		select {
		case <-held:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the network operation under way: %w", ctx.Err())
		}
	}
}
