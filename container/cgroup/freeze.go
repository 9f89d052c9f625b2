package cgroup

import (
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// freezeWait bounds how long Freeze waits for the last process to stand still;
// one in uninterruptible sleep never does.
const freezeWait = 500 * time.Millisecond

// Freeze stops every process of the cgroup. It returns ErrUnavailable if some
// did not stand still within half a second (the freezing goes on), ErrNotFound if the
// cgroup or the freezer is missing. Idempotent.
func (c *Cgroup) Freeze() error {
	if err := c.mine(); err != nil {
		return err
	}
	dir := c.dir("freezer")
	if dir == "" {
		return fmt.Errorf("freeze cgroup %s: no freezer is mounted: %w", c.path, errdefs.ErrNotFound)
	}
	file, value := "/freezer.state", "FROZEN"
	if c.t.v2 {
		file, value = "/cgroup.freeze", "1"
	}
	if err := writeFile(dir+file, value); err != nil {
		if gone(err) {
			err = errdefs.ErrNotFound
		}
		return fmt.Errorf("freeze cgroup %s: %w", c.path, err)
	}
	for end := time.Now().Add(freezeWait); ; time.Sleep(time.Millisecond) {
		if c.still(dir) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("freeze cgroup %s: some process does not stop: %w", c.path, errdefs.ErrUnavailable)
		}
	}
}

// still tells whether everything in the cgroup stands.
func (c *Cgroup) still(dir string) bool {
	if c.t.v2 {
		frozen, err := eventOf(dir, "frozen")
		return frozen || err != nil
	}
	return stateOf(dir) == "FROZEN"
}

// stateOf reads the v1 freezer's state: THAWED, FREEZING, FROZEN or "".
func stateOf(dir string) (state string) {
	withFile(unix.AT_FDCWD, dir+"/freezer.state", func(b []byte) { state = string(trim(b)) })
	return state
}

// Frozen tells whether the cgroup is frozen or being frozen, by itself or by a
// parent. One that does not exist is not.
func (c *Cgroup) Frozen() (bool, error) {
	if c.err != nil {
		return false, c.err
	}
	if dir := c.t.controller("freezer"); dir != "" {
		if s := stateOf(dir + c.path); s == "FROZEN" || s == "FREEZING" {
			return true, nil
		}
	}
	dir := c.unifiedDir()
	if dir == "" {
		return false, nil
	}
	if v, ok := readUint(unix.AT_FDCWD, dir+"/cgroup.freeze"); ok && v != 0 {
		return true, nil
	}
	frozen, err := eventOf(dir, "frozen")
	if err != nil && !gone(err) {
		return false, fmt.Errorf("read cgroup.events of %s: %w", c.path, err)
	}
	return frozen, nil
}

// Thaw lets the processes of the cgroup and of everything below it run again,
// whichever hierarchy froze them. It never touches a parent: if one is frozen,
// ErrFailedPrecondition says so. Idempotent; a cgroup that is gone is thawed.
func (c *Cgroup) Thaw() error {
	if err := c.mine(); err != nil {
		return err
	}
	if root := c.t.controller("freezer"); root != "" {
		if err := thawBelow(root+c.path, "freezer.state", "THAWED"); err != nil {
			return fmt.Errorf("thaw cgroup %s: %w", c.path, err)
		}
	}
	if dir := c.unifiedDir(); dir != "" {
		if err := thawBelow(dir, "cgroup.freeze", "0"); err != nil {
			return fmt.Errorf("thaw cgroup %s: %w", c.path, err)
		}
	}
	if dir := c.t.controller("freezer"); dir != "" {
		if v, ok := readUint(unix.AT_FDCWD, dir+c.path+"/freezer.parent_freezing"); ok && v != 0 {
			return fmt.Errorf("thaw cgroup %s: a parent is frozen: %w", c.path, errdefs.ErrFailedPrecondition)
		}
	}
	return nil
}

// thawBelow writes the thawing value into every directory that is frozen.
func thawBelow(root, file, value string) error {
	return walk(root, 0, func(dirfd int, dir string) error {
		frozen := false
		withFile(dirfd, file, func(b []byte) { frozen = string(trim(b)) != value })
		if !frozen {
			return nil
		}
		if err := writeFile(dir+"/"+file, value); err != nil && !gone(err) {
			return err
		}
		return nil
	})
}
