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
	"strings"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/image/inflate"
)

// ErrNoFile is answered for a file that the archive does not have.
var ErrNoFile = fmt.Errorf("the archive has no such file: %w", errdefs.ErrNotFound)

const (
	// maxFiles bounds the files of an archive.
	maxFiles = 100_000
	copySize = 1 << 20
)

// Archive is a tar with random access.
type Archive struct {
	f     *os.File
	owned bool
	files map[string]span
	links map[string]string
}

type span struct{ at, size int64 }

// Open reads a tar stream, plain or compressed by gzip or zstd. A regular
// uncompressed file is read in place; anything else goes through a scratch
// file in dir, which vanishes with the process.
func Open(ctx context.Context, r io.Reader, dir string, progress func(int64)) (*Archive, error) {
	a := &Archive{files: map[string]span{}, links: map[string]string{}}
	if f, ok := r.(*os.File); ok && plainFile(f) {
		a.f = f
	} else if err := a.spool(ctx, r, dir, progress); err != nil {
		return nil, err
	}
	if err := a.index(ctx); err != nil {
		a.Close()
		return nil, err
	}
	return a, nil
}

// plainFile tells whether a file can be read in place.
func plainFile(f *os.File) bool {
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return false
	}
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil || at != 0 {
		return false
	}
	var magic [262]byte
	n, _ := f.ReadAt(magic[:], 0)
	return n == len(magic) && string(magic[257:262]) == "ustar"
}

func (a *Archive) spool(ctx context.Context, r io.Reader, dir string, progress func(int64)) error {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("make scratch file in %s: %w", dir, err)
	}
	a.f, a.owned = os.NewFile(uintptr(fd), "scratch"), true
	br := bufio.NewReaderSize(r, copySize)
	var in io.Reader = br
	magic, _ := br.Peek(4)
	switch {
	case len(magic) >= 2 && magic[0] == 0x1f && magic[1] == 0x8b:
		z, err := inflate.NewReader(br)
		if err != nil {
			return errors.Join(err, a.Close())
		}
		defer z.Close()
		in = z
	case len(magic) == 4 && string(magic) == "\x28\xb5\x2f\xfd":
		z, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return errors.Join(err, a.Close())
		}
		defer z.Close()
		in = z
	}
	buf := make([]byte, copySize)
	for {
		if ctx.Err() != nil {
			return errors.Join(context.Cause(ctx), a.Close())
		}
		n, err := in.Read(buf)
		if _, werr := a.f.Write(buf[:n]); werr != nil {
			return errors.Join(fmt.Errorf("write scratch file: %w", werr), a.Close())
		}
		progress(int64(n))
		if errors.Is(err, io.EOF) {
			_, err = a.f.Seek(0, io.SeekStart)
			return err
		}
		if err != nil {
			return errors.Join(fmt.Errorf("read archive: %w: %w", err, errdefs.ErrInvalidArgument), a.Close())
		}
	}
}

// index notes where each file is. tar reads no further than the headers, so
// the file's position after a header is where the content begins.
func (a *Archive) index(ctx context.Context) error {
	tr := tar.NewReader(a.f)
	for n := 0; ; n++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read archive: %w: %w", err, errdefs.ErrInvalidArgument)
		}
		if n > maxFiles {
			return fmt.Errorf("read archive: more than %d files: %w", maxFiles, errdefs.ErrResourceExhausted)
		}
		name := clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			at, err := a.f.Seek(0, io.SeekCurrent)
			if err != nil {
				return fmt.Errorf("read archive: %w", err)
			}
			a.files[name] = span{at, h.Size}
		case tar.TypeSymlink:
			a.links[name] = clean(path.Join(path.Dir(name), h.Linkname)) // old docker archives link equal layers
		case tar.TypeLink:
			a.links[name] = clean(h.Linkname)
		}
	}
}

func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

func (a *Archive) section(name string) (*io.SectionReader, error) {
	name = clean(name)
	for range 8 {
		if s, ok := a.files[name]; ok {
			return io.NewSectionReader(a.f, s.at, s.size), nil
		}
		to, ok := a.links[name]
		if !ok {
			break
		}
		name = to
	}
	return nil, fmt.Errorf("file %.200q: %w", name, ErrNoFile)
}

// ReadFile answers a file of at most limit bytes.
func (a *Archive) ReadFile(name string, limit int64) ([]byte, error) {
	s, err := a.section(name)
	if err != nil {
		return nil, err
	}
	if s.Size() > limit {
		return nil, fmt.Errorf("file %.200q of the archive has %d bytes, more than %d: %w", name, s.Size(), limit, errdefs.ErrInvalidArgument)
	}
	b := make([]byte, s.Size())
	if _, err := io.ReadFull(s, b); err != nil {
		return nil, fmt.Errorf("read %.200q of the archive: %w", name, err)
	}
	return b, nil
}

// Stream opens a file; that it is missing is the first Read's error.
func (a *Archive) Stream(ctx context.Context, name string) io.ReadCloser {
	s, err := a.section(name)
	return &stream{ctx: ctx, s: s, err: err}
}

type stream struct {
	ctx context.Context
	s   *io.SectionReader
	err error
}

func (s *stream) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if s.ctx.Err() != nil {
		return 0, context.Cause(s.ctx)
	}
	return s.s.Read(p)
}

func (s *stream) Close() error { return nil }

// Close gives the scratch file back; a caller's own file stays open.
func (a *Archive) Close() error {
	if a.owned {
		return a.f.Close()
	}
	return nil
}
