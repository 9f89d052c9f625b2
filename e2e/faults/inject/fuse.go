package inject

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Hung is a file system that answers only for its root folder and for the file "f" in it. Whoever reads f hangs in the kernel, and cannot even be
// killed (state D); whoever looks for any other name hangs as well. Release lets all of them go, with errors.
type Hung struct {
	Dir  string
	File *os.File

	mu      sync.Mutex
	pending int // requests that will never be answered
	once    sync.Once
}

// Hang mounts one. The test is skipped where the kernel has no FUSE.
func Hang(t testing.TB) *Hung {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("needs FUSE, for a file system that hangs: %v", err)
	}
	dir := t.TempDir()
	err = unix.Mount("hung", dir, "fuse.hung", unix.MS_NODEV|unix.MS_NOSUID, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd))
	if err != nil {
		_ = unix.Close(fd)
		t.Skipf("needs FUSE, for a file system that hangs: %v", err)
	}
	// Only now, because before the mount it cannot be waited for.
	h := &Hung{Dir: dir, File: os.NewFile(uintptr(fd), "/dev/fuse")}
	t.Cleanup(func() {
		h.Release() // or the unmount would ask for the root folder
		if err := unix.Unmount(h.Dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	go h.serve()
	return h
}

// Release ends the file system's server: all who hang get an error. Idempotent.
func (h *Hung) Release() { h.once.Do(func() { h.File.Close() }) }

// Waiting tells how many requests hang.
func (h *Hung) Waiting() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pending
}

// What the kernel asks for, by the numbers of its FUSE protocol.
const (
	opLookup  = 1
	opGetattr = 3
	opOpen    = 14
	opRead    = 15
	opStatfs  = 17
	opRelease = 18
	opFlush   = 25
	opInit    = 26
	opOpendir = 27
	opReaddir = 28
	opForget  = 2
	opBatch   = 42
	opIntr    = 36
)

func (h *Hung) serve() {
	buf := make([]byte, 1<<20)
	for {
		n, err := h.File.Read(buf)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil || n < 40 {
			return
		}
		h.answer(buf[:n])
	}
}

func (h *Hung) answer(request []byte) {
	le := binary.LittleEndian
	unique, node := le.Uint64(request[8:]), le.Uint64(request[16:])
	switch le.Uint32(request[4:]) {
	case opInit:
		b := make([]byte, 64)
		le.PutUint32(b[0:], 7)
		le.PutUint32(b[4:], 31)
		le.PutUint32(b[8:], 4096)
		le.PutUint16(b[16:], 12)
		le.PutUint16(b[18:], 10)
		le.PutUint32(b[20:], 4096)
		h.reply(unique, 0, b)
	case opGetattr:
		mode := uint32(unix.S_IFREG | 0o644)
		if node == 1 {
			mode = unix.S_IFDIR | 0o755
		}
		h.reply(unique, 0, append(make([]byte, 16), attr(node, mode)...))
	case opLookup:
		if string(request[40:]) != "f\x00" {
			h.wait()
			return
		}
		b := make([]byte, 40)
		le.PutUint64(b, 2)
		h.reply(unique, 0, append(b, attr(2, unix.S_IFREG|0o644)...))
	case opOpen, opOpendir:
		b := make([]byte, 16)
		le.PutUint32(b[8:], 1) // nothing is kept in the page cache
		h.reply(unique, 0, b)
	case opRead:
		h.wait()
	case opReaddir, opRelease, opFlush:
		h.reply(unique, 0, nil)
	case opStatfs:
		h.reply(unique, 0, make([]byte, 80))
	case opForget, opBatch, opIntr: // want no answer
	default:
		h.reply(unique, int32(unix.ENOSYS), nil)
	}
}

func (h *Hung) wait() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pending++
}

func (h *Hung) reply(unique uint64, errno int32, body []byte) {
	le := binary.LittleEndian
	b := make([]byte, 16, 16+len(body))
	le.PutUint32(b, uint32(16+len(body)))
	le.PutUint32(b[4:], uint32(-errno))
	le.PutUint64(b[8:], unique)
	if _, err := h.File.Write(append(b, body...)); err != nil && !errors.Is(err, fs.ErrClosed) && !errors.Is(err, unix.ENOENT) {
		return // whoever asked has gone
	}
}

func attr(inode uint64, mode uint32) []byte {
	le := binary.LittleEndian
	b := make([]byte, 88)
	le.PutUint64(b, inode)
	le.PutUint64(b[8:], 4096)
	le.PutUint32(b[60:], mode)
	le.PutUint32(b[64:], 1)
	return b
}
