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

	"github.com/crid-project/crid/cmd/crid/fitness"
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
	look    func() looked
}

// looked is what a handler's OCI runtime told when it was asked, once.
type looked struct {
	kernel  plan.Kernel
	refused error // why no new pod may use it
}

// newHandlers resolves every handler. One that cannot be used is an error only
// if it is the default; the others say what is wrong when they are asked for.
func newHandlers(c *config.Config, log *slog.Logger) (*handlers, error) {
	h := resolveHandlers(c, log)
	for name, one := range h.all {
		if one.err == nil {
			go func() { // found out before the first pod asks
				if err := one.look().refused; err != nil {
					log.Error("new pods of a runtime handler are refused", "handler", name, "err", err)
				}
			}()
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
		one.look = sync.OnceValue(func() looked { return h.look(base(), one, systemd) })
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

func (h *handlers) look(k plan.Kernel, one *handler, systemd bool) looked {
	k.SystemdCgroup = systemd
	bin, _ := one.runtime.Options["BinaryName"].(string)
	if bin == "" {
		return looked{kernel: k}
	}
	k, runc, err := machine.With(context.Background(), k, bin)
	if err != nil {
		h.log.Warn("the OCI runtime does not tell its features; the careful ones are assumed", "handler", one.runtime.Name, "err", err)
		if filepath.Base(bin) == "runc" { // those before 1.1 cannot tell
			runc, _ = fitness.Version(context.Background(), bin, "--version")
		}
	}
	return looked{k, h.refusal(bin, runc)}
}

// refusal is the error for new pods on a runc with known escapes; nil for any
// other, and where the configuration allows it.
func (h *handlers) refusal(bin, runc string) error {
	if h.cfg.AllowOldRuntime || runc == "" || !fitness.Escapes(runc) {
		return nil
	}
	return fmt.Errorf("%s is runc %s, from which containers are known to escape (CVE-2025-31133, -52565, -52881): install runc 1.2.8, 1.3.3, 1.4.0 or newer, "+
		"or set allow_vulnerable_runtime: %w", bin, runc, errdefs.ErrFailedPrecondition)
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
	return one.look().kernel
}

func (h *handlers) pod(name string) (sandbox.Handler, error) {
	one, err := h.get(name)
	if err != nil {
		return sandbox.Handler{}, err
	}
	return sandbox.Handler{Runtime: one.runtime, Pause: one.pause, Refused: func() error { return one.look().refused }}, nil
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
		k := h.all[n].look().kernel
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
