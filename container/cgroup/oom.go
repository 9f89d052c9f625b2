package cgroup

import (
	"fmt"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// OOMKills counts the processes that the kernel's OOM killer has ended in the
// cgroup or below. Read it before the task is deleted: the counter goes with
// the cgroup. ErrNotFound if the cgroup is gone or memory is not controlled.
//
// A v1 counter knows only its own directory, so those below are added.
func (c *Cgroup) OOMKills() (uint64, error) {
	if c.err != nil {
		return 0, c.err
	}
	dir := c.dir("memory")
	if dir == "" {
		return 0, fmt.Errorf("count OOM kills: no memory controller is mounted: %w", errdefs.ErrNotFound)
	}
	var total uint64
	found := false
	add := func(dirfd int, file string) {
		withFile(dirfd, file, func(b []byte) {
			eachKey(b, func(k []byte, v uint64) {
				if string(k) == "oom_kill" {
					total, found = total+v, true
				}
			})
		})
	}
	if c.t.v2 {
		add(unix.AT_FDCWD, dir+"/memory.events")
	} else if err := walk(dir, 0, func(dirfd int, _ string) error {
		add(dirfd, "memory.oom_control")
		return nil
	}); err != nil {
		return 0, fmt.Errorf("count OOM kills of cgroup %s: %w", c.path, err)
	}
	if !found {
		return 0, fmt.Errorf("count OOM kills of cgroup %s: %w", c.path, errdefs.ErrNotFound)
	}
	return total, nil
}
