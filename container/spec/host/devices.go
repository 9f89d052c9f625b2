package host

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// maxDevices bounds a walk: a node has some hundreds.
const maxDevices = 16384

// skippedDirs of /dev are file systems of their own, or made anew in each
// container.
var skippedDirs = []string{"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"}

// HostDevices returns the node's character and block devices under /dev, but
// for the console, which a container has of its own.
func HostDevices() ([]oci.LinuxDevice, error) { return walk("/dev", "/dev") }

// Devices returns the device at path, symbolic links followed, or those below
// it if it is a directory. Their paths begin with path as it was given.
func Devices(path string) ([]oci.LinuxDevice, error) {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, fmt.Errorf("look up device %s: %w", path, classify(err))
	}
	st, err := os.Stat(target)
	if err != nil {
		return nil, fmt.Errorf("look up device %s: %w", path, classify(err))
	}
	if st.IsDir() {
		return walk(target, path)
	}
	dev, ok, err := device(target, path)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("look up device %s: not a device: %w", path, errdefs.ErrInvalidArgument)
	}
	return []oci.LinuxDevice{dev}, nil
}

func walk(root, shown string) ([]oci.LinuxDevice, error) {
	var out []oci.LinuxDevice
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		switch {
		case os.IsNotExist(err):
			return nil // gone since it was listed
		case err != nil:
			return err
		case e.IsDir():
			if p != root && slices.Contains(skippedDirs, e.Name()) {
				return filepath.SkipDir
			}
			return nil
		case e.Name() == "console" || e.Type()&fs.ModeDevice == 0:
			return nil
		case len(out) == maxDevices:
			return fmt.Errorf("more than %d devices: %w", maxDevices, errdefs.ErrResourceExhausted)
		}
		dev, ok, err := device(p, shown+p[len(root):])
		if ok {
			out = append(out, dev)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list devices below %s: %w", shown, err)
	}
	return out, nil
}

// device describes the device node at p; false if it is none (any more).
func device(p, shown string) (oci.LinuxDevice, bool, error) {
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		if err == unix.ENOENT {
			return oci.LinuxDevice{}, false, nil
		}
		return oci.LinuxDevice{}, false, fmt.Errorf("look up device %s: %w", shown, err)
	}
	var kind string
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		kind = "b"
	case unix.S_IFCHR:
		kind = "c"
	default:
		return oci.LinuxDevice{}, false, nil
	}
	mode := os.FileMode(st.Mode &^ unix.S_IFMT)
	return oci.LinuxDevice{
		Path: shown, Type: kind, Major: int64(unix.Major(uint64(st.Rdev))), Minor: int64(unix.Minor(uint64(st.Rdev))), //nolint:unconvert // 32 bits on some architectures
		FileMode: &mode, UID: &st.Uid, GID: &st.Gid,
	}, true, nil
}
