package cgroup

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Bounds of the v1 loop: after so many rounds something forks faster than we
// signal, although frozen, and the caller's next try may do better.
const (
	killRounds = 20
	killPause  = 2 * time.Millisecond
	killBatch  = 256 // pidfds open at once
)

// Kill sends SIGKILL to every process of the cgroup and below, frozen ones
// included, and thaws it. It does not wait for their end: ask Populated. It
// refuses the root, and a cgroup that this process itself is in. Idempotent;
// a cgroup that does not exist has nothing to kill.
//
// On v2 the kernel does it in one step (cgroup.kill). On v1 the cgroup is
// frozen so that nothing forks, every listed process is signalled through a
// pidfd that was opened and then seen in the cgroup still, and the cgroup is
// thawed so that the signals arrive; again, until no new process shows.
func (c *Cgroup) Kill() error {
	if err := c.mine(); err != nil {
		return err
	}
	pids, err := c.Procs()
	if err != nil {
		return err
	}
	if slices.Contains(pids, os.Getpid()) || slices.Contains(pids, 1) {
		return fmt.Errorf("kill cgroup %s: crid itself or pid 1 is in it: %w", c.path, errdefs.ErrFailedPrecondition)
	}
	if dir := c.unifiedDir(); dir != "" {
		err := writeFile(dir+"/cgroup.kill", "1")
		if err != nil && !gone(err) {
			return fmt.Errorf("kill cgroup %s: %w", c.path, err)
		}
		if c.t.v2 && (err == nil || !c.Exists()) {
			_ = c.Thaw() // a killed cgroup2 needs none; its next use might
			return nil
		}
		// Hybrid (processes may be in v1 hierarchies only), or a kernel
		// before 5.14: the loop.
	}
	return c.killLoop()
}

// killLoop is Kill without the kernel's help.
func (c *Cgroup) killLoop() error {
	signalled := map[int]bool{}
	for range killRounds {
		// A freezer that is missing or does not stop everybody is no reason
		// not to kill: the rounds catch who forked meanwhile.
		_ = c.Freeze()
		fresh, left, err := c.signalAll(signalled)
		if terr := c.Thaw(); err == nil {
			err = terr
		}
		if err != nil {
			return fmt.Errorf("kill cgroup %s: %w", c.path, err)
		}
		if left == 0 || fresh == 0 {
			return nil
		}
		time.Sleep(killPause)
	}
	return fmt.Errorf("kill cgroup %s: new processes keep appearing: %w", c.path, errdefs.ErrUnavailable)
}

// signalAll sends one SIGKILL to each process in every hierarchy. It counts
// those not seen before, and all.
func (c *Cgroup) signalAll(signalled map[int]bool) (fresh, left int, err error) {
	for _, root := range c.dirs() {
		werr := walk(root, 0, func(dirfd int, _ string) error {
			f, l, err := signalDir(dirfd, signalled)
			fresh, left = fresh+f, left+l
			return err
		})
		if werr != nil {
			return fresh, left, werr
		}
	}
	return fresh, left, nil
}

// signalDir kills the processes of one directory, a batch of pidfds at a time.
func signalDir(dirfd int, signalled map[int]bool) (fresh, left int, err error) {
	var pids []int
	if err := procsOf(dirfd, func(pid int) { pids = append(pids, pid) }); err != nil {
		return 0, 0, err
	}
	for batch := range slices.Chunk(pids, killBatch) {
		f, err := signalBatch(dirfd, batch, signalled)
		fresh += f
		if err != nil {
			return fresh, len(pids), err
		}
	}
	return fresh, len(pids), nil
}

// signalBatch opens a pidfd for each pid, looks again who is in the cgroup,
// and signals those: a pid reused in between is either not listed any more, or
// it is the process the pidfd names.
func signalBatch(dirfd int, pids []int, signalled map[int]bool) (fresh int, err error) {
	fds := make(map[int]int, len(pids))
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}()
	for _, pid := range pids {
		if pid == 0 {
			continue // outside our pid namespace: cannot be named
		}
		fd, oerr := unix.PidfdOpen(pid, 0)
		if oerr != nil {
			if errors.Is(oerr, unix.ESRCH) || errors.Is(oerr, unix.EINVAL) {
				continue // gone meanwhile
			}
			return 0, fmt.Errorf("open pidfd of %d: %w", pid, oerr)
		}
		fds[pid] = fd
	}
	rerr := procsOf(dirfd, func(pid int) {
		fd, ok := fds[pid]
		if !ok {
			return
		}
		serr := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		if serr != nil && !errors.Is(serr, unix.ESRCH) {
			err = fmt.Errorf("signal pid %d: %w", pid, serr)
			return
		}
		if !signalled[pid] {
			signalled[pid] = true
			fresh++
		}
	})
	if err == nil {
		err = rerr
	}
	return fresh, err
}
