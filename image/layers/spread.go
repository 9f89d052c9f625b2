package layers

import (
	"os"

	"golang.org/x/sys/unix"
)

// topDir is FS_TOPDIR_FL: directories in this one have nothing to do with each other.
const topDir = 0x00020000

// spread asks the file system to put what is made in a directory each in a
// place of its own. ext4 otherwise puts all layers together, where they are in
// each other's way: after an image was removed it passes over each deleted
// inode for minutes, one by one and again for every new file of the next
// image. Where a file system does not know the hint there is none to give.
func spread(dir string) {
	f, err := os.Open(dir)
	if err != nil {
		return
	}
	defer f.Close()
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil && flags&topDir == 0 {
		_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags|topDir)
	}
}
