package logs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// mostFound bounds what is looked at of what an earlier process left.
const mostFound = 1 << 14

// find takes up what an earlier process left.
func (p *Buffers) find() error {
	d, err := os.Open(p.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	names, err := d.Readdirnames(mostFound)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	for _, name := range names {
		n, err := strconv.ParseUint(name, 16, 32)
		if err != nil || len(name) != 8 {
			continue
		}
		p.last = max(p.last, n)
		b, err := p.load(name)
		switch {
		case errors.Is(err, errForeign):
			p.log.Warn("a file among the output buffers is not crid's; it is let be", "path", filepath.Join(p.dir, name))
		case errors.Is(err, errUnborn):
			p.remove(name)
		case err != nil:
			p.log.Warn("output that was on its way to a log when crid ended is lost", "path", filepath.Join(p.dir, name), "err", err)
			p.remove(name)
		case b.state.Load() == 0:
			p.destroy(b)
		default:
			p.keepNewer(b)
		}
	}
	return nil
}

var (
	errForeign = errors.New("not this user's regular file")
	errUnborn  = errors.New("killed before it had memory")
)

// load maps a buffer that was found.
func (p *Buffers) load(name string) (*buffer, error) {
	fd, err := unix.Open(filepath.Join(p.dir, name), unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, errForeign // a link, or of a kind that cannot be opened so
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&(unix.S_IFMT|0o777) != unix.S_IFREG|0o600 || int(st.Uid) != os.Geteuid() || st.Nlink != 1 {
		return nil, errForeign
	}
	if st.Size == 0 {
		return nil, errUnborn
	}
	if st.Size < 4096 || st.Size > 1<<28 || st.Size%4096 != 0 {
		return nil, fmt.Errorf("it has %d bytes", st.Size)
	}
	// What a disk cannot read is an error here, and a signal through a mapping.
	if n, err := unix.Pread(fd, make([]byte, st.Size), 0); err != nil || int64(n) != st.Size {
		return nil, fmt.Errorf("read %d of %d bytes: %w", n, st.Size, err)
	}
	b, err := p.fromFile(fd, name, int(st.Size))
	if err != nil {
		return nil, err
	}
	p.total += st.Size
	b.class = p.sizes.of(len(b.mem))
	if b.state.Load() != 0 && !b.valid() {
		p.total -= st.Size
		_ = unix.Munmap(b.mem)
		return nil, errors.New("it is damaged, of another version, or of an earlier boot")
	}
	return b, nil
}

// of answers the class of buffers of a size, -1 for none.
func (s sizes) of(size int) int {
	for c := range s {
		if s[c] == size {
			return c
		}
	}
	return -1
}

// keepNewer keeps what was found. Two of one stream are one on the move.
func (p *Buffers) keepNewer(b *buffer) {
	of := p.left[b.ownedBy()]
	for i, o := range of {
		if o.stream != b.stream {
			continue
		}
		if o.age > b.age {
			o, b = b, o
		}
		of[i] = b
		p.destroy(o)
		return
	}
	p.left[b.ownedBy()] = append(of, b)
}
