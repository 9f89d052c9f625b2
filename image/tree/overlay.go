package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Overlay copies a layer in overlayfs's form over a target: whiteouts remove,
// opaque directories replace, directories merge. Hard links within the layer
// stay links. With root the target takes the layer root's attributes.
func Overlay(ctx context.Context, layer, target string, root bool) error {
	from, err := Open(layer)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := Open(target)
	if err != nil {
		return err
	}
	defer to.Close()
	c := &copier{ctx: ctx, root: to, links: map[uint64]string{}}
	if err := c.dir(from, to, ".", 0); err != nil {
		return err
	}
	if root {
		return CopyAttributes(int(from.Fd()), int(to.Fd()))
	}
	return nil
}

type copier struct {
	ctx  context.Context
	root *os.File
	// links maps inodes with several names to the first copy's path.
	links map[uint64]string
}

func (c *copier) dir(from, to *os.File, at string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("directory %s is nested more than %d deep", at, maxDepth)
	}
	for {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		names, err := from.Readdirnames(batch)
		for _, n := range names {
			if err := c.entry(from, to, n, at+"/"+n, depth); err != nil {
				return err
			}
		}
		if err == io.EOF || (err == nil && len(names) == 0) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (c *copier) entry(from, to *os.File, name, at string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(from.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "stat", Path: at, Err: err}
	}
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFDIR {
		return c.subdir(from, to, name, at, depth)
	}
	if err := RemoveAt(c.ctx, int(to.Fd()), name); err != nil {
		return err
	}
	if kind == unix.S_IFCHR && st.Rdev == 0 {
		return nil
	}
	if st.Nlink > 1 {
		if first, ok := c.links[st.Ino]; ok {
			if err := c.relink(first, to, name); err == nil {
				return nil
			}
		}
		c.links[st.Ino] = at
	}
	return CopyEntry(c.ctx, int(from.Fd()), name, int(to.Fd()), name)
}

func (c *copier) relink(first string, to *os.File, name string) error {
	fd, err := unix.Openat2(int(c.root.Fd()), first, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC | unix.O_NOFOLLOW, Resolve: noLinks})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), int(to.Fd()), name, unix.AT_SYMLINK_FOLLOW)
}

func (c *copier) subdir(from, to *os.File, name, at string, depth int) error {
	src, err := openDirAt(int(from.Fd()), name)
	if err != nil {
		return err
	}
	defer src.Close()
	var b [1]byte
	n, err := unix.Fgetxattr(int(src.Fd()), overlayOpaque, b[:])
	if err == nil && n == 1 && b[0] == 'y' {
		if err := RemoveAt(c.ctx, int(to.Fd()), name); err != nil {
			return err
		}
	}
	err = unix.Mkdirat(int(to.Fd()), name, 0o700)
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if err := unix.Fstatat(int(to.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		err = nil
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if err = RemoveAt(c.ctx, int(to.Fd()), name); err == nil {
				err = unix.Mkdirat(int(to.Fd()), name, 0o700)
			}
		}
	}
	if err != nil {
		return &os.PathError{Op: "mkdir", Path: at, Err: err}
	}
	dst, err := openDirAt(int(to.Fd()), name)
	if err != nil {
		return err
	}
	defer dst.Close()
	if err := c.dir(src, dst, at, depth+1); err != nil {
		return err
	}
	return CopyAttributes(int(src.Fd()), int(dst.Fd()))
}
