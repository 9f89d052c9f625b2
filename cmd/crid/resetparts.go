package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	nodereset "github.com/crid-project/crid/cmd/crid/reset"
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

// reset returns the node to its first state. The error says what is left.
func reset(ctx context.Context, c *config.Config, o ResetOptions, out io.Writer) error {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	run := nodereset.New(o.Log, out)
	parts, err := resetParts(c, o.Log, run.Say)
	if err != nil {
		return err
	}
	return run.Run(ctx, parts, o.Images)
}

// sealedBytes is a configuration that nobody opens: whether it can be read does
// not matter to a reset.
type sealedBytes []byte

// Marshal implements store.Sealed.
func (b sealedBytes) Marshal() ([]byte, error) { return b, nil }

func openSealed(b []byte) (store.Sealed, error) { return sealedBytes(b), nil }

// resetParts makes the parts that a daemon would have, without anything that
// serves; say tells what is missing.
func resetParts(c *config.Config, log *slog.Logger, say func(format string, args ...any)) (nodereset.Parts, error) {
	n := &node{cfg: c, log: log, driver: c.DriverFor(c.DefaultRuntime, cgroup.AutoDriver), handlers: resolveHandlers(c, log)}
	n.metrics = metrics.New(version(), metrics.Facts{})
	parts := nodereset.Parts{Config: c, Driver: n.driver, Runtimes: allRuntimes(n.handlers, c)}
	var err error
	if parts.Boot, err = bootID(); err != nil {
		return parts, err
	}
	if n.watcher, err = pidfd.NewWatcher(); err != nil {
		return parts, fmt.Errorf("watch processes: %w", err)
	}
	if n.host, err = shimclient.NewHost(shimclient.HostConfig{State: c.State, SocketDir: c.ShimSocketDir, Namespace: container.Namespace,
		Address: c.Address, SearchPaths: c.SearchPaths(), Log: log}); err != nil {
		return parts, fmt.Errorf("prepare for shims: %w", err)
	}
	if n.networks, err = cni.New(cni.Config{ConfDir: c.CNI.ConfDir, BinDirs: c.CNI.BinDirs, CacheDir: c.CNI.CacheDir,
		Owned: filepath.Join(c.State, "pods"), Timeout: c.CNI.PluginTimeout.Std(), Log: log}); err != nil {
		return parts, fmt.Errorf("prepare networks: %w", err)
	}
	aside := standIn{state: c.State}
	lost, err := n.openOrReplace(parts.Boot, &aside, say)
	if err != nil {
		return parts, err
	}
	kernel := container.RealKernel{Watcher: n.watcher}
	n.makeHands(kernel)
	n.reconciler = reconcile.New(reconcile.Config{Ledger: n.ledger, Lost: lost, Pods: n.pods, Containers: n.containers, Networks: n.networks,
		Images: n.images, Shims: n.host, Kernel: kernel, Runtimes: parts.Runtimes, StateDir: c.State, RootDir: c.Root, CgroupParent: c.CgroupParent,
		Repaired: func(kind string) { say("swept: %s", strings.ReplaceAll(kind, "-", " ")) }, Log: log})
	parts.Ledger, parts.Host, parts.Networks, parts.Images, parts.Watcher = n.ledger, n.host, n.networks, n.images, n.watcher
	parts.Pods, parts.Containers, parts.Reconciler, parts.Scratch = n.pods, n.containers, n.reconciler, aside.dir
	return parts, nil
}

// openOrReplace opens the records and the images. Where one of them cannot be
// opened an empty one stands in: what it knew is found by force.
func (n *node) openOrReplace(boot string, aside *standIn, say func(format string, args ...any)) ([]store.Lost, error) {
	ledger := store.Config{Dir: filepath.Join(n.cfg.Root, "ledger"), Copies: filepath.Join(n.cfg.State, "records"), Boot: boot,
		OpenPod: openSealed, OpenContainer: openSealed, Log: n.log, Trace: tracer(n.log)}
	var lost []store.Lost
	var err error
	n.ledger, lost, err = store.Open(ledger)
	if err != nil {
		say("the records cannot be opened, going on without: %v", err)
		if ledger.Dir, err = aside.path("ledger"); err != nil {
			return nil, err
		}
		if n.ledger, _, err = store.Open(ledger); err != nil {
			return nil, fmt.Errorf("open ledger: %w", err)
		}
	}
	for _, l := range lost {
		if l.Restored {
			continue
		}
		say("record %s cannot be read (%s), going on without", l.Path, l.Why)
	}
	images := imageConfig(n.cfg, n.log)
	if n.images, err = image.Open(images); err != nil {
		say("the image store cannot be opened, going on without: %v", err)
		if images.Root, err = aside.path("images"); err != nil {
			return nil, err
		}
		if n.images, err = image.Open(images); err != nil {
			return nil, fmt.Errorf("open image store: %w", err)
		}
	}
	return lost, nil
}

// standIn is a folder for what cannot be opened where it is, made when one is
// needed.
type standIn struct{ state, dir string }

func (s *standIn) path(name string) (string, error) {
	if s.dir == "" {
		dir, err := os.MkdirTemp(s.state, "reset-")
		if err != nil {
			return "", fmt.Errorf("make a place to work in: %w", err)
		}
		s.dir = dir
	}
	return filepath.Join(s.dir, name), nil
}

// allRuntimes are all handlers, those without a binary too: where they keep
// their state is known nevertheless.
func allRuntimes(h *handlers, c *config.Config) []shimclient.Runtime {
	var out []shimclient.Runtime
	for name, one := range h.all {
		rt := one.runtime
		if one.err != nil {
			root, _ := c.Runtimes[name].Options["Root"].(string)
			if root == "" {
				root = filepath.Join(c.State, "runc")
			}
			rt = shimclient.Runtime{Name: name, Options: map[string]any{"Root": root}}
		}
		out = append(out, rt)
	}
	return out
}
