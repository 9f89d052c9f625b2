package netns

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// IDMap is the mapping of a user namespace (OCI runtime spec, "User namespace
// mappings"): container ids to ids of the caller's user namespace.
type IDMap struct {
	UIDs, GIDs []oci.LinuxIDMapping
}

// Spec says which namespaces are made and how they are furnished.
type Spec struct {
	// Net, IPC, UTS choose the namespaces.
	Net, IPC, UTS bool
	// IDMap asks for a user namespace that owns the others; nil: none.
	IDMap *IDMap
	// Hostname is set in the UTS namespace; empty: the caller's stays.
	Hostname string
	// Sysctls are dotted keys (`net.ipv4.ip_forward`, or `net/ipv4/...`), each
	// of which must belong to one of the namespaces asked for. Those of an
	// interface that does not exist yet are left for [WriteSysctls].
	Sysctls map[string]string
}

// Pinned are the paths that keep the namespaces alive; empty where a namespace
// was not asked for. They can be given to setns(2) and to an OCI spec.
type Pinned struct {
	Net, IPC, UTS, User string
}

// kind is one namespace: its clone flag and its name, both in /proc/PID/ns and
// as the pin's file name.
type kind struct {
	flag int
	name string
}

var kinds = []kind{
	{unix.CLONE_NEWUSER, "user"},
	{unix.CLONE_NEWNET, "net"},
	{unix.CLONE_NEWIPC, "ipc"},
	{unix.CLONE_NEWUTS, "uts"},
}

func (s Spec) flags() int {
	flags := 0
	if s.Net {
		flags |= unix.CLONE_NEWNET
	}
	if s.IPC {
		flags |= unix.CLONE_NEWIPC
	}
	if s.UTS {
		flags |= unix.CLONE_NEWUTS
	}
	return flags
}

// Paths are the pins that [New] makes for spec under dir, before it is asked:
// what an intent record keeps.
func Paths(dir string, spec Spec) Pinned {
	flags := spec.flags()
	if spec.IDMap != nil {
		flags |= unix.CLONE_NEWUSER
	}
	var p Pinned
	for _, k := range kinds {
		if flags&k.flag == 0 {
			continue
		}
		path := filepath.Join(dir, k.name)
		switch k.flag {
		case unix.CLONE_NEWUSER:
			p.User = path
		case unix.CLONE_NEWNET:
			p.Net = path
		case unix.CLONE_NEWIPC:
			p.IPC = path
		case unix.CLONE_NEWUTS:
			p.UTS = path
		}
	}
	return p
}

// New makes the namespaces of spec and pins them under dir, which is made
// (0700) if missing. A nil error means that every namespace exists, is pinned,
// has its loopback up, its hostname and its sysctls. On an error nothing is
// left pinned. Pins that exist already are [errdefs.ErrAlreadyExists]: [Unpin]
// them first.
func New(dir string, spec Spec) (Pinned, error) {
	if !filepath.IsAbs(dir) {
		return Pinned{}, fmt.Errorf("pin namespaces: directory %q is not absolute: %w", dir, errdefs.ErrInvalidArgument)
	}
	if err := spec.validate(); err != nil {
		return Pinned{}, fmt.Errorf("pin namespaces: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Pinned{}, fmt.Errorf("pin namespaces: %w", err)
	}
	for _, k := range kinds {
		if ok, err := IsPinned(filepath.Join(dir, k.name)); err != nil {
			return Pinned{}, fmt.Errorf("pin namespaces: %w", err)
		} else if ok {
			return Pinned{}, fmt.Errorf("pin namespaces: %s is pinned: %w", filepath.Join(dir, k.name), errdefs.ErrAlreadyExists)
		}
	}
	var err error
	if spec.IDMap != nil {
		err = onThread(func() error { return makeWithUser(dir, spec) })
	} else if spec.flags() != 0 {
		err = onThread(func() error { return makeOnThread(dir, spec) })
	}
	if err != nil {
		// What fails here is less than what failed: the first error is told.
		_ = Unpin(dir)
		return Pinned{}, fmt.Errorf("pin namespaces: %w", err)
	}
	return Paths(dir, spec), nil
}

func (s Spec) validate() error {
	if s.Hostname != "" && !s.UTS {
		return fmt.Errorf("hostname %q needs a UTS namespace of its own: %w", s.Hostname, errdefs.ErrInvalidArgument)
	}
	if len(s.Hostname) > 64 {
		return fmt.Errorf("hostname is longer than 64 bytes: %w", errdefs.ErrInvalidArgument)
	}
	for key, value := range s.Sysctls {
		if _, err := sysctlPath(key, value, s.Net, s.IPC, s.UTS); err != nil {
			return err
		}
	}
	if s.IDMap != nil && (len(s.IDMap.UIDs) == 0 || len(s.IDMap.GIDs) == 0) {
		return fmt.Errorf("user namespace without uid and gid mappings: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}

// makeOnThread runs on a thread of its own: it moves that thread into new
// namespaces, furnishes them and pins what the thread is in.
func makeOnThread(dir string, spec Spec) error {
	flags := spec.flags()
	if err := unix.Unshare(flags); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := furnish(spec); err != nil {
		return err
	}
	return pinAll(dir, fmt.Sprintf("/proc/self/task/%d/ns", unix.Gettid()), flags)
}

// furnish writes what belongs inside the namespaces the thread is in.
func furnish(spec Spec) error {
	if spec.UTS && spec.Hostname != "" {
		if err := unix.Sethostname([]byte(spec.Hostname)); err != nil {
			return fmt.Errorf("set hostname %q: %w", spec.Hostname, err)
		}
	}
	if spec.Net {
		if err := loopbackUp(); err != nil {
			return fmt.Errorf("bring up loopback: %w", err)
		}
	}
	for key, value := range spec.Sysctls {
		if ofInterface(key) {
			continue
		}
		if err := writeSysctl(key, value, spec.Net, spec.IPC, spec.UTS); err != nil {
			return err
		}
	}
	return nil
}

// loopbackUp brings `lo` up in the thread's network namespace. The kernel gives
// it 127.0.0.1/8 and ::1/128 by itself. (The CNI loopback plugin does the same
// in a process of its own.)
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("name lo: %w", err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req); err != nil {
		return fmt.Errorf("read flags of lo: %w", err)
	}
	req.SetUint16(req.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("set flags of lo: %w", err)
	}
	return nil
}
