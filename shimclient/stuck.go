package shimclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/shimclient/pidfd"
)

// KillStuckCommands kills the runtime commands (runc kill, runc delete and so
// on) that the shim has started for container id and that have run for longer
// than age, with their children. One such command that hangs keeps back the
// exits of all containers of its shim, so this is what frees a pod without
// killing its shim. It returns how many processes it killed. The processes of
// the containers, which are the shim's children as well, are left alone: they
// live in mount namespaces of their own.
func (h *Host) KillStuckCommands(ctx context.Context, ref Ref, id string, age time.Duration) (int, error) {
	if err := checkID(id); err != nil {
		return 0, fmt.Errorf("kill stuck runtime commands: %w", err)
	}
	fail := func(err error) error {
		return fmt.Errorf("kill stuck runtime commands of %s: %w", id, err)
	}
	if alive, err := ref.Process.Alive(); err != nil || !alive {
		return 0, err // a dead shim's commands die with it, by their parent-death signal
	}
	now, err := pidfd.Now()
	if err != nil {
		return 0, fail(err)
	}
	before := now - min(now, uint64(age/(10*time.Millisecond)))
	mounts, err := mountNamespace(ref.Process.Pid)
	if err != nil {
		return 0, fail(err)
	}
	children, err := processTree()
	if err != nil {
		return 0, fail(err)
	}
	killed := 0
	var failed error
	for _, pid := range children[ref.Process.Pid] {
		p, err := pidfd.Identify(pid)
		if err != nil || p.StartTime > before || !isCommandFor(pid, id, mounts) {
			continue
		}
		for _, p := range append(descendants(children, pid, mounts), p) {
			err := killProcess(ctx, p)
			if err == nil {
				killed++
			}
			failed = errors.Join(failed, err)
		}
	}
	if failed != nil {
		return killed, fail(failed)
	}
	return killed, nil
}

// isCommandFor looks for the container's id among the arguments of a process
// that shares the shim's mount namespace.
func isCommandFor(pid int, id string, mounts uint64) bool {
	if ns, err := mountNamespace(pid); err != nil || ns != mounts {
		return false
	}
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil {
		return false
	}
	defer f.Close()
	line, err := io.ReadAll(io.LimitReader(f, 8192))
	return err == nil && slices.ContainsFunc(bytes.Split(line, []byte{0}), func(arg []byte) bool { return string(arg) == id })
}

func mountNamespace(pid int) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/"+strconv.Itoa(pid)+"/ns/mnt", &st); err != nil {
		return 0, fmt.Errorf("read mount namespace of pid %d: %w", pid, err)
	}
	return st.Ino, nil
}

// descendants of a command that share its mount namespace; at most 64.
func descendants(children map[int][]int, pid int, mounts uint64) []pidfd.Process {
	var found []pidfd.Process
	for queue := children[pid]; len(queue) > 0 && len(found) < 64; queue = queue[1:] {
		if ns, err := mountNamespace(queue[0]); err != nil || ns != mounts {
			continue
		}
		if p, err := pidfd.Identify(queue[0]); err == nil {
			found = append(found, p)
		}
		queue = append(queue, children[queue[0]]...)
	}
	return found
}

// processTree maps every pid to those of its children.
func processTree() (map[int][]int, error) {
	pids, err := allPids()
	if err != nil {
		return nil, err
	}
	children := make(map[int][]int, len(pids))
	for _, pid := range pids {
		if parent, err := pidfd.Parent(pid); err == nil {
			children[parent] = append(children[parent], pid)
		}
	}
	return children, nil
}

func allPids() ([]int, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	pids := make([]int, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
