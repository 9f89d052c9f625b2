package cgroup

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// deepest bounds the walk below a cgroup; the kernel allows more, sane
// containers do not.
const deepest = 64

// Procs lists the processes of the cgroup and everything below it, in any
// hierarchy, each once, sorted. Dead ones (zombies) are not listed by the
// kernel. A cgroup that does not exist has none.
func (c *Cgroup) Procs() ([]int, error) {
	if c.err != nil {
		return nil, c.err
	}
	var pids []int
	for _, root := range c.dirs() {
		err := walk(root, 0, func(dirfd int, _ string) error {
			return procsOf(dirfd, func(pid int) { pids = append(pids, pid) })
		})
		if err != nil {
			return nil, fmt.Errorf("list processes of cgroup %s: %w", c.path, err)
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// Populated tells whether a live process is in the cgroup or below it. A
// cgroup that does not exist is not populated.
func (c *Cgroup) Populated() (bool, error) {
	if c.err != nil {
		return false, c.err
	}
	if c.t.v2 {
		v, err := eventOf(c.unifiedDir(), "populated")
		if err == nil || gone(err) {
			return v, nil
		}
		return false, fmt.Errorf("read cgroup.events of %s: %w", c.path, err)
	}
	errFound := errors.New("found")
	for _, root := range c.dirs() {
		err := walk(root, 0, func(dirfd int, _ string) error {
			found := false
			if err := procsOf(dirfd, func(int) { found = true }); err != nil {
				return err
			}
			if found {
				return errFound
			}
			return nil
		})
		if errors.Is(err, errFound) {
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("list processes of cgroup %s: %w", c.path, err)
		}
	}
	return false, nil
}

// eventOf reads one flag of a cgroup2 directory's cgroup.events.
func eventOf(dir, key string) (set bool, err error) {
	err = readFile(unix.AT_FDCWD, dir+"/cgroup.events", func(b []byte) {
		eachKey(b, func(k []byte, v uint64) {
			if string(k) == key {
				set = v != 0
			}
		})
	})
	return set, err
}

// procsOf calls fn for every process of one directory. A threaded cgroup2
// directory cannot list processes (EOPNOTSUPP): its domain does.
func procsOf(dirfd int, fn func(pid int)) error {
	err := readFile(dirfd, "cgroup.procs", func(b []byte) {
		eachLine(b, func(line []byte) {
			// 0 is a process outside our pid namespace: it can neither be
			// named nor signalled, but it does populate the cgroup.
			if pid, ok := parseUint(line); ok && pid < 1<<31 {
				fn(int(pid))
			}
		})
	})
	if gone(err) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

// walk visits a directory and everything below it, parents first. A directory
// that vanishes on the way is no error.
func walk(dir string, depth int, fn func(dirfd int, dir string) error) error {
	fd, err := openDir(dir)
	if err != nil {
		if gone(err) {
			return nil
		}
		return err
	}
	defer unix.Close(fd)
	if err := fn(fd, dir); err != nil {
		return err
	}
	if depth >= deepest {
		return fmt.Errorf("cgroup %s is nested too deeply: %w", dir, errdefs.ErrFailedPrecondition)
	}
	for _, name := range children(fd, dir) {
		if err := walk(dir+"/"+name, depth+1, fn); err != nil {
			return err
		}
	}
	return nil
}

// children names the directories directly below. The link count of a cgroup
// directory is 2 plus its children, so a leaf costs one fstat.
func children(fd int, dir string) []string {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err == nil && st.Nlink == 2 {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// gone tells whether an error means that the cgroup has been removed: ENODEV
// is what an open control file answers then.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)
}
