package fitness

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"
)

// What is too little room: images and logs need gigabytes, records kilobytes.
const (
	rootWarn, rootFail   = 2 << 30, 200 << 20
	stateWarn, stateFail = 64 << 20, 8 << 20
	inodesWarn           = 20000
	inodesFail           = 1000
)

func rootDir(_ context.Context, n *node) []Finding {
	return append(modes("root directory", n.c.Root), space("root directory", n.c.Root, rootWarn, rootFail)...)
}

func stateDir(_ context.Context, n *node) []Finding {
	out := append(modes("state directory", n.c.State), space("state directory", n.c.State, stateWarn, stateFail)...)
	var st unix.Statfs_t
	if err := unix.Statfs(existing(n.c.State), &st); err == nil && st.Type != unix.TMPFS_MAGIC {
		out = append(out, warn("state directory", "put state on a tmpfs, usually below /run", "%s is on a disk: what should not outlive a reboot will", n.c.State))
	}
	return out
}

// modes looks at who can walk into a directory, and at its parents: whoever
// can write one can put another directory in its place.
func modes(name, dir string) []Finding {
	st, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return parents(name, dir, ok(name, "%s will be made", dir))
	case err != nil:
		return []Finding{fail(name, "look at what is mounted there", "%v", err)}
	case !st.IsDir():
		return []Finding{fail(name, "remove it, or name another one", "%s is no directory", dir)}
	}
	if uid, known := owner(st); known && uid != os.Geteuid() {
		return []Finding{fail(name, "chown root:root "+dir, "%s belongs to user %d", dir, uid)}
	}
	// 0711 is what pods with user namespaces need to pass through.
	if perm := st.Mode().Perm(); perm&0o066 != 0 {
		return []Finding{fail(name, "chmod 0700 "+dir, "%s has mode %04o: other users can look into it", dir, perm)}
	}
	return parents(name, dir, ok(name, "%s, mode %04o", dir, st.Mode().Perm()))
}

// parents answers good unless a directory above can be written by others.
func parents(name, dir string, good Finding) []Finding {
	for d := filepath.Dir(dir); ; d = filepath.Dir(d) {
		if st, err := os.Stat(d); err == nil && st.Mode().Perm()&0o002 != 0 {
			if st.Mode()&os.ModeSticky == 0 {
				return []Finding{fail(name, "chmod o-w "+d+", or choose another place", "everybody can write %s, above %s", d, dir)}
			}
			return []Finding{warn(name, "choose a place that only root can write", "%s lies below %s, where everybody can make files", dir, d)}
		}
		if d == "/" {
			return []Finding{good}
		}
	}
}

// space looks at what is free, and at mount flags that containers suffer from.
func space(name, dir string, warnBelow, failBelow uint64) []Finding {
	at := existing(dir)
	var st unix.Statfs_t
	if err := unix.Statfs(at, &st); err != nil {
		return []Finding{fail(name, "look at what is mounted there", "%s: %v", at, err)}
	}
	var out []Finding
	free := st.Bavail * uint64(st.Bsize)
	text := units.BytesSize(float64(free))
	switch {
	case free < failBelow:
		out = append(out, fail(name, "free some, or use a larger disk", "%s free on %s", text, at))
	case free < warnBelow:
		out = append(out, warn(name, "free some, or use a larger disk", "only %s free on %s", text, at))
	}
	// Some file systems (btrfs) have no fixed number of inodes and say 0.
	if st.Files > 0 && st.Ffree < inodesFail {
		out = append(out, fail(name, "delete files there, or make a file system with more inodes", "%d inodes free on %s", st.Ffree, at))
	} else if st.Files > 0 && st.Ffree < inodesWarn {
		out = append(out, warn(name, "delete files there, or make a file system with more inodes", "only %d inodes free on %s", st.Ffree, at))
	}
	if out == nil {
		out = append(out, ok(name, "%s free on %s", text, at))
	}
	return append(out, flags(name, at, st.Flags)...)
}

// flags judges mount options. The state (bundles' root mount points, fifos)
// is not executed from, the root is.
func flags(name, at string, set int64) []Finding {
	if !strings.HasPrefix(name, "root") {
		if set&unix.ST_RDONLY != 0 {
			return []Finding{fail(name, "mount -o remount,rw "+at, "%s is mounted read-only", at)}
		}
		return nil
	}
	switch {
	case set&unix.ST_RDONLY != 0:
		return []Finding{fail(name, "mount -o remount,rw "+at, "%s is mounted read-only", at)}
	case set&unix.ST_NOEXEC != 0:
		return []Finding{fail(name, "mount it without noexec", "%s is mounted noexec: no container can start there", at)}
	case set&(unix.ST_NOSUID|unix.ST_NODEV) != 0:
		return []Finding{warn(name, "mount it without nosuid and nodev", "%s is mounted nosuid or nodev: some images will not work", at)}
	}
	return nil
}

// ownFiles looks for files that crid obeys and others can write.
func ownFiles(_ context.Context, n *node) []Finding {
	const name = "file modes"
	var open []string
	look := func(path string) {
		if st, err := os.Stat(path); err == nil {
			uid, known := owner(st)
			sticky := st.IsDir() && st.Mode()&os.ModeSticky != 0
			if st.Mode().Perm()&0o022 != 0 && !sticky || known && uid != 0 && uid != os.Geteuid() {
				open = append(open, path)
			}
		}
	}
	look(n.c.CNI.ConfDir)
	if p, err := firstConfig(n.c.CNI.ConfDir); err == nil {
		look(p)
	}
	for _, list := range [][]string{n.c.CNI.BinDirs, n.c.Registry.CertsDirs, n.c.CDISpecDirs, n.c.RuntimeSearchPaths} {
		for _, d := range list {
			look(d)
		}
	}
	for _, r := range n.c.Runtimes {
		for _, program := range []string{ShimProgram(r), Binary(r)} {
			if p, err := n.c.FindProgram(program); program != "" && err == nil {
				look(p)
			}
		}
	}
	if open != nil {
		return []Finding{fail(name, "chown root, chmod go-w", "others than root can change %s", strings.Join(open, ", "))}
	}
	return []Finding{ok(name, "only root can change what crid obeys")}
}

func owner(st fs.FileInfo) (uid int, known bool) {
	sys, isStat := st.Sys().(*unixStat)
	if !isStat {
		return 0, false
	}
	return int(sys.Uid), true
}
