package logs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Tail is one fifo that a log follows.
type Tail struct {
	log      *Log
	file     *os.File
	raw      syscall.RawConn
	split    splitter
	done     chan struct{}
	draining atomic.Bool
	stopping atomic.Bool
	hurried  chan struct{} // closed with either flag
	hurryUp  sync.Once

	// Used by the tail's goroutine only.
	buf   *buffer // nil while there is nothing in it
	n     int     // how much the last read brought
	avail int32   // how much there was to read
	ended bool
}

// Follow reads the fifo at path until all its writers have closed it, and
// writes what it says to the log as of stream. It does not wait for a writer to
// come: a fifo that nobody has opened for writing yet is not at its end. The
// same fifo can be followed again by the next process, and goes on where this
// one stopped. Only a fifo will do.
func (l *Log) Follow(stream Stream, path string) (*Tail, error) {
	// O_NOFOLLOW: nothing but the fifo that was made here.
	f, err := os.OpenFile(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("follow container output: %w", err)
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("follow container output: %w", err)
	}
	if fi.Mode()&os.ModeType != os.ModeNamedPipe {
		f.Close()
		return nil, fmt.Errorf("follow container output: %s is not a fifo: %w", path, errdefs.ErrInvalidArgument)
	}
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("follow container output: %w", err)
	}
	t := &Tail{
		log: l, file: f, raw: raw, done: make(chan struct{}), hurried: make(chan struct{}),
		split: l.splitter(stream),
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		f.Close()
		return nil, fmt.Errorf("follow container output: the log is closed: %w", errdefs.ErrFailedPrecondition)
	}
	l.tails[t] = struct{}{}
	l.followed = true
	t.buf = l.recovered[stream]
	delete(l.recovered, stream)
	l.mu.Unlock()
	go t.run()
	return t, nil
}

// Done is closed when the stream has ended and all of it is in the file.
func (t *Tail) Done() <-chan struct{} { return t.done }

// Ending tells the tail that its container has ended, without waiting: attached
// clients hold nothing up any more, and a fifo without a writer is at its end,
// whether a writer was ever seen or not. What a surviving process still writes
// is followed on.
func (t *Tail) Ending() {
	t.draining.Store(true)
	t.wake()
}

// Drain waits until the stream has ended, for a container of which the end is
// known: a fifo without a writer counts as ended now, also if none was ever
// seen (the writer died while nobody followed), and attached clients can hold
// nothing up any more. When ctx ends first, which means that some process still
// has the container's output open, what is in the fifo has been read, the tail
// is stopped, and the context's error is returned.
func (t *Tail) Drain(ctx context.Context) error {
	t.Ending()
	select {
	case <-t.done:
		return nil
	case <-ctx.Done():
	}
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writePatience)
	defer cancel()
	if err := t.stop(stopCtx); err != nil {
		return err
	}
	return fmt.Errorf("drain container output: %w", ctx.Err())
}

// Close stops following and leaves the rest to the fifo. What there is of a
// line is written as a part. Idempotent.
func (t *Tail) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), writePatience)
	defer cancel()
	return t.stop(ctx)
}

func (t *Tail) stop(ctx context.Context) error {
	t.stopping.Store(true)
	t.wake()
	select {
	case <-t.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop following container output: the write to %s hangs: %w", t.log.path, errdefs.ErrUnavailable)
	}
}

// wake makes a waiting read return; the reader then looks at the flags.
func (t *Tail) wake() {
	t.hurryUp.Do(func() { close(t.hurried) })
	_ = t.file.SetReadDeadline(time.Unix(1, 0))
}

func (t *Tail) run() {
	defer t.end()
	attempt := t.attempt // once: a method value is an allocation
	for {
		err := t.raw.Read(attempt)
		if n := t.n; n > 0 {
			t.n = 0
			t.pass(n)
			continue
		}
		switch {
		case t.ended, err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
			return
		case err != nil:
			// Woken. The order matters: who sets a flag after the look below also
			// sets the deadline after it was cleared.
			_ = t.file.SetReadDeadline(time.Time{})
			if t.stopping.Load() {
				return
			}
		}
	}
}

// attempt reads once, without waiting. False means: wait for the fifo. A buffer
// is only held while there is something in it.
func (t *Tail) attempt(fd uintptr) bool {
	want := t.available(fd)
	t.room(want)
	into := t.buf.beginRead(want)
	n, err := unix.Read(int(fd), into)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Read(int(fd), into)
	}
	t.buf.endRead(max(n, 0))
	if n > 0 {
		t.n = n
		return true
	}
	t.idle()
	if errors.Is(err, unix.EAGAIN) {
		return false
	}
	if err != nil {
		t.ended = true // nothing that reading again would mend
		return true
	}
	// No writer. At the end, or before the beginning? The kernel reports a
	// hangup only to those who have seen a writer.
	if t.draining.Load() || hungUp(fd) {
		t.ended = true
		return true
	}
	return false
}

// available answers how much a read will bring, at least 1: if there is nothing,
// a read tells why.
func (t *Tail) available(fd uintptr) int {
	t.avail = 0
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, fd, unix.TIOCINQ, uintptr(unsafe.Pointer(&t.avail))) // a fifo knows it
	return min(max(int(t.avail), 1), largeRead)
}

// room sees to it that there is a buffer with room for n bytes.
func (t *Tail) room(n int) {
	switch {
	case t.buf == nil:
		t.buf = t.log.take(&t.split, n)
	case !t.buf.makeRoom(n):
		t.buf = t.log.move(&t.split, t.buf, n)
	}
}

// idle gives back what is not needed while there is nothing to read.
func (t *Tail) idle() {
	held := len(t.buf.text())
	switch {
	case held == 0:
		t.buf.release()
		t.buf = nil
	case t.log.sizes.class(held) < t.buf.class:
		t.buf = t.log.move(&t.split, t.buf, 0)
	}
}

func hungUp(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0 && fds[0].Revents&unix.POLLHUP != 0 && fds[0].Revents&unix.POLLIN == 0
}

// pass writes the last n bytes of the buffer to the log, with what there was of
// a line, and then shows them to the clients: the file does not wait for them.
func (t *Tail) pass(n int) {
	b := t.buf
	pos, end := b.held()
	fresh := b.data[end-n : end]
	if t.log.path == "" {
		b.clear()
	} else {
		o := batches.Get().(*batch) //nolint:forcetypeassert // the pool holds nothing else
		t.log.put(&t.split, b, o, end-n-pos)
		batches.Put(o)
	}
	t.log.show(t, fresh) // they are still there
}

func (t *Tail) end() {
	if t.buf != nil {
		o := batches.Get().(*batch) //nolint:forcetypeassert // the pool holds nothing else
		t.log.putRest(&t.split, t.buf, o)
		batches.Put(o)
		t.buf.release()
		t.buf = nil
	}
	_ = t.file.Close()
	l := t.log
	l.mu.Lock()
	delete(l.tails, t)
	last := len(l.tails) == 0
	l.mu.Unlock()
	close(t.done)
	if last {
		l.endClients()
	}
}
