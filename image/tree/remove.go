package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// batch is how many names of a directory are held at once.
const batch = 1024

// Remove deletes a tree without following links. Where something is mounted
// inside it stops with errdefs.ErrFailedPrecondition and leaves the mount and
// all above it; it may be called again. A tree that is not there is fine.
func Remove(ctx context.Context, path string) error {
	return RemovePaced(ctx, path, nil)
}

// RemovePaced is Remove that calls pace from time to time, which may rest.
func RemovePaced(ctx context.Context, path string, pace func(context.Context)) error {
	parent, err := Open(filepath.Dir(path))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove tree: %w", err)
	}
	defer parent.Close()
	r := remover{ctx: ctx, pace: pace}
	if err := r.entry(parent, filepath.Base(path), 0); err != nil {
		return fmt.Errorf("remove tree %s: %w", path, err)
	}
	return nil
}

// maxDepth bounds how many directories are open at once. A container can nest
// directories without end (mkdir, chdir, and so on).
const maxDepth = 256

// remover deletes one tree. top is the tree's root while it is being emptied:
// what lies too deep is moved up into it, and met again there.
type remover struct {
	ctx   context.Context
	top   *os.File
	moved int
	pace  func(context.Context)
	count int
}

// paceEvery is how many entries are removed between calls of pace.
const paceEvery = 32

func (r *remover) entry(parent *os.File, name string, depth int) error {
	err := unix.Unlinkat(int(parent.Fd()), name, 0)
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EBUSY):
		return mounted(name)
	case !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM):
		return &os.PathError{Op: "unlinkat", Path: name, Err: err}
	}
	err = unix.Unlinkat(int(parent.Fd()), name, unix.AT_REMOVEDIR)
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EBUSY):
		return mounted(name)
	case !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST):
		return &os.PathError{Op: "rmdir", Path: name, Err: err}
	}
	if depth >= maxDepth {
		r.moved++
		up := fmt.Sprintf(".deep-%d-%d", os.Getpid(), r.moved)
		if err := unix.Renameat2(int(parent.Fd()), name, int(r.top.Fd()), up, unix.RENAME_NOREPLACE); err != nil {
			return &os.PathError{Op: "rename", Path: name, Err: err}
		}
		return nil
	}
	dir, err := openDirAt(int(parent.Fd()), name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if errors.Is(err, unix.EXDEV) {
		return mounted(name)
	}
	if err != nil {
		// overlay's work directory has mode 0; without CAP_DAC_OVERRIDE it must be opened up first.
		if !errors.Is(err, os.ErrPermission) || unix.Fchmodat(int(parent.Fd()), name, 0o700, unix.AT_SYMLINK_NOFOLLOW) != nil {
			return err
		}
		if dir, err = openDirAt(int(parent.Fd()), name); err != nil {
			return err
		}
	}
	defer dir.Close()
	if r.top == nil {
		r.top = dir
	}
	if err := r.empty(dir, depth); err != nil {
		return err
	}
	if err := unix.Unlinkat(int(parent.Fd()), name, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		if errors.Is(err, unix.EBUSY) {
			return mounted(name)
		}
		return &os.PathError{Op: "rmdir", Path: name, Err: err}
	}
	return nil
}

// empty removes what a directory holds, a batch of names at a time, from
// the front again after each so that none is missed.
func (r *remover) empty(dir *os.File, depth int) error {
	for {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		if _, err := dir.Seek(0, io.SeekStart); err != nil {
			return err
		}
		names, err := dir.Readdirnames(batch)
		for _, n := range names {
			if err := r.entry(dir, n, depth+1); err != nil {
				return err
			}
			if r.count++; r.pace != nil && r.count%paceEvery == 0 {
				r.pace(r.ctx)
			}
		}
		if len(names) == 0 {
			if err == io.EOF || err == nil {
				return nil
			}
			return err
		}
	}
}

func mounted(name string) error {
	return fmt.Errorf("something is mounted at %s; unmount it first: %w", name, errdefs.ErrFailedPrecondition)
}

// RemoveAt is Remove for a name in an open directory.
func RemoveAt(ctx context.Context, parent int, name string) error {
	fd, err := unix.FcntlInt(uintptr(parent), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("remove tree %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), ".")
	defer f.Close()
	r := remover{ctx: ctx}
	if err := r.entry(f, name, 0); err != nil {
		return fmt.Errorf("remove tree %s: %w", name, err)
	}
	return nil
}
