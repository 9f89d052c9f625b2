//go:build e2e

package kube

import (
	"errors"

	"golang.org/x/sys/unix"
)

// unmount takes a folder's own mounts away; one that is none is fine. A kubelet binds its root onto itself.
func unmount(dir string) error {
	for range 5 {
		switch err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW); {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
			return nil
		case err != nil:
			return err
		}
	}
	return nil
}
