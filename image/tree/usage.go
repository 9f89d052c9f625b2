package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Usage is what a tree takes on disk.
type Usage struct {
	// Bytes are allocated bytes (blocks), a hard-linked file counted once.
	Bytes uint64
	// Inodes counts files, directories, links and nodes, the root included.
	Inodes uint64
}

// Measure adds up a tree. Files that vanish meanwhile are no error. It neither
// follows links nor crosses mounts, and ends with ctx.
func Measure(ctx context.Context, path string) (Usage, error) {
	root, err := Open(path)
	if err != nil {
		return Usage{}, fmt.Errorf("measure tree: %w", err)
	}
	defer root.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(root.Fd()), &st); err != nil {
		return Usage{}, fmt.Errorf("measure tree %s: %w", path, err)
	}
	m := measure{ctx: ctx, dev: st.Dev, links: map[uint64]struct{}{}}
	m.add(&st)
	if err := m.dir(root, 0); err != nil {
		return Usage{}, fmt.Errorf("measure tree %s: %w", path, err)
	}
	return m.sum, nil
}

type measure struct {
	ctx   context.Context
	dev   uint64
	links map[uint64]struct{}
	sum   Usage
}

func (m *measure) add(st *unix.Stat_t) {
	if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if _, seen := m.links[st.Ino]; seen {
			return
		}
		m.links[st.Ino] = struct{}{}
	}
	m.sum.Bytes += uint64(st.Blocks) * 512
	m.sum.Inodes++
}

func (m *measure) dir(d *os.File, depth int) error {
	if depth > maxDepth {
		return nil // deeper than any honest tree; the figure is a lower bound then
	}
	for {
		if err := m.ctx.Err(); err != nil {
			return err
		}
		names, err := d.Readdirnames(batch)
		for _, n := range names {
			if err := m.entry(d, n, depth); err != nil {
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

func (m *measure) entry(d *os.File, name string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return &os.PathError{Op: "fstatat", Path: name, Err: err}
	}
	if st.Dev != m.dev {
		return nil
	}
	m.add(&st)
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	sub, err := openDirAt(int(d.Fd()), name)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.EXDEV) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return err
	}
	defer sub.Close()
	return m.dir(sub, depth+1)
}
