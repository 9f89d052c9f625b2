package fitness

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Capabilities by number (capability.h) that crid cannot or should not be without.
const (
	capNetAdmin    = 12
	capSysAdmin    = 21
	capSysResource = 24
)

func privileges(_ context.Context, n *node) []Finding {
	const name = "privileges"
	if os.Geteuid() != 0 {
		return []Finding{fail(name, "run crid (and this check) as root", "running as user %d", os.Geteuid())}
	}
	caps, err := strconv.ParseUint(n.status("CapEff"), 16, 64)
	if err != nil {
		return []Finding{warn(name, "mount /proc", "capabilities cannot be read")}
	}
	has := func(c uint) bool { return caps>>c&1 != 0 }
	switch {
	case !has(capSysAdmin), !has(capNetAdmin):
		return []Finding{fail(name, "give crid CAP_SYS_ADMIN and CAP_NET_ADMIN", "root without them")}
	case !has(capSysResource):
		return []Finding{warn(name, "give crid CAP_SYS_RESOURCE, or leave restrict_oom_score_adj at \"auto\"",
			"root without CAP_SYS_RESOURCE: oom_score_adj cannot be lowered")}
	}
	return []Finding{ok(name, "root with the capabilities that pods need")}
}

// status is one field of /proc/self/status.
func (n *node) status(field string) string {
	for line := range strings.Lines(n.read("/proc/self/status")) {
		if v, found := strings.CutPrefix(line, field+":"); found {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// release is the kernel's version as two numbers.
func (n *node) release() (major, minor int, text string) {
	text = n.read("/proc/sys/kernel/osrelease")
	v := parseVersion(text)
	return v[0], v[1], text
}

// atLeast compares the kernel's version.
func (n *node) atLeast(major, minor int) bool {
	a, b, _ := n.release()
	return a > major || a == major && b >= minor
}

func kernel(_ context.Context, n *node) []Finding {
	_, _, text := n.release()
	switch {
	case !n.atLeast(5, 6):
		return []Finding{fail("kernel", "use Linux 5.6 or newer (5.14 or newer is better)", "Linux %s lacks pidfds, openat2 or other necessary calls", text)}
	case !n.atLeast(5, 14):
		return []Finding{warn("kernel", "use Linux 5.14 or newer", "Linux %s: no cgroup.kill, recursive read-only or id-mapped mounts", text)}
	}
	return []Finding{ok("kernel", "Linux %s", text)}
}

func pidfds(_ context.Context, n *node) []Finding {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return []Finding{fail("pidfd", "use Linux 5.4 or newer, and a seccomp profile that allows pidfd_open", "pidfd_open: %v", err)}
	}
	defer unix.Close(fd)
	const getInfo = 3<<30 | 64<<16 | 0xff<<8 | 11 // _IOWR(0xff, 11, 64 bytes), linux/pidfd.h
	var info [8]uint64
	info[0] = 1 // PIDFD_INFO_PID
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), getInfo, uintptr(unsafe.Pointer(&info[0])))
	if errno != 0 || !n.atLeast(6, 15) {
		return []Finding{warn("pidfd", "use Linux 6.15 or newer if that matters",
			"no exit codes from PIDFD_GET_INFO: after the death of a shim its containers' codes are 137 or 255")}
	}
	return []Finding{ok("pidfd", "pidfds, with exit codes (PIDFD_GET_INFO)")}
}

func namespaces(_ context.Context, n *node) []Finding {
	var missing []string
	for _, ns := range []string{"mnt", "net", "ipc", "uts", "pid", "cgroup"} {
		if !n.exists("/proc/self/ns/" + ns) {
			missing = append(missing, ns)
		}
	}
	if missing != nil {
		return []Finding{fail("namespaces", "use a kernel that has them (CONFIG_NAMESPACES, CONFIG_NET_NS …)", "missing: %s", strings.Join(missing, ", "))}
	}
	limit, err := strconv.Atoi(n.read("/proc/sys/user/max_user_namespaces"))
	if !n.exists("/proc/self/ns/user") || err == nil && limit == 0 {
		return []Finding{warn("namespaces", "sysctl -w user.max_user_namespaces=65536", "no user namespaces: pods with hostUsers: false will fail")}
	}
	return []Finding{ok("namespaces", "mnt, net, ipc, uts, pid, cgroup, user")}
}

func seccomp(_ context.Context, n *node) []Finding {
	if n.status("Seccomp") == "" || !strings.Contains(n.read("/proc/sys/kernel/seccomp/actions_avail"), "errno") {
		return []Finding{warn("seccomp", "use a kernel with CONFIG_SECCOMP_FILTER", "missing: RuntimeDefault will be refused")}
	}
	out := ok("seccomp", "filters available")
	if n.read("/sys/module/apparmor/parameters/enabled") == "Y" {
		out.Message += "; AppArmor is on"
	}
	if n.exists("/sys/fs/selinux/enforce") {
		out.Message += "; SELinux is on"
	}
	return []Finding{out}
}

// overlay mounts one, in a mount namespace of its own, on the disk that the
// layers will be on: that a kernel has overlayfs says nothing of the disk.
func overlay(_ context.Context, n *node) []Finding {
	const name = "overlayfs"
	if !strings.Contains(n.read("/proc/filesystems"), "\toverlay") {
		return []Finding{warn(name, "modprobe overlay (and name it in /etc/modules-load.d), or set images.snapshotter = \"native\"",
			"the kernel does not have it loaded")}
	}
	base := existing(n.c.Root)
	if base != n.c.Root || os.Geteuid() != 0 {
		return []Finding{ok(name, "the kernel has it (not tried: %s is not there yet)", n.c.Root)}
	}
	if err := tryOverlay(base); err != nil {
		return []Finding{fail(name, "put root on ext4, xfs (ftype=1) or btrfs, or set images.snapshotter = \"native\"",
			"cannot be mounted on %s: %v", base, err)}
	}
	return []Finding{ok(name, "works on %s", base)}
}

// tryOverlay mounts an overlay below base. The thread that does it has a mount
// namespace of its own and ends with it, so nothing can be left mounted.
func tryOverlay(base string) error {
	dir, err := os.MkdirTemp(base, ".check-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			return err
		}
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is not reused
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			done <- err
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
			done <- err
			return
		}
		opts := "lowerdir=" + dir + "/lower,upperdir=" + dir + "/upper,workdir=" + dir + "/work"
		err := unix.Mount("overlay", dir+"/merged", "overlay", 0, opts)
		if err == nil {
			err = errors.Join(os.WriteFile(dir+"/merged/x", nil, 0o600), unix.Unmount(dir+"/merged", 0))
		}
		done <- err
	}()
	return <-done
}

func idmapped(_ context.Context, n *node) []Finding {
	err := unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	if errors.Is(err, unix.ENOSYS) || !n.atLeast(5, 19) {
		return []Finding{warn("id-mapped mounts", "use Linux 5.19 or newer", "none on overlayfs: pods with user namespaces will fail or copy their images")}
	}
	return []Finding{ok("id-mapped mounts", "available")}
}

func propagation(_ context.Context, n *node) []Finding {
	for line := range strings.Lines(n.read("/proc/self/mountinfo")) {
		f := strings.Fields(line)
		if len(f) > 6 && f[4] == "/" {
			if strings.HasPrefix(f[6], "shared:") {
				return []Finding{ok("mount propagation", "/ is shared")}
			}
			return []Finding{warn("mount propagation", "mount --make-rshared / (systemd does it at boot)",
				"/ is not shared: Bidirectional and HostToContainer mounts do not reach containers")}
		}
	}
	return []Finding{warn("mount propagation", "mount /proc", "cannot be read")}
}
