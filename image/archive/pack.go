package archive

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/image/tree"
)

// Pack writes an unpacked layer (overlayfs's form) as an OCI layer tar, in
// sorted order, so that the same directory gives the same bytes. root tells
// whether the layer's own root directory is written.
func Pack(ctx context.Context, dir string, root bool, w io.Writer) error {
	d, err := tree.Open(dir)
	if err != nil {
		return fmt.Errorf("pack layer: %w", err)
	}
	defer d.Close()
	bw := bufio.NewWriterSize(w, copySize)
	p := &packer{ctx: ctx, tw: tar.NewWriter(bw), links: map[uint64]string{}}
	if root {
		err = p.header(d, ".", "./", "")
	}
	if err == nil {
		err = p.dir(d, "", 0)
	}
	if err == nil {
		err = p.tw.Close()
	}
	if err == nil {
		err = bw.Flush()
	}
	if err != nil {
		return fmt.Errorf("pack layer: %w", err)
	}
	return nil
}

type packer struct {
	ctx   context.Context
	tw    *tar.Writer
	links map[uint64]string
}

const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
	// maxDepth bounds recursion.
	maxDepth = 1024
)

func (p *packer) dir(d *os.File, at string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("directory %s is nested more than %d deep", at, maxDepth)
	}
	var b [1]byte
	if n, err := unix.Fgetxattr(int(d.Fd()), "trusted.overlay.opaque", b[:]); err == nil && n == 1 && b[0] == 'y' {
		if err := p.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: at + opaque, Mode: 0o600}); err != nil {
			return err
		}
	}
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, n := range names {
		if p.ctx.Err() != nil {
			return context.Cause(p.ctx)
		}
		if err := p.entry(d, n, at+n, depth); err != nil {
			return err
		}
	}
	return nil
}

func (p *packer) entry(d *os.File, name, at string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "stat", Path: at, Err: err}
	}
	switch kind := st.Mode & unix.S_IFMT; {
	case kind == unix.S_IFCHR && st.Rdev == 0:
		dirName, base := path.Split(at)
		return p.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: dirName + whiteout + base, Mode: 0o600})
	case kind == unix.S_IFDIR:
		fd, err := unix.Openat(int(d.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: at, Err: err}
		}
		sub := os.NewFile(uintptr(fd), name)
		defer sub.Close()
		if err := p.header(sub, ".", at+"/", ""); err != nil {
			return err
		}
		return p.dir(sub, at+"/", depth+1)
	case kind == unix.S_IFSOCK:
		return nil // tar has no word for it
	default:
		link := ""
		if kind == unix.S_IFLNK {
			buf := make([]byte, unix.PathMax)
			n, err := unix.Readlinkat(int(d.Fd()), name, buf)
			if err != nil {
				return &os.PathError{Op: "readlink", Path: at, Err: err}
			}
			link = string(buf[:n])
		}
		return p.header(d, name, at, link)
	}
}

// header writes one entry, with its content if it is a file.
func (p *packer) header(d *os.File, name, at, link string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "stat", Path: at, Err: err}
	}
	h := &tar.Header{Name: at, Linkname: link, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Sec, st.Mtim.Nsec), Format: tar.FormatPAX}
	kind := st.Mode & unix.S_IFMT
	switch kind {
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if kind == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	default:
		h.Typeflag = tar.TypeReg
		h.Size = st.Size
	}
	if st.Nlink > 1 && kind != unix.S_IFDIR {
		if first, ok := p.links[st.Ino]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return p.tw.WriteHeader(h)
		}
		p.links[st.Ino] = at
	}
	if kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return p.tw.WriteHeader(h)
	}
	fd, err := unix.Openat(int(d.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: at, Err: err}
	}
	f := os.NewFile(uintptr(fd), at)
	defer f.Close()
	if err := xattrs(fd, h); err != nil {
		return err
	}
	if err := p.tw.WriteHeader(h); err != nil {
		return err
	}
	if kind == unix.S_IFDIR {
		return nil
	}
	for left := h.Size; left > 0; {
		if p.ctx.Err() != nil {
			return context.Cause(p.ctx)
		}
		n, err := io.CopyN(p.tw, f, min(left, 32<<20))
		left -= n
		if err != nil {
			return fmt.Errorf("pack %s: %w", at, err)
		}
	}
	return nil
}

// xattrs notes the attributes that an image may have.
func xattrs(fd int, h *tar.Header) error {
	names := make([]byte, 64<<10)
	n, err := unix.Flistxattr(fd, names)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list attributes of %s: %w", h.Name, err)
	}
	val := make([]byte, 64<<10)
	for _, name := range strings.Split(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if name != "security.capability" && !strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "system.posix_acl_") {
			continue
		}
		v, err := unix.Fgetxattr(fd, name, val)
		if err != nil {
			continue
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+name] = string(val[:v])
	}
	return nil
}
