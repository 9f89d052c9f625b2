//go:build e2e

package kube

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// unmount takes a folder's own mounts away; one that is none is fine. A kubelet binds its root onto itself.
func unmount(dir string) error {
	for end := time.Now().Add(10 * time.Second); ; {
		switch err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW); {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
			return nil
		case errors.Is(err, unix.EBUSY) && time.Now().Before(end): // somebody looks into it just now
			time.Sleep(100 * time.Millisecond)
		case err != nil:
			return err
		}
	}
}
