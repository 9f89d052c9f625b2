package shimclient

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/crid-project/crid/shimclient/pidfd"
)

// HostConfig says where a host keeps what it shares with its shims. Everything
// here is part of a running shim's world, so none of it may change while a shim
// of an earlier daemon is up.
type HostConfig struct {
	// State is the directory of events.sock.
	State string
	// SocketDir holds the shims' sockets; State/s if empty. Keep it short: its
	// name and 65 more bytes must fit into 107.
	SocketDir string
	// SearchPaths are directories in which shims find their programs, before
	// those of $PATH.
	SearchPaths []string
	// Namespace is containerd's notion of whose containers these are; "crid" if
	// empty. A runtime's root directory gets a sub-directory of this name.
	Namespace string
	// Address is the daemon's own socket. Nobody dials it: it tells this daemon's
	// shims from those of others, for it is part of their sockets' names.
	Address string
	// Env is added to the environment of every shim, as KEY=value.
	Env []string
	// StartTimeout bounds a shim's start command; 0 means 10 s.
	StartTimeout time.Duration
	// Debug makes shims log in detail.
	Debug bool
	Log   *slog.Logger
}

// Host starts and finds shims. One serves a whole daemon; all its methods may
// be called from several goroutines.
type Host struct {
	config   HostConfig
	self     string // our own binary, which old shims are told about
	log      *slog.Logger
	watcher  *pidfd.Watcher
	dialects dialects
	queue    *eventQueue
}

// NewHost makes the socket directory and starts the host's one goroutine, which
// waits for the ends of shims; Close ends it. Serve listens for events.
func NewHost(c HostConfig) (*Host, error) {
	if c.SocketDir == "" {
		c.SocketDir = filepath.Join(c.State, "s")
	}
	if c.Namespace == "" {
		c.Namespace = "crid"
	}
	if c.StartTimeout <= 0 {
		c.StartTimeout = startTimeout
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if !filepath.IsAbs(c.State) || c.Address == "" {
		return nil, fmt.Errorf("start shim host: state directory %q must be absolute and address %q not empty: %w", c.State, c.Address, errdefs.ErrInvalidArgument)
	}
	if strings.ContainsAny(c.Namespace, "/\x00") || c.Namespace == "." || c.Namespace == ".." {
		return nil, fmt.Errorf("start shim host: namespace %q: %w", c.Namespace, errdefs.ErrInvalidArgument)
	}
	for _, path := range []string{socketPath(c.SocketDir, c.Address, c.Namespace, ""), filepath.Join(c.State, eventsSocket)} {
		if err := checkSocketPath(path); err != nil {
			return nil, fmt.Errorf("start shim host: %w", err)
		}
	}
	if err := os.MkdirAll(c.SocketDir, 0o700); err != nil {
		return nil, fmt.Errorf("start shim host: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start shim host: %w", err)
	}
	watcher, err := pidfd.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("start shim host: %w", err)
	}
	return &Host{config: c, self: self, log: c.Log, watcher: watcher, queue: newEventQueue(maxEvents)}, nil
}

// Close ends the host's own goroutine. The shims live on, and so do the
// connections: close each with its own Close first.
func (h *Host) Close() error { return h.watcher.Close() }

func (h *Host) eventsPath() string { return filepath.Join(h.config.State, eventsSocket) }

// environment is all that a shim gets of ours. What else our environment holds
// (a service manager's sockets, credentials, proxies) is none of its business,
// and it would hand it on to the runtime.
func (h *Host) environment() []string {
	path := os.Getenv("PATH")
	if path == "" {
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	path = strings.Join(append(slices.Clone(h.config.SearchPaths), path), ":")
	return append([]string{
		"PATH=" + path,
		"GOMAXPROCS=2",
		"MAX_SHIM_VERSION=2", // the version of the shim interface, not of the task API
		"NAMESPACE=" + h.config.Namespace,
		"GRPC_ADDRESS=" + h.config.Address,
		// The only way in which the lasting process of a shim ever learns where to
		// publish, hence the fixed path.
		"TTRPC_ADDRESS=" + h.eventsPath(),
	}, h.config.Env...)
}

// arguments are those of every shim command.
func (h *Host) arguments(id string) []string {
	args := []string{
		"-namespace", h.config.Namespace,
		"-address", h.config.Address,
		"-publish-binary", h.self,
		"-id", id,
	}
	if h.config.Debug {
		args = append(args, "-debug")
	}
	return args
}

// checkID keeps ids harmless as path elements and as arguments.
func checkID(id string) error {
	if id == "" || len(id) > 128 || id[0] == '-' || id[0] == '.' {
		return fmt.Errorf("id %q: %w", clip(id), errdefs.ErrInvalidArgument)
	}
	for _, r := range id {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-", r) {
			return fmt.Errorf("id %q: %w", id, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// checkBundle holds the runc shim to its own assumption: that the bundle of ID
// is named ID. Its delete command looks for it beside the working directory.
func checkBundle(id, bundle string) error {
	if err := checkID(id); err != nil {
		return err
	}
	if !filepath.IsAbs(bundle) || filepath.Base(bundle) != id {
		return fmt.Errorf("bundle %q must be an absolute path that ends in the id %q: %w", bundle, id, errdefs.ErrInvalidArgument)
	}
	fi, err := os.Stat(bundle)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("bundle %q: %w", bundle, errdefs.ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	if !fi.IsDir() {
		return fmt.Errorf("bundle %q is not a directory: %w", bundle, errdefs.ErrInvalidArgument)
	}
	return nil
}
