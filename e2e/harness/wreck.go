package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func parseCIDR(s string) (net.IP, *net.IPNet, error) { return net.ParseCIDR(s) }

// killAll ends what is left of a home's processes: those in its cgroups, and those that carry its path (shims).
func (h *Home) killAll() error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		alive := append(h.processes(), h.members()...)
		alive = slices.DeleteFunc(alive, func(p Proc) bool { return p.Pid == os.Getpid() })
		if len(alive) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("kill what is left: %d processes do not die: %v", len(alive), alive)
		}
		for _, p := range alive {
			p.kill()
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// kill sends SIGKILL; what has gone meanwhile is no matter.
func (p Proc) kill() { _ = p.Signal(unix.SIGKILL) }

func (h *Home) unmountAll() error {
	var errs []error
	for _, m := range slices.Backward(mountsUnder(h.Dir)) {
		if err := unix.Unmount(m, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", m, err))
		}
	}
	return errors.Join(errs...)
}

// Mounts are the mount points in the home, in the order in which they were mounted.
func (h *Home) Mounts() []string { return mountsUnder(h.Dir) }

// mountsUnder lists the mount points at or below dir, in the order in which they were mounted.
func mountsUnder(dir string) []string {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var found []string
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) > 4 {
			if point := unescapeMount(fields[4]); point == dir || strings.HasPrefix(point, dir+"/") {
				found = append(found, point)
			}
		}
	}
	return found
}

// unescapeMount undoes the octal escapes of /proc/*/mountinfo.
func unescapeMount(s string) string {
	for {
		at := strings.IndexByte(s, '\\')
		if at < 0 || at+4 > len(s) {
			return s
		}
		n, err := strconv.ParseUint(s[at+1:at+4], 8, 8)
		if err != nil {
			return s
		}
		s = s[:at] + string(rune(n)) + s[at+4:]
	}
}

// removeCgroups removes the home's cgroups where they are empty, deepest first.
func (h *Home) removeCgroups() error {
	var errs []error
	for _, dir := range slices.Backward(h.cgroupDirs()) {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// removeTree is os.RemoveAll that stays on one file system: should a mount be left under dir, what is mounted there is not deleted.
func removeTree(dir string) error {
	var top unix.Stat_t
	if err := unix.Lstat(dir, &top); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return &fs.PathError{Op: "lstat", Path: dir, Err: err}
	}
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !entry.IsDir() {
			return os.Remove(path)
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return &fs.PathError{Op: "lstat", Path: path, Err: err}
		}
		if st.Dev != top.Dev {
			return fmt.Errorf("remove %s: %s is another file system", dir, path)
		}
		dirs = append(dirs, path)
		return nil
	})
	if err != nil {
		return err
	}
	for _, d := range slices.Backward(dirs) {
		if err := os.Remove(d); err != nil {
			return err
		}
	}
	return nil
}

// LoseState empties the state folder, as a boot empties /run: mounts and files. The daemon must not run.
func (h *Home) LoseState() error {
	var errs []error
	for _, m := range slices.Backward(mountsUnder(h.State())) {
		errs = append(errs, unix.Unmount(m, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
	}
	if left := mountsUnder(h.State()); len(left) > 0 {
		return errors.Join(append(errs, fmt.Errorf("lose state: still mounted: %s", strings.Join(left, " ")))...)
	}
	return errors.Join(append(errs, removeTree(h.State()))...)
}
