package cgroup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// removeTries bounds Remove; with the growing pause that is about a second.
const removeTries = 12

// Remove removes the cgroup and everything below it from every hierarchy,
// deepest first. A cgroup that a dying process still holds is tried again for
// about a second, or until ctx ends; ErrFailedPrecondition if it stays busy.
// Idempotent; parents are left alone. Where systemd runs, a slice is ended as
// its unit, too.
func (c *Cgroup) Remove(ctx context.Context) error {
	if err := c.mine(); err != nil {
		return err
	}
	pause := time.Millisecond
	for try := 1; ; try++ {
		var busy error
		for _, dir := range c.dirs() {
			if err := removeDir(dir, 0); err != nil && busy == nil {
				busy = err
			}
		}
		if busy == nil && c.isSlice() {
			return c.stopSlice(ctx)
		}
		if busy == nil {
			return nil
		}
		if !errors.Is(busy, unix.EBUSY) {
			return fmt.Errorf("remove cgroup %s: %w", c.path, busy)
		}
		if try == removeTries {
			return fmt.Errorf("remove cgroup %s: processes are in it still: %w", c.path, errdefs.ErrFailedPrecondition)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove cgroup %s: %w", c.path, ctx.Err())
		case <-time.After(pause):
		}
		pause = min(2*pause, 200*time.Millisecond)
	}
}

// removeDir removes a directory and those below it.
func removeDir(dir string, depth int) error {
	err := unix.Rmdir(dir)
	if err == nil || gone(err) {
		return nil
	}
	fd, oerr := openDir(dir)
	if oerr != nil {
		if gone(oerr) {
			return nil
		}
		return oerr
	}
	names := children(fd, dir)
	_ = unix.Close(fd)
	if len(names) == 0 || depth >= deepest {
		return err
	}
	var first error
	for _, name := range names {
		if err := removeDir(dir+"/"+name, depth+1); err != nil && first == nil {
			first = err
		}
	}
	if first != nil {
		return first
	}
	if err := unix.Rmdir(dir); err != nil && !gone(err) {
		return err
	}
	return nil
}
