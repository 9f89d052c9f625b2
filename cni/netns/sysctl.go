package netns

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// WriteSysctls writes sysctls inside the namespaces of p, and is where those of
// an interface (`net.ipv4.conf.eth0.rp_filter`) go once CNI has made it. Keys
// that belong to a namespace that p does not have are
// [errdefs.ErrInvalidArgument]; nothing is written then. Idempotent.
func WriteSysctls(p Pinned, sysctls map[string]string) error {
	net, ipc, uts := p.Net != "", p.IPC != "", p.UTS != ""
	for key, value := range sysctls {
		if _, err := sysctlPath(key, value, net, ipc, uts); err != nil {
			return err
		}
	}
	if len(sysctls) == 0 {
		return nil
	}
	return onThread(func() error {
		if err := enter(p); err != nil {
			return err
		}
		for key, value := range sysctls {
			if err := writeSysctl(key, value, net, ipc, uts); err != nil {
				return err
			}
		}
		return nil
	})
}

// WaitForInterface picks the sysctls that can only be written once CNI has
// made the pod's interface, for [WriteSysctls].
func WaitForInterface(sysctls map[string]string) map[string]string {
	var later map[string]string
	for key, value := range sysctls {
		if ofInterface(key) {
			if later == nil {
				later = map[string]string{}
			}
			later[key] = value
		}
	}
	return later
}

// ofInterface is true for the keys of one interface that New cannot know yet:
// net.FAMILY.{conf,neigh}.NAME.* but for all, default and lo.
func ofInterface(key string) bool {
	parts := strings.Split(slashed(key), "/")
	if len(parts) < 5 || parts[0] != "net" || (parts[2] != "conf" && parts[2] != "neigh") {
		return false
	}
	switch parts[3] {
	case "all", "default", "lo":
		return false
	}
	return true
}

// slashed turns a dotted key into a path, by sysctl(8)'s rule: if the first
// separator is a slash, dots are part of names (an interface may have them).
func slashed(key string) string {
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '/' {
		return key
	}
	// In dotted form a slash stands for a dot inside a name.
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, key)
}

// sysctlPath checks that key is namespaced, and in a namespace that is ours:
// anything else would change the node. The list is the kernel's.
func sysctlPath(key, value string, net, ipc, uts bool) (string, error) {
	path := slashed(key)
	for _, part := range strings.Split(path, "/") {
		if part == "" || part == "." || part == ".." || strings.ContainsRune(part, 0) {
			return "", fmt.Errorf("sysctl %q is not a key: %w", key, errdefs.ErrInvalidArgument)
		}
	}
	if strings.ContainsRune(value, 0) || len(value) > 4096 {
		return "", fmt.Errorf("sysctl %q has a value that is none: %w", key, errdefs.ErrInvalidArgument)
	}
	var owned bool
	var needs string
	switch {
	case strings.HasPrefix(path, "net/"):
		owned, needs = net, "network"
	case ipcSysctl(path):
		owned, needs = ipc, "IPC"
	case path == "kernel/domainname", path == "kernel/hostname":
		owned, needs = uts, "UTS"
	default:
		return "", fmt.Errorf("sysctl %q is not namespaced and would change the node: %w", key, errdefs.ErrInvalidArgument)
	}
	if !owned {
		return "", fmt.Errorf("sysctl %q needs an %s namespace of the pod's own: %w", key, needs, errdefs.ErrInvalidArgument)
	}
	return "/proc/sys/" + path, nil
}

func ipcSysctl(path string) bool {
	switch path {
	case "kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem", "kernel/shmall", "kernel/shmmax",
		"kernel/shmmni", "kernel/shm_rmid_forced", "kernel/auto_msgmni",
		"kernel/msg_next_id", "kernel/sem_next_id", "kernel/shm_next_id":
		return true
	}
	return strings.HasPrefix(path, "fs/mqueue/")
}

// writeSysctl writes one value; procfs resolves the namespace by the calling
// thread, so this only means something on a thread that is inside.
func writeSysctl(key, value string, net, ipc, uts bool) error {
	path, err := sysctlPath(key, value, net, ipc, uts)
	if err != nil {
		return err
	}
	err = put(path, value)
	if errors.Is(err, unix.EACCES) {
		err = putAsOwner(path, value)
	}
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("write sysctl %q: this kernel has no such key in a pod's namespace: %w", key, errdefs.ErrInvalidArgument)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE):
		return fmt.Errorf("write sysctl %q: the kernel refuses the value %q: %w", key, value, errdefs.ErrInvalidArgument)
	case err != nil:
		return fmt.Errorf("write sysctl %q = %q: %w", key, value, err)
	}
	return nil
}

func put(path, value string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(value))
	return err
}

// putAsOwner writes a sysctl of an IPC namespace that a user namespace owns:
// the kernel lets only that namespace's root write it, by uid, whatever
// capabilities the caller has, and looks at both open and write. Only this
// thread, which is thrown away, changes its effective uid.
func putAsOwner(path, value string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	if st.Uid == 0 {
		return unix.EACCES
	}
	if err := setThreadEUID(uintptr(st.Uid)); err != nil {
		return err
	}
	return errors.Join(put(path, value), setThreadEUID(0))
}

// setThreadEUID changes one thread; the functions of the libraries change all.
func setThreadEUID(uid uintptr) error {
	const keep = ^uintptr(0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, keep, uid, keep); errno != 0 {
		return errno
	}
	return nil
}
