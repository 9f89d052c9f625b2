package untar

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/image/tree"
)

// Complete settles what Unpack could not without the layers below: parents
// are their directories, the topmost first. A hard link into a lower layer
// becomes a copy of that file, as every overlay file system would make it.
func Complete(ctx context.Context, dir string, res *Result, parents []string) error {
	c := &completer{ctx: ctx}
	defer c.close()
	own, err := openDirs(dir)
	if err != nil {
		return fmt.Errorf("complete layer: %w", err)
	}
	defer own.close()
	for _, p := range parents {
		fd, err := unix.Open(p, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != nil {
			return fmt.Errorf("complete layer: %w", pathError("open", p, err))
		}
		c.parents = append(c.parents, fd)
	}
	slices.Sort(res.Implied) // parents before children
	for _, name := range res.Implied {
		if err := c.describe(own, name); err != nil {
			return fmt.Errorf("complete layer: directory %.200q: %w", name, err)
		}
	}
	for _, l := range res.Links {
		if err := c.link(own, l); err != nil {
			return fmt.Errorf("complete layer: hard link %.200q to %.200q: %w", l.Name, l.Target, err)
		}
	}
	return nil
}

type completer struct {
	ctx     context.Context
	parents []int
}

func (c *completer) close() {
	for _, fd := range c.parents {
		unix.Close(fd)
	}
}

const plainPath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// find looks a path up as overlayfs would: the topmost layer that has it, has
// removed it, or hides what is below. It answers a directory descriptor (the
// caller closes it) and the last component.
func (c *completer) find(name string) (int, string, error) {
	for _, root := range c.parents {
		dir, err := openat2(root, path.Dir(name), unix.O_RDONLY|unix.O_DIRECTORY, plainPath)
		if err == nil {
			var st unix.Stat_t
			serr := unix.Fstatat(dir, path.Base(name), &st, unix.AT_SYMLINK_NOFOLLOW)
			if serr == nil && !isWhiteout(&st) {
				return dir, path.Base(name), nil
			}
			unix.Close(dir)
			if serr == nil {
				return -1, "", unix.ENOENT
			}
		}
		if hidden(root, name) {
			return -1, "", unix.ENOENT
		}
	}
	return -1, "", unix.ENOENT
}

// hidden tells whether a layer keeps a path of the layers below it from being seen.
func hidden(root int, name string) bool {
	parts := strings.Split(name, "/")
	for i := range parts {
		prefix := path.Join(parts[:i]...)
		if prefix == "" {
			prefix = "."
		}
		fd, err := openat2(root, prefix, unix.O_RDONLY|unix.O_DIRECTORY, plainPath)
		if err != nil {
			return !errors.Is(err, unix.ENOENT) // a file, link or whiteout where a directory is below
		}
		var b [1]byte
		n, err := unix.Fgetxattr(fd, OpaqueXattr, b[:])
		unix.Close(fd)
		if err == nil && n == 1 && b[0] == 'y' {
			return true
		}
	}
	return false
}

// describe gives an implied directory the attributes of the lower one.
func (c *completer) describe(own *dirs, name string) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	dir, base, err := c.find(name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	from, err := openat2(dir, base, unix.O_RDONLY|unix.O_DIRECTORY, plainPath)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil // the layer puts a directory where a file or link was
	}
	if err != nil {
		return err
	}
	defer unix.Close(from)
	to, err := own.openNoFollow(name)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil // replaced later in the layer
	}
	if err != nil {
		return err
	}
	defer unix.Close(to)
	return tree.CopyAttributes(from, to)
}

// link copies a lower layer's file up.
func (c *completer) link(own *dirs, l Link) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	to, err := openat2(own.root, path.Dir(l.Name), unix.O_RDONLY|unix.O_DIRECTORY, inRoot)
	if err != nil {
		return err
	}
	defer unix.Close(to)
	// The target may have come later in the same layer, or by another such link.
	if dir, err := openat2(own.root, path.Dir(l.Target), unix.O_RDONLY|unix.O_DIRECTORY, inRoot); err == nil {
		defer unix.Close(dir)
		if err := inLayer(dir, path.Base(l.Target)); err == nil {
			return replaceLink(c.ctx, dir, path.Base(l.Target), to, path.Base(l.Name))
		}
	}
	dir, base, err := c.find(l.Target)
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("no layer has the target: %w", errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := tree.RemoveAt(c.ctx, to, path.Base(l.Name)); err != nil {
		return err
	}
	return tree.CopyEntry(c.ctx, dir, base, to, path.Base(l.Name))
}

func replaceLink(ctx context.Context, dir int, target string, to int, name string) error {
	if err := tree.RemoveAt(ctx, to, name); err != nil {
		return err
	}
	return unix.Linkat(dir, target, to, name, 0)
}
