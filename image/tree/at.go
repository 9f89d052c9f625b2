package tree

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// noLinks is how a name inside a hostile tree is opened: one component, no
// link followed, no mount crossed.
const noLinks = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// openDirAt opens a directory by its name in parent. It answers EXDEV for a mount.
func openDirAt(parent int, name string) (*os.File, error) {
	fd, err := retry(func() (int, error) {
		return unix.Openat2(parent, name, &unix.OpenHow{
			Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC | unix.O_NOFOLLOW,
			Resolve: noLinks,
		})
	})
	if err != nil {
		return nil, &os.PathError{Op: "openat2", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Open opens the root of a tree. The path itself is ours and trusted.
func Open(path string) (*os.File, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// retry calls fn again while it is interrupted, or while openat2 lost a race
// with a rename (EAGAIN); not for ever.
func retry(fn func() (int, error)) (int, error) {
	for range 64 {
		n, err := fn()
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return n, err
		}
	}
	return -1, fmt.Errorf("still interrupted after 64 tries: %w", unix.EAGAIN)
}
