package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Cgroup is one path in every mounted hierarchy. It holds no file open and is
// safe for concurrent use.
type Cgroup struct {
	path string
	err  error // why the path is unusable; every method answers it
	t    *tree
}

// Load names a cgroup; nothing is read or made. The path is absolute,
// relative to the hierarchies' roots ("/kubepods/pod1/abc"), or the systemd
// form "parent.slice:prefix:name" that OCI specs use. An unusable path makes
// every later call fail with ErrInvalidArgument.
func Load(p string) *Cgroup { return load(theTree(), p) }

func load(t *tree, p string) *Cgroup {
	c := &Cgroup{t: t}
	if strings.Count(p, ":") == 2 && !strings.HasPrefix(p, "/") {
		parts := strings.SplitN(p, ":", 3)
		slice, err := expandSlice(parts[0])
		if err != nil {
			c.err = err
			return c
		}
		p = slice + "/" + unitName(parts[1], parts[2])
	}
	if err := checkPath(p); err != nil {
		c.err = err
		return c
	}
	c.path = path.Clean(p)
	return c
}

// checkPath refuses what is not an absolute path without "..".
func checkPath(p string) error {
	switch {
	case !strings.HasPrefix(p, "/"):
		return fmt.Errorf("cgroup path %q is not absolute: %w", p, errdefs.ErrInvalidArgument)
	case strings.ContainsAny(p, "\x00\n"):
		return fmt.Errorf("cgroup path %q has a forbidden character: %w", p, errdefs.ErrInvalidArgument)
	}
	for part := range strings.SplitSeq(p, "/") {
		if part == ".." {
			return fmt.Errorf("cgroup path %q leads upwards: %w", p, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// Path is the cleaned path, relative to the hierarchies' roots; "" if it was
// unusable.
func (c *Cgroup) Path() string { return c.path }

// dirs are the cgroup's directories in all hierarchies.
func (c *Cgroup) dirs() []string {
	roots := c.t.roots()
	for i := range roots {
		roots[i] += c.path
	}
	return roots
}

// dir is the directory in the hierarchy of a controller (v1), or the one
// directory (v2); "" if the controller is not mounted.
func (c *Cgroup) dir(controller string) string {
	if c.t.v2 {
		return c.t.unified + c.path
	}
	if d := c.t.controller(controller); d != "" {
		return d + c.path
	}
	return ""
}

// unifiedDir is the directory in the cgroup2 hierarchy; "" if none is mounted.
func (c *Cgroup) unifiedDir() string {
	if c.t.unified == "" {
		return ""
	}
	return c.t.unified + c.path
}

// mine refuses the root, for calls that would hurt the whole machine there.
func (c *Cgroup) mine() error {
	if c.err != nil {
		return c.err
	}
	if c.path == "" || c.path == "/" {
		return fmt.Errorf("refuse to touch the root cgroup: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}

// Exists tells whether the cgroup is there in any hierarchy.
func (c *Cgroup) Exists() bool {
	if c.err != nil {
		return false
	}
	var st unix.Stat_t
	for _, d := range c.dirs() {
		if unix.Stat(d, &st) == nil {
			return true
		}
	}
	return false
}

// OfPid answers the cgroup path of a process: on v1 that of the freezer, or of
// the first controller that is not at the root. ErrNotFound if there is no
// such process. A path that has been removed under a dying process is answered
// without the kernel's " (deleted)".
func OfPid(pid int) (string, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			return "", fmt.Errorf("find cgroup of pid %d: %w", pid, errdefs.ErrNotFound)
		}
		return "", fmt.Errorf("find cgroup of pid %d: %w", pid, err)
	}
	p := parseProcCgroup(b, theTree().v2)
	if p == "" {
		return "", fmt.Errorf("find cgroup of pid %d: %w", pid, errdefs.ErrNotFound)
	}
	return p, nil
}

// parseProcCgroup picks the path out of /proc/PID/cgroup.
func parseProcCgroup(b []byte, v2 bool) string {
	best, rank := "", -1
	for line := range bytes.Lines(b) {
		f := strings.SplitN(strings.TrimSuffix(string(line), "\n"), ":", 3)
		if len(f) != 3 {
			continue
		}
		p := strings.TrimSuffix(f[2], " (deleted)")
		if v2 {
			if f[0] == "0" {
				return p
			}
			continue
		}
		r := 0
		if p != "/" {
			r = 2
		}
		if strings.Contains(","+f[1]+",", ",freezer,") {
			r++
		}
		if r > rank {
			best, rank = p, r
		}
	}
	return best
}
