package conformance

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// hungFile is a file whose server never answers a read: who reads it hangs in the
// kernel, and is beyond the reach of signals once one has come.
type hungFile struct {
	path    string
	fuse    *os.File
	reads   atomic.Int32
	release func() // ends the server, and lets all go with an error
}

// newHungFile mounts one over a file of its own. The test is skipped where the
// kernel has no FUSE.
func newHungFile(t testing.TB) *hungFile {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hung")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("needs FUSE, for a file that hangs: %v", err)
	}
	if err := unix.Mount("hung", path, "fuse.hung", unix.MS_NODEV|unix.MS_NOSUID, fmt.Sprintf("fd=%d,rootmode=%o,user_id=0,group_id=0,allow_other", fd, unix.S_IFREG)); err != nil {
		unix.Close(fd)
		t.Skipf("needs FUSE, for a file that hangs: %v", err)
	}
	// A file of Go's only now: before the mount it cannot be waited for.
	h := &hungFile{path: path, fuse: os.NewFile(uintptr(fd), "/dev/fuse")}
	h.release = sync.OnceFunc(func() { h.fuse.Close() })
	served := make(chan struct{})
	go func() {
		defer close(served)
		h.serve()
	}()
	t.Cleanup(func() {
		h.release()
		<-served
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return h
}

// serve speaks as much of the FUSE protocol as a read takes.
func (h *hungFile) serve() {
	const getattr, open, read, release, flush, initialize, interrupt = 3, 14, 15, 18, 25, 26, 36
	le := binary.LittleEndian
	request := make([]byte, 1<<20)
	for {
		n, err := h.fuse.Read(request)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil || n < 40 {
			return
		}
		body, errno := []byte(nil), int32(0)
		switch le.Uint32(request[4:]) {
		case read:
			h.reads.Add(1)
			continue
		case interrupt:
			continue
		case initialize:
			body = make([]byte, 64)
			le.PutUint32(body, 7) // the protocol's version
			le.PutUint32(body[4:], 31)
			le.PutUint32(body[20:], 4096) // bytes in a write
		case getattr:
			body = make([]byte, 104)
			le.PutUint64(body[16:], 1)
			le.PutUint64(body[24:], 4096) // size
			le.PutUint32(body[76:], unix.S_IFREG|0o644)
			le.PutUint32(body[80:], 1)
		case open:
			body = make([]byte, 16)
			le.PutUint32(body[8:], 1) // past the page cache
		case release, flush:
		default:
			errno = int32(unix.ENOSYS)
		}
		answer := make([]byte, 16, 16+len(body))
		le.PutUint32(answer, uint32(16+len(body)))
		le.PutUint32(answer[4:], uint32(-errno))
		copy(answer[8:16], request[8:16])
		if _, err := h.fuse.Write(append(answer, body...)); errors.Is(err, fs.ErrClosed) {
			return
		}
	}
}
