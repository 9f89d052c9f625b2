package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// pinAll bind-mounts the namespaces of flags from source (a /proc/.../ns
// directory) to files under dir.
func pinAll(dir, source string, flags int) error {
	for _, k := range kinds {
		if flags&k.flag == 0 {
			continue
		}
		if err := pin(filepath.Join(source, k.name), filepath.Join(dir, k.name)); err != nil {
			return err
		}
	}
	return nil
}

func pin(source, target string) error {
	// O_NOFOLLOW: the directory is ours, but a leftover is not trusted either.
	fd, err := unix.Open(target, unix.O_CREAT|unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return &os.PathError{Op: "create", Path: target, Err: err}
	}
	unix.Close(fd)
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return &os.PathError{Op: "bind namespace to", Path: target, Err: err}
	}
	// The pin itself is private: nothing is ever mounted on it from elsewhere.
	// Where the parent is shared, other mount namespaces got a copy; the same
	// sharing takes it from them in Unpin.
	if err := unix.Mount("", target, "", unix.MS_PRIVATE, ""); err != nil {
		return &os.PathError{Op: "make private", Path: target, Err: err}
	}
	return nil
}

// IsPinned says whether path keeps a namespace alive. A path that does not
// exist, or is a plain file (its mount is gone), is false without an error.
func IsPinned(path string) (bool, error) {
	f, err := openPin(path)
	switch {
	case err == nil:
		return true, f.Close()
	case errors.Is(err, ErrNotPinned), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ELOOP),
		errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ENXIO):
		return false, nil
	}
	return false, fmt.Errorf("look at namespace pin: %w", err)
}

// Inode is the identity of the namespace pinned at path, the number that
// /proc/PID/ns/net shows in brackets. [ErrNotPinned] where there is none.
func Inode(path string) (uint64, error) {
	f, err := openPin(path)
	if err != nil {
		return 0, fmt.Errorf("look at namespace pin: %w", err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, fmt.Errorf("look at namespace pin %s: %w", path, err)
	}
	return st.Ino, nil
}

// Unpin undoes [New]: no pin is left under dir, nor dir itself if it is then
// empty. It touches only the names that New makes, and unmounts only what is a
// namespace: another file system mounted there is an error and stays. The
// namespaces end when their last process ends. Idempotent; a dir that does not
// exist is no error.
func Unpin(dir string) error {
	var errs []error
	for _, k := range kinds {
		if err := unpin(filepath.Join(dir, k.name)); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("unpin namespaces: %w", errors.Join(errs...))
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("unpin namespaces: %w", err)
	}
	return nil
}

func unpin(path string) error {
	// Pins can lie on top of each other if a crash came between mount and
	// record; the bound only ends a loop that makes no progress.
	for range 16 {
		ok, err := IsPinned(path)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		// MNT_DETACH: somebody may have the pin open (an `ip netns exec`), and
		// that must not keep the pod from going.
		if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return &os.PathError{Op: "unmount", Path: path, Err: err}
		}
	}
	if err := unix.Unlink(path); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}
