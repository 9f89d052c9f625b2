package untar

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Options bound an unpacking. Zero values mean the defaults.
type Options struct {
	// MaxBytes bounds the content of all files together, in bytes, counting
	// holes of sparse files. Default 128 GiB.
	MaxBytes int64
	// MaxEntries bounds the entries of the tar. Default 4 million.
	MaxEntries int
	// Progress is told of the bytes written since the last call.
	Progress func(n int64)
}

// Result is what an unpacking found.
type Result struct {
	// Bytes is the content written, Entries the number of tar entries that
	// left something in the directory.
	Bytes   int64
	Entries int
	// Disk is what the files take in whole blocks, Inodes how many were made.
	Disk, Inodes uint64
	// Links are hard links whose target is not in this layer.
	Links []Link
	// Implied are directories that entries lie in but that the layer does not
	// describe; their attributes are those of the layer below, if it has them.
	Implied []string
	// Root tells that the layer describes its own root directory.
	Root bool
}

// SelfContained tells whether the directory is the same whatever lies below.
func (r *Result) SelfContained() bool { return len(r.Links) == 0 && len(r.Implied) == 0 }

// Link is a hard link to be made once the layers below are known.
type Link struct{ Name, Target string }

const (
	defaultMaxBytes   = 128 << 30
	defaultMaxEntries = 4 << 20
	// maxNeeds bounds what is remembered for Complete.
	maxNeeds = 100_000
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
	copySize = 256 << 10
)

// unpacker is the state of one unpacking.
type unpacker struct {
	ctx  context.Context
	opt  Options
	dirs *dirs
	// implied maps directories made on the way to false, and to true once an entry described them.
	implied map[string]bool
	// times are directories' times, set last because filling a directory changes them.
	times []dirTime
	buf   []byte
	res   Result
	left  int64
}

type dirTime struct {
	name string
	ts   [2]unix.Timespec
}

// Unpack reads a tar stream into the directory dir, which exists, is empty and
// is nobody else's. On error the directory holds anything; the caller removes
// it. It returns after ctx is done within one read of r.
func Unpack(ctx context.Context, r io.Reader, dir string, opt Options) (*Result, error) {
	if opt.MaxBytes <= 0 {
		opt.MaxBytes = defaultMaxBytes
	}
	if opt.MaxEntries <= 0 {
		opt.MaxEntries = defaultMaxEntries
	}
	if opt.Progress == nil {
		opt.Progress = func(int64) {}
	}
	ds, err := openDirs(dir)
	if err != nil {
		return nil, fmt.Errorf("unpack layer: %w", err)
	}
	defer ds.close()
	u := &unpacker{ctx: ctx, opt: opt, dirs: ds, implied: map[string]bool{}, buf: make([]byte, copySize), left: opt.MaxBytes}
	if err := u.run(tar.NewReader(r)); err != nil {
		return nil, fmt.Errorf("unpack layer: %w", err)
	}
	return &u.res, nil
}

func (u *unpacker) run(tr *tar.Reader) error {
	for n := 0; ; n++ {
		if err := u.ctx.Err(); err != nil {
			return context.Cause(u.ctx)
		}
		hdr, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		if n >= u.opt.MaxEntries {
			return fmt.Errorf("more than %d entries in one layer: %w", u.opt.MaxEntries, errdefs.ErrResourceExhausted)
		}
		if err := u.entry(hdr, tr); err != nil {
			return fmt.Errorf("entry %.200q: %w", hdr.Name, err)
		}
		u.opt.Progress(1)
	}
	return u.finish()
}

// clean makes a tar name relative to the layer's root: "..", absolute names and
// empty components end inside it. The root itself is ".".
func clean(name string) (string, error) {
	if strings.IndexByte(name, 0) >= 0 {
		return "", fmt.Errorf("a NUL in the name: %w", errdefs.ErrInvalidArgument)
	}
	if len(name) >= unix.PathMax {
		return "", fmt.Errorf("name of %d bytes: %w", len(name), errdefs.ErrInvalidArgument)
	}
	p := strings.TrimPrefix(path.Clean("/"+name), "/")
	if p == "" {
		return ".", nil
	}
	return p, nil
}

func (u *unpacker) entry(hdr *tar.Header, body io.Reader) error {
	name, err := clean(hdr.Name)
	if err != nil {
		return err
	}
	if name == "." {
		return u.root(hdr)
	}
	parentName, base := path.Split(name)
	parentName = path.Clean(parentName)
	if base, ok := strings.CutPrefix(base, whiteout); ok {
		return u.white(parentName, base)
	}
	parent, err := u.parent(parentName)
	if err != nil {
		return err
	}
	u.res.Entries++
	switch hdr.Typeflag {
	case tar.TypeDir:
		return u.mkdir(parent, name, base, hdr)
	case tar.TypeReg, '\x00', tar.TypeGNUSparse: // '\x00' is what old tars write for a regular file
		return u.file(parent, base, name, hdr, body)
	case tar.TypeSymlink:
		return u.symlink(parent, base, name, hdr)
	case tar.TypeLink:
		return u.link(parent, base, name, hdr)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return u.node(parent, base, name, hdr)
	case tar.TypeXGlobalHeader:
		u.res.Entries--
		return nil
	}
	return fmt.Errorf("unknown type %q: %w", hdr.Typeflag, errdefs.ErrInvalidArgument)
}

// root takes the attributes that the tar gives to the layer's own root.
func (u *unpacker) root(hdr *tar.Header) error {
	if hdr.Typeflag != tar.TypeDir {
		if hdr.Typeflag == tar.TypeXGlobalHeader {
			return nil
		}
		return fmt.Errorf("the layer's root is not a directory: %w", errdefs.ErrInvalidArgument)
	}
	u.res.Root = true
	u.res.Entries++
	u.times = append(u.times, dirTime{".", times(hdr)})
	return applyAttributes(u.dirs.rootFd(), hdr)
}

// finish sets the times of directories, the last entry of each winning, and
// lists what Complete must look at.
func (u *unpacker) finish() error {
	for i, t := range u.times {
		if i%1024 == 0 && u.ctx.Err() != nil {
			return context.Cause(u.ctx)
		}
		fd, err := u.dirs.openNoFollow(t.name)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue // replaced later in the same layer
		}
		if err != nil {
			return fmt.Errorf("set times of %s: %w", t.name, err)
		}
		err = setTimesFd(fd, t.ts)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("set times of %s: %w", t.name, err)
		}
	}
	for name, described := range u.implied {
		if !described {
			if len(u.res.Implied) >= maxNeeds {
				return fmt.Errorf("more than %d directories are used but not described: %w", maxNeeds, errdefs.ErrResourceExhausted)
			}
			u.res.Implied = append(u.res.Implied, name)
		}
	}
	return nil
}

// times are access and modification time of an entry, sub-second parts kept.
func times(hdr *tar.Header) [2]unix.Timespec {
	m := timespec(hdr.ModTime)
	a := m
	if !hdr.AccessTime.IsZero() {
		a = timespec(hdr.AccessTime)
	}
	return [2]unix.Timespec{a, m}
}

// timespec clamps to what file systems keep: a time before 1970 or beyond 2^33
// seconds is an attempt, not a date.
func timespec(t time.Time) unix.Timespec {
	sec := t.Unix()
	if t.IsZero() || sec < 0 {
		return unix.Timespec{}
	}
	if sec > 1<<33 {
		sec = 1 << 33
	}
	return unix.Timespec{Sec: sec, Nsec: int64(t.Nanosecond())}
}

// pathError names a failed system call.
func pathError(op, name string, err error) error {
	return &os.PathError{Op: op, Path: name, Err: err}
}
