package logs

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"
	"unsafe"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const (
	// limit is how much memory buffers take at most, in bytes. Beyond it streams
	// get ordinary memory.
	limit = 16 << 20
	// spare is left of the file system's room to others.
	spare = 4 << 20
	// restFor is after how long buffers are given up that nobody used.
	restFor = 10 * time.Second
	// retry is how long nothing is made after it failed.
	retry = time.Second
)

// Buffers are a folder of files that are mapped into memory: what a
// stream has said goes from its fifo into one of them, so that a process that is
// killed loses nothing of it. The next one opens the folder, and each [Log] of
// an owner then has in its file what was on its way there.
//
// Streams share them. An idle one has none, unless it is within a line (then one
// of a page, for a line of ordinary length), and when all are idle there is no
// file left. Their pages are there before they are used: a file system that is
// full is an error when a buffer is made, and no signal when it is written to.
//
// All methods can be called at once, and on nil, which has no buffers.
type Buffers struct {
	dir   string
	sizes sizes
	log   *slog.Logger

	mu     sync.Mutex
	free   [len(sizes{})][]*buffer
	left   map[string][]*buffer // by owner: found, and not claimed
	total  int64
	last   uint64 // number of the newest file
	failed time.Time
	told   bool // that making one failed
	tidies bool // a timer runs
	timer  *time.Timer
	closed bool
}

// OpenBuffers opens the folder dir, which is made if it is missing, for logs with
// lines of maxLine bytes ([Options.MaxLine]). One process at a time may. A folder
// that is neither on a tmpfs nor on ext4 or xfs is [errdefs.ErrFailedPrecondition]:
// elsewhere what was reserved is not kept for us, so that a mapping can fail at any
// moment, and with it the process. What in the folder does not look like this
// package's own is let be.
func OpenBuffers(dir string, maxLine int, log *slog.Logger) (*Buffers, error) {
	if maxLine <= 0 {
		maxLine = DefaultMaxLine
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder for output buffers: %w", err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return nil, fmt.Errorf("look at folder for output buffers: %w", err)
	}
	switch fs.Type {
	case unix.TMPFS_MAGIC, unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC:
	default:
		_ = os.Remove(dir) // unless there is something in it
		return nil, fmt.Errorf("%s is on neither tmpfs, ext4 nor xfs: %w", dir, errdefs.ErrFailedPrecondition)
	}
	p := &Buffers{dir: dir, sizes: sizesFor(maxLine), log: log, left: map[string][]*buffer{}}
	if err := p.find(); err != nil {
		return nil, fmt.Errorf("look for output that is in no log yet: %w", err)
	}
	return p, nil
}

// fromFile reserves and maps a file's memory.
func (p *Buffers) fromFile(fd int, name string, size int) (*buffer, error) {
	err := unix.Fallocate(fd, 0, 0, int64(size))
	for errors.Is(err, unix.EINTR) {
		err = unix.Fallocate(fd, 0, 0, int64(size))
	}
	if err != nil {
		return nil, os.NewSyscallError("fallocate", err)
	}
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	// A read into it must not wait for a page: it could be cut short there. Both
	// are hints; without them that is only less probable.
	_ = unix.Madvise(mem, unix.MADV_POPULATE_WRITE)
	_ = unix.Mlock(mem)
	return &buffer{head: (*head)(unsafe.Pointer(&mem[0])), data: mem[headSize:], home: p, mem: mem, name: name}, nil
}

// take answers an empty buffer of a class, nil if there is none to be had.
func (p *Buffers) take(class int, s sizes) *buffer {
	if p == nil || s != p.sizes {
		return nil
	}
	p.mu.Lock()
	if of := p.free[class]; len(of) > 0 {
		b := of[len(of)-1]
		p.free[class] = of[:len(of)-1]
		b.used = true
		p.mu.Unlock()
		return b
	}
	size := int64(s[class])
	if p.closed || p.total+size > limit || !p.failed.IsZero() && time.Since(p.failed) < retry {
		p.mu.Unlock()
		return nil
	}
	p.total += size
	p.last++
	name := fmt.Sprintf("%08x", p.last)
	p.mu.Unlock()
	b, err := p.make(name, int(size))
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.total -= size
		p.failed = time.Now()
		if !p.told {
			p.told = true
			p.log.Warn("no memory for output that outlives crid; what is on its way to a log is lost if crid is killed", "err", err)
		}
		return nil
	}
	p.failed, p.told = time.Time{}, false
	b.class, b.used = class, true
	return b
}

// make makes a file and maps it.
func (p *Buffers) make(name string, size int) (*buffer, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(p.dir, &fs); err != nil {
		return nil, os.NewSyscallError("statfs", err)
	}
	// Without a bound on its size a tmpfs shows no blocks.
	if fs.Blocks > 0 && int64(fs.Bavail)*fs.Bsize < int64(size)+spare {
		return nil, fmt.Errorf("%s is nearly full: %w", p.dir, unix.ENOSPC)
	}
	path := filepath.Join(p.dir, name)
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	b, err := p.fromFile(fd, name, size)
	if err != nil {
		p.remove(name)
		return nil, err
	}
	b.draw()
	return b, nil
}

// put takes an empty buffer back.
func (p *Buffers) put(b *buffer) {
	p.mu.Lock()
	if p.closed || b.class < 0 {
		p.mu.Unlock()
		p.destroy(b)
		return
	}
	p.free[b.class] = append(p.free[b.class], b)
	if !p.tidies {
		p.tidies = true
		p.timer = time.AfterFunc(restFor, p.tidy)
	}
	p.mu.Unlock()
}

// tidy gives up what was not used since the last time.
func (p *Buffers) tidy() {
	var old []*buffer
	p.mu.Lock()
	p.tidies = false
	if !p.closed {
		for c, of := range p.free {
			keep := of[:0]
			for _, b := range of {
				if b.used {
					b.used = false
					keep = append(keep, b)
				} else {
					old = append(old, b)
				}
			}
			clear(of[len(keep):])
			p.free[c] = keep
			p.tidies = p.tidies || len(keep) > 0
		}
		if p.tidies {
			p.timer = time.AfterFunc(restFor, p.tidy)
		}
	}
	p.mu.Unlock()
	for _, b := range old {
		p.destroy(b)
	}
}

// destroy removes a buffer that nobody has.
func (p *Buffers) destroy(b *buffer) {
	p.remove(b.name)
	size := int64(len(b.mem))
	b.head, b.data = nil, nil // a use from here on is a fault that shows
	_ = unix.Munmap(b.mem)
	p.mu.Lock()
	p.total -= size
	p.mu.Unlock()
}

func (p *Buffers) remove(name string) { _ = unix.Unlink(filepath.Join(p.dir, name)) }

// claim answers what an earlier process left of an owner.
func (p *Buffers) claim(owner string) []*buffer {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	of := p.left[owner]
	delete(p.left, owner)
	return of
}

// giveBack undoes a claim.
func (p *Buffers) giveBack(b *buffer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left[b.ownedBy()] = append(p.left[b.ownedBy()], b)
}

// Drop forgets what an earlier process left of an owner and no log has taken
// up. Idempotent.
func (p *Buffers) Drop(owner string) {
	for _, b := range p.claim(owner) {
		p.destroy(b)
	}
}

// Keep forgets what an earlier process left of all owners but those that are
// wanted.
func (p *Buffers) Keep(wanted func(owner string) bool) {
	if p == nil {
		return
	}
	var gone []string
	p.mu.Lock()
	for owner := range p.left {
		if !wanted(owner) {
			gone = append(gone, owner)
		}
	}
	p.mu.Unlock()
	for _, owner := range gone {
		p.Drop(owner)
	}
}

// Close gives up what is not in use. What is still in no log stays for the next
// process. Logs are closed before. Idempotent.
func (p *Buffers) Close() {
	if p == nil {
		return
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.closed = true
	if p.timer != nil {
		p.timer.Stop()
	}
	free, left := p.free, p.left
	p.free, p.left = [len(sizes{})][]*buffer{}, map[string][]*buffer{}
	p.mu.Unlock()
	for _, of := range free {
		for _, b := range of {
			p.destroy(b)
		}
	}
	for _, of := range left {
		for _, b := range of {
			_ = unix.Munmap(b.mem)
		}
	}
}
