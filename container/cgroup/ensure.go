package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Ensure makes a cgroup in every hierarchy, with its parents: on v1 the
// cpuset of each level is filled from the one above (an empty one admits
// nobody), on v2 the controllers are handed down to it. Idempotent.
func Ensure(p string) (*Cgroup, error) {
	c := Load(p)
	return c, c.Ensure()
}

// Ensure makes the cgroup; see the function of that name.
func (c *Cgroup) Ensure() error {
	if err := c.mine(); err != nil {
		return err
	}
	for _, root := range c.t.roots() {
		if err := c.ensureIn(root); err != nil {
			return fmt.Errorf("make cgroup %s: %w", c.path, err)
		}
	}
	return nil
}

// ensureIn makes the path level by level below one hierarchy's root.
func (c *Cgroup) ensureIn(root string) error {
	cpuset := !c.t.v2 && root == c.t.controller("cpuset")
	dir := root
	for part := range strings.SplitSeq(strings.TrimPrefix(c.path, "/"), "/") {
		if c.t.v2 {
			handDown(dir)
		}
		dir += "/" + part
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		if cpuset {
			if err := fillCpuset(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// handDown enables in a cgroup2 directory's children what it has itself. One
// controller that cannot be (processes in the way, realtime tasks) does not
// keep the others back; a limit that needs it fails when it is set.
func handDown(dir string) {
	var have, on string
	withFile(unix.AT_FDCWD, dir+"/cgroup.controllers", func(b []byte) { have = string(b) })
	withFile(unix.AT_FDCWD, dir+"/cgroup.subtree_control", func(b []byte) { on = string(b) })
	enabled := strings.Fields(on)
	for _, name := range strings.Fields(have) {
		if !slices.Contains(enabled, name) {
			_ = writeFile(dir+"/cgroup.subtree_control", "+"+name)
		}
	}
}

// fillCpuset copies cpus and mems of the parent into a v1 cpuset that has none.
func fillCpuset(dir string) error {
	for _, name := range []string{"/cpuset.cpus", "/cpuset.mems"} {
		var own, above string
		withFile(unix.AT_FDCWD, dir+name, func(b []byte) { own = string(trim(b)) })
		if own != "" {
			continue
		}
		withFile(unix.AT_FDCWD, path.Dir(dir)+name, func(b []byte) { above = string(trim(b)) })
		if above == "" {
			continue
		}
		if err := writeFile(dir+name, above); err != nil {
			return fmt.Errorf("fill %s: %w", name[1:], err)
		}
	}
	return nil
}
