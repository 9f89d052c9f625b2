package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// overlayOpaque is overlayfs's mark of a directory that hides all below it.
const overlayOpaque = "trusted.overlay.opaque"

// CopyEntry copies one file, link, device or fifo (not a directory) with its
// attributes from one open directory to another, where the name is free.
func CopyEntry(ctx context.Context, from int, name string, to int, as string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "stat", Path: name, Err: err}
	}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return copyFile(ctx, from, name, to, as, &st)
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		var n int
		if n, err = unix.Readlinkat(from, name, buf); err == nil {
			err = unix.Symlinkat(string(buf[:n]), to, as)
		}
	case unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO, unix.S_IFSOCK:
		if err = unix.Mknodat(to, as, st.Mode, int(st.Rdev)); err == nil {
			err = unix.Fchmodat(to, as, st.Mode&0o7777, 0)
		}
	default:
		return fmt.Errorf("copy %s: cannot copy a thing of mode %o: %w", name, st.Mode, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return &os.PathError{Op: "copy", Path: name, Err: err}
	}
	if err := unix.Fchownat(to, as, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "chown", Path: as, Err: err}
	}
	return unix.UtimesNanoAt(to, as, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

func copyFile(ctx context.Context, from int, name string, to int, as string, st *unix.Stat_t) error {
	src, err := unix.Openat(from, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	in := os.NewFile(uintptr(src), name)
	defer in.Close()
	dst, err := unix.Openat(to, as, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &os.PathError{Op: "create", Path: as, Err: err}
	}
	out := os.NewFile(uintptr(dst), as)
	defer out.Close()
	// Copying in pieces keeps cancelling possible; the kernel shares extents where it can.
	for left := st.Size; left > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.Copy(out, io.LimitReader(in, min(left, 64<<20)))
		if err != nil {
			return fmt.Errorf("copy %s: %w", name, err)
		}
		if n == 0 {
			break
		}
		left -= n
	}
	return CopyAttributes(src, dst)
}

// CopyAttributes gives one open file or directory the owner, mode, extended
// attributes (but overlayfs's own) and times of another.
func CopyAttributes(from, to int) error {
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return fmt.Errorf("copy attributes: %w", err)
	}
	if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return fmt.Errorf("copy owner: %w", err)
	}
	if err := unix.Fchmod(to, st.Mode&0o7777); err != nil {
		return fmt.Errorf("copy mode: %w", err)
	}
	if err := copyXattrs(from, to); err != nil {
		return err
	}
	if err := unix.UtimesNanoAt(to, "", []unix.Timespec{st.Atim, st.Mtim}, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("copy times: %w", err)
	}
	return nil
}

func copyXattrs(from, to int) error {
	names := make([]byte, 64<<10)
	n, err := unix.Flistxattr(from, names)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list extended attributes: %w", err)
	}
	val := make([]byte, 64<<10)
	for _, name := range strings.Split(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if name == "" || strings.HasPrefix(name, "trusted.overlay.") || name == "security.selinux" {
			continue
		}
		v, err := unix.Fgetxattr(from, name, val)
		if err != nil {
			continue
		}
		if err := unix.Fsetxattr(to, name, val[:v], 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("copy extended attribute %s: %w", name, err)
		}
	}
	return nil
}
