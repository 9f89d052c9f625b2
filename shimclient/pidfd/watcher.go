package pidfd

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrClosed says that the watcher or the handle has been closed.
var ErrClosed = errors.New("closed")

// Watcher tells when processes end. However many handles it watches, it costs
// one goroutine and no thread: its epoll set is itself waited for by the Go
// runtime's poller.
type Watcher struct {
	epoll *os.File
	conn  syscall.RawConn
	done  chan struct{} // closed when the loop has ended

	mu     sync.Mutex
	closed bool
	next   uint64
	funcs  map[uint64]watch
}

type watch struct {
	handle *Handle
	fn     func()
}

// NewWatcher starts a watcher; Close ends it.
func NewWatcher() (*Watcher, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create epoll set: %w", err)
	}
	// Non-blocking is what makes os.NewFile hand the fd to the runtime's poller.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("create epoll set: %w", err)
	}
	w := &Watcher{
		epoll: os.NewFile(uintptr(fd), "epoll of pidfds"),
		done:  make(chan struct{}),
		funcs: make(map[uint64]watch),
	}
	conn, err := w.epoll.SyscallConn()
	if err != nil {
		w.epoll.Close()
		return nil, fmt.Errorf("create epoll set: %w", err)
	}
	w.conn = conn
	go w.loop()
	return w, nil
}

// Watch calls fn once, in a goroutine of its own, when the process of h has
// exited; at once if it has already. After Forget, or Close of the handle or of
// the watcher, fn is not called any more (a call that has begun goes on).
// Watching the same handle again replaces fn.
func (w *Watcher) Watch(h *Handle, fn func()) error {
	w.Forget(h)
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return fmt.Errorf("watch %v: watcher is %w", h.process, ErrClosed)
	}
	w.next++
	token := w.next
	w.funcs[token] = watch{h, fn}
	w.mu.Unlock()

	h.mu.Lock()
	err := ErrClosed
	if h.fd >= 0 {
		// The token, not the fd, names the watch: the fd's number may be in use
		// again by the time the event is read.
		ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(uint32(token)), Pad: int32(uint32(token >> 32))}
		if err = w.control(unix.EPOLL_CTL_ADD, h.fd, &ev); err == nil {
			if h.watches == nil {
				h.watches = make(map[*Watcher]uint64, 1)
			}
			h.watches[w] = token
		}
	}
	h.mu.Unlock()
	if err != nil {
		w.drop(token)
		return fmt.Errorf("watch %v: %w", h.process, err)
	}
	return nil
}

// Forget ends the watch on h. Idempotent.
func (w *Watcher) Forget(h *Handle) {
	h.mu.Lock()
	token, ok := h.watches[w]
	if ok {
		delete(h.watches, w)
		if h.fd >= 0 {
			_ = w.control(unix.EPOLL_CTL_DEL, h.fd, nil)
		}
	}
	h.mu.Unlock()
	if ok {
		w.drop(token)
	}
}

// Close ends the watcher and waits for its goroutine; the handles stay open.
// Idempotent.
func (w *Watcher) Close() error {
	w.mu.Lock()
	w.closed = true
	clear(w.funcs)
	w.mu.Unlock()
	w.epoll.Close()
	<-w.done
	return nil
}

// control runs one epoll_ctl; after Close it fails rather than hit whatever got
// the number of the epoll set's fd.
func (w *Watcher) control(op, fd int, ev *unix.EpollEvent) error {
	var ctlErr error
	if err := w.conn.Control(func(epfd uintptr) { ctlErr = unix.EpollCtl(int(epfd), op, fd, ev) }); err != nil {
		return err
	}
	return ctlErr
}

func (w *Watcher) drop(token uint64) {
	w.mu.Lock()
	delete(w.funcs, token)
	w.mu.Unlock()
}

func (w *Watcher) loop() {
	defer close(w.done)
	var events [64]unix.EpollEvent
	for {
		var n int
		err := w.conn.Read(func(epfd uintptr) bool {
			var err error
			n, err = unix.EpollWait(int(epfd), events[:], 0)
			return n > 0 && err == nil
		})
		if err != nil {
			return // closed
		}
		for _, ev := range events[:n] {
			w.fire(uint64(uint32(ev.Fd)) | uint64(uint32(ev.Pad))<<32)
		}
	}
}

func (w *Watcher) fire(token uint64) {
	w.mu.Lock()
	found, ok := w.funcs[token]
	delete(w.funcs, token)
	w.mu.Unlock()
	if !ok {
		return
	}
	// A pidfd stays readable for ever; out of the set with it.
	h := found.handle
	h.mu.Lock()
	if h.watches[w] == token {
		delete(h.watches, w)
		if h.fd >= 0 {
			_ = w.control(unix.EPOLL_CTL_DEL, h.fd, nil)
		}
	}
	h.mu.Unlock()
	go found.fn()
}
