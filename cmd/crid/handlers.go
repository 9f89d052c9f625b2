package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/crid-project/crid/config"
	"github.com/crid-project/crid/container/cgroup"
	"github.com/crid-project/crid/container/machine"
	"github.com/crid-project/crid/container/plan"
	"github.com/crid-project/crid/container/stdio"
	"github.com/crid-project/crid/sandbox"
	cri "github.com/crid-project/crid/server/node"
	"github.com/crid-project/crid/shimclient"
)

type (
	execRequest   = stdio.ExecRequest
	attachRequest = stdio.AttachRequest
)

// handlers are the configured runtime handlers, resolved to binaries.
type handlers struct {
	cfg *config.Config
	log *slog.Logger
	all map[string]*handler
}

type handler struct {
	runtime shimclient.Runtime
	err     error // why it cannot be used
	pause   bool
	kernel  func() plan.Kernel
}

// newHandlers resolves every handler. One that cannot be used is an error only
// if it is the default; the others say what is wrong when they are asked for.
func newHandlers(c *config.Config, log *slog.Logger) (*handlers, error) {
	h := resolveHandlers(c, log)
	for name, one := range h.all {
		if one.err == nil {
			go one.kernel() // found out before the first pod asks
		} else if name != c.DefaultRuntime {
			log.Warn("a runtime handler cannot be used", "handler", name, "err", one.err)
		}
	}
	if d := h.all[c.DefaultRuntime]; d == nil || d.err != nil {
		var why error = errdefs.ErrNotFound
		if d != nil {
			why = d.err
		}
		return nil, fmt.Errorf("default_runtime %q cannot be used: %w", c.DefaultRuntime, why)
	}
	return h, nil
}

// resolveHandlers looks for the binaries of every handler and runs none.
func resolveHandlers(c *config.Config, log *slog.Logger) *handlers {
	h := &handlers{cfg: c, log: log, all: map[string]*handler{}}
	base := sync.OnceValue(func() plan.Kernel {
		return machine.Node(machine.Options{RestrictOOMScore: c.RestrictOOMScore, SELinux: c.EnableSELinux})
	})
	for name, r := range c.Runtimes {
		one := &handler{pause: r.Sandbox == config.SandboxPause}
		one.runtime, one.err = h.resolve(name, r)
		systemd := c.DriverFor(name, cgroup.AutoDriver) == cgroup.Systemd
		one.kernel = sync.OnceValue(func() plan.Kernel { return h.kernel(base(), one, systemd) })
		h.all[name] = one
	}
	return h
}

// resolve completes a configured handler: the shim's and the OCI runtime's
// binaries by path, the runtime's state below ours, the cgroup driver.
func (h *handlers) resolve(name string, r config.Runtime) (shimclient.Runtime, error) {
	opts := map[string]any{}
	for k, v := range r.Options {
		opts[k] = v
	}
	if r.Type == config.RuncType || r.Type == "" {
		if bin, _ := opts["BinaryName"].(string); bin != "" {
			path, err := h.cfg.FindProgram(bin)
			if err != nil {
				return shimclient.Runtime{}, err
			}
			opts["BinaryName"] = path
		}
		if root, _ := opts["Root"].(string); root == "" {
			opts["Root"] = filepath.Join(h.cfg.State, "runc")
		}
		opts["SystemdCgroup"] = h.cfg.DriverFor(name, cgroup.AutoDriver) == cgroup.Systemd
	}
	return shimclient.Resolve(shimclient.Runtime{Name: name, Type: r.Type, Path: r.Path, Options: opts}, h.cfg.SearchPaths()...)
}

func (h *handlers) kernel(k plan.Kernel, one *handler, systemd bool) plan.Kernel {
	k.SystemdCgroup = systemd
	bin, _ := one.runtime.Options["BinaryName"].(string)
	if bin == "" {
		return k
	}
	k, err := machine.With(context.Background(), k, bin)
	if err != nil {
		h.log.Warn("the OCI runtime does not tell its features; the careful ones are assumed", "handler", one.runtime.Name, "err", err)
	}
	return k
}

func (h *handlers) get(name string) (*handler, error) {
	one := h.all[name]
	if one == nil {
		return nil, fmt.Errorf("runtime handler %q is not configured (there are: %s): %w", name, strings.Join(h.names(), ", "), errdefs.ErrNotFound)
	}
	if one.err != nil {
		return nil, fmt.Errorf("runtime handler %q cannot be used: %w", name, one.err)
	}
	return one, nil
}

func (h *handlers) names() []string {
	var out []string
	for n := range h.all {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// Runtime implements container.Handlers.
func (h *handlers) Runtime(name string) (shimclient.Runtime, error) {
	one, err := h.get(name)
	if err != nil {
		return shimclient.Runtime{}, err
	}
	return one.runtime, nil
}

// Kernel implements container.Handlers.
func (h *handlers) Kernel(name string) plan.Kernel {
	one, err := h.get(name)
	if err != nil {
		return plan.Kernel{}
	}
	return one.kernel()
}

func (h *handlers) pod(name string) (sandbox.Handler, error) {
	one, err := h.get(name)
	if err != nil {
		return sandbox.Handler{}, err
	}
	return sandbox.Handler{Runtime: one.runtime, Pause: one.pause}, nil
}

func (h *handlers) runtimes() []shimclient.Runtime {
	var out []shimclient.Runtime
	for _, n := range h.names() {
		if h.all[n].err == nil {
			out = append(out, h.all[n].runtime)
		}
	}
	return out
}

// list is what the kubelet is told; a handler that cannot be used is left out.
func (h *handlers) list() []cri.Handler {
	var out []cri.Handler
	for _, n := range h.names() {
		if h.all[n].err != nil {
			continue
		}
		k := h.all[n].kernel()
		out = append(out, cri.Handler{Name: n, Default: n == h.cfg.DefaultRuntime, RecursiveReadOnly: k.RecursiveReadOnly, UserNamespaces: k.IDMapMounts})
	}
	return out
}

// bootID tells this boot of the machine from every other.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
