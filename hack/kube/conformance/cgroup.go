package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/hack/kube/cluster"
)

// The suite expects the kubelet's cgroups right below the root: /kubepods, /kubepods/burstable. So the second self sees a cgroup that is made for it
// as the root, by a cgroup namespace. That is for cgroup v1, where a root may have processes and children; on a machine with v2 alone the kubelet gets
// a cgroup root of its own, and the suite's four specs of "Kubelet Cgroup Manager" look in vain.

// hierarchy is one cgroup v1 mount: where it is, what it controls, and where in it this process was.
type hierarchy struct{ mount, options, home string }

// hierarchies of cgroup v1.
func hierarchies() ([]hierarchy, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	at := map[string]string{}
	for line := range strings.Lines(string(own)) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 {
			at[f[1]] = f[2]
		}
	}
	var found []hierarchy
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 4 || f[2] != "cgroup" {
			continue
		}
		for controllers, home := range at {
			if controllers != "" && contains(strings.Split(f[3], ","), strings.Split(controllers, ",")) {
				found = append(found, hierarchy{f[1], controllers, home})
			}
		}
	}
	return found, nil
}

func contains(all, some []string) bool {
	for _, s := range some {
		if !strings.Contains(","+strings.Join(all, ",")+",", ","+s+",") {
			return false
		}
	}
	return true
}

// cage is a cgroup in every hierarchy. Processes that are started while this one is in it stay there.
type cage struct {
	path string
	all  []hierarchy
}

// newCage makes it and moves this process into it. Nil: there is no cgroup v1.
func newCage() (*cage, error) {
	all, err := hierarchies()
	if err != nil || len(all) == 0 {
		return nil, err
	}
	c := &cage{path: fmt.Sprintf("/crid-conformance-%d", os.Getpid()), all: all}
	if err := cluster.MakeCgroup(c.path); err != nil {
		return nil, err
	}
	for _, h := range all {
		if err := enter(filepath.Join(h.mount, c.path)); err != nil {
			return nil, errors.Join(err, c.leave(), c.remove())
		}
	}
	return c, nil
}

func enter(dir string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0)
}

// leave moves this process back to where it was.
func (c *cage) leave() error {
	var errs []error
	for _, h := range c.all {
		errs = append(errs, enter(filepath.Join(h.mount, h.home)))
	}
	return errors.Join(errs...)
}

func (c *cage) remove() error { return cluster.RemoveCgroup(c.path) }

// seeCgroups mounts the hierarchies anew, so that they begin where the namespace does.
func seeCgroups() error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		options := h.options
		if strings.HasPrefix(options, "name=") {
			options = "none," + options
		}
		if err := unix.Unmount(h.mount, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", h.mount, err)
		}
		if err := unix.Mount("cgroup", h.mount, "cgroup", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RELATIME, options); err != nil {
			return fmt.Errorf("mount %s: %w", h.mount, err)
		}
	}
	return nil
}
