package untar

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/image/tree"
)

// block is the unit in which disk space is counted.
const block = 4096

// clear makes room for an entry where the same layer has put something before.
// It tells whether that was a whiteout.
func (u *unpacker) clear(parent int, base, name string) (wasWhiteout bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return false, nil
		}
		return false, pathError("stat", name, err)
	}
	wasWhiteout = isWhiteout(&st)
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		// Descriptors of what is below would go on to name removed directories.
		u.dirs.forget()
		if parent, err = u.dirs.open(path.Dir(name)); err != nil {
			return false, pathError("open parent", name, err)
		}
		return false, tree.RemoveAt(u.ctx, parent, base)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		u.dirs.forget()
		if parent, err = u.dirs.open(path.Dir(name)); err != nil {
			return false, pathError("open parent", name, err)
		}
	}
	if err := unix.Unlinkat(parent, base, 0); err != nil {
		return false, pathError("unlink", name, err)
	}
	return wasWhiteout, nil
}

// isWhiteout tells overlayfs's mark of a removed name.
func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// place calls create, and once more after clearing the name if it is taken.
func (u *unpacker) place(parent int, base, name string, create func(parent int) error) (wasWhiteout bool, err error) {
	u.res.Inodes++
	err = create(parent)
	if !errors.Is(err, unix.EEXIST) {
		return false, err
	}
	if wasWhiteout, err = u.clear(parent, base, name); err != nil {
		return false, err
	}
	if parent, err = u.dirs.open(path.Dir(name)); err != nil {
		return false, pathError("open parent", name, err)
	}
	return wasWhiteout, create(parent)
}

func (u *unpacker) mkdir(parent int, name, base string, hdr *tar.Header) error {
	fresh := true
	wasWhiteout := false
	u.res.Inodes++
	u.res.Disk += block
	// Nobody else can reach the directory yet, so it may have its mode from the start.
	perm := mode(hdr) & 0o777
	err := unix.Mkdirat(parent, base, perm)
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if err = unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return pathError("stat", name, err)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			fresh = false
		} else {
			wasWhiteout, err = u.place(parent, base, name, func(p int) error { return unix.Mkdirat(p, base, perm) })
			if err == nil {
				parent, err = u.dirs.open(path.Dir(name))
			}
		}
	}
	if err != nil {
		return pathError("mkdir", name, err)
	}
	if _, ok := u.implied[name]; ok {
		u.implied[name] = true
	}
	fd, err := openat2(parent, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return pathError("open", name, err)
	}
	defer unix.Close(fd)
	if wasWhiteout && fresh {
		// The lower directory was removed and a new one made in the same layer.
		if err := setOpaque(fd); err != nil {
			return pathError("mark opaque", name, err)
		}
	}
	u.times = append(u.times, dirTime{name, times(hdr)})
	return applyAttributes(fd, hdr)
}

func (u *unpacker) file(parent int, base, name string, hdr *tar.Header, body io.Reader) error {
	if hdr.Size < 0 || hdr.Size > u.left {
		return fmt.Errorf("the layer unpacks to more than the %d bytes allowed (limits in [images] of the configuration): %w",
			u.opt.MaxBytes, errdefs.ErrResourceExhausted)
	}
	fd := -1
	_, err := u.place(parent, base, name, func(p int) (err error) {
		fd, err = unix.Openat(p, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode(hdr)&0o777)
		return err
	})
	if err != nil {
		return pathError("create", name, err)
	}
	defer unix.Close(fd)
	u.res.Disk += (uint64(hdr.Size) + block - 1) / block * block
	if err := u.fill(fd, body, hdr.Size); err != nil {
		return err
	}
	if err := applyAttributes(fd, hdr); err != nil {
		return err
	}
	return setTimesFd(fd, times(hdr))
}

// fill copies a file's content.
func (u *unpacker) fill(fd int, body io.Reader, size int64) error {
	for size > 0 {
		if u.ctx.Err() != nil {
			return context.Cause(u.ctx)
		}
		n, err := io.ReadFull(body, u.buf[:min(size, int64(len(u.buf)))])
		if err != nil {
			return fmt.Errorf("read content: %w", noEOF(err))
		}
		for b := u.buf[:n]; len(b) > 0; {
			w, err := unix.Write(fd, b)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return fmt.Errorf("write content: %w", err)
			}
			b = b[w:]
		}
		size -= int64(n)
		u.left -= int64(n)
		u.res.Bytes += int64(n)
		u.opt.Progress(int64(n))
	}
	return nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (u *unpacker) symlink(parent int, base, name string, hdr *tar.Header) error {
	if hdr.Linkname == "" || len(hdr.Linkname) >= unix.PathMax {
		return fmt.Errorf("symbolic link of %d bytes: %w", len(hdr.Linkname), errdefs.ErrInvalidArgument)
	}
	_, err := u.place(parent, base, name, func(p int) error { return unix.Symlinkat(hdr.Linkname, p, base) })
	if err != nil {
		return pathError("symlink", name, err)
	}
	return u.attributesAt(base, name, hdr)
}

func (u *unpacker) link(parent int, base, name string, hdr *tar.Header) error {
	target, err := clean(hdr.Linkname)
	if err != nil {
		return err
	}
	if target == name {
		return fmt.Errorf("hard link to itself: %w", errdefs.ErrInvalidArgument)
	}
	tdir, err := openat2(u.dirs.root, path.Dir(target), unix.O_RDONLY|unix.O_DIRECTORY, inRoot)
	if err == nil {
		defer unix.Close(tdir)
		err = inLayer(tdir, path.Base(target))
	}
	switch {
	case err == nil:
		_, err = u.place(parent, base, name, func(p int) error { return unix.Linkat(tdir, path.Base(target), p, base, 0) })
		if err != nil {
			return pathError("link", name, err)
		}
		return nil
	case !errors.Is(err, unix.ENOENT):
		return pathError("open link target", target, err)
	case len(u.res.Links) >= maxNeeds:
		return fmt.Errorf("more than %d hard links to lower layers: %w", maxNeeds, errdefs.ErrResourceExhausted)
	}
	u.res.Links = append(u.res.Links, Link{Name: name, Target: target})
	return nil
}

// inLayer tells whether a link target is a thing of this layer that can be linked.
func inLayer(dir int, base string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if isWhiteout(&st) {
		return fmt.Errorf("hard link to a removed file: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}

func (u *unpacker) node(parent int, base, name string, hdr *tar.Header) error {
	mode, dev := uint32(unix.S_IFIFO), 0
	if hdr.Typeflag != tar.TypeFifo {
		mode = unix.S_IFCHR
		if hdr.Typeflag == tar.TypeBlock {
			mode = unix.S_IFBLK
		}
		if hdr.Devmajor < 0 || hdr.Devminor < 0 || hdr.Devmajor >= 1<<12 || hdr.Devminor >= 1<<20 {
			return fmt.Errorf("device %d:%d: %w", hdr.Devmajor, hdr.Devminor, errdefs.ErrInvalidArgument)
		}
		dev = int(unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor)))
	}
	_, err := u.place(parent, base, name, func(p int) error { return unix.Mknodat(p, base, mode|0o600, dev) })
	if err != nil {
		return pathError("mknod", name, err)
	}
	return u.attributesAt(base, name, hdr)
}

// white turns an OCI whiteout into overlayfs's. It concerns lower layers only:
// what this layer itself has put there stays.
func (u *unpacker) white(parentName, base string) error {
	if whiteout+base == opaque {
		fd, err := u.parent(parentName)
		if err != nil {
			return err
		}
		u.res.Entries++
		return setOpaque(fd)
	}
	switch {
	case len(base) >= len(whiteout) && base[:len(whiteout)] == whiteout:
		return nil // other marks of aufs mean nothing here
	case base == "" || base == "." || base == "..":
		return fmt.Errorf("whiteout of no name: %w", errdefs.ErrInvalidArgument)
	}
	fd, err := u.parent(parentName)
	if err != nil {
		return err
	}
	u.res.Entries++
	err = unix.Mknodat(fd, base, unix.S_IFCHR, 0)
	if errors.Is(err, unix.EEXIST) {
		return u.whiteOwn(fd, path.Join(parentName, base), base)
	}
	if err != nil {
		return pathError("whiteout", path.Join(parentName, base), err)
	}
	return nil
}

// whiteOwn handles a whiteout that comes after the entry of the same name: a
// file hides the lower one by itself, a directory must not be merged with it.
func (u *unpacker) whiteOwn(parent int, name, base string) error {
	fd, err := openat2(parent, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	if err := setOpaque(fd); err != nil {
		return pathError("mark opaque", name, err)
	}
	return nil
}
