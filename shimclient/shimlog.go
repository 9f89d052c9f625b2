package shimclient

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxLogLine = 4096 // bytes; the rest of a longer line is dropped
	logBurst   = 200  // lines that may come at once
	logRate    = 20   // lines a second after that
)

// shimLog holds a shim's log fifo open and passes its lines on. A shim opens
// the fifo for writing and waits until somebody has it open, so this must come
// first. It costs a goroutine and, while the shim is silent, no buffer.
type shimLog struct {
	file *os.File
	log  *slog.Logger
	done chan struct{}

	once sync.Once
	// Of the reading goroutine alone:
	part    []byte // the beginning of a line
	cutting bool   // the line was too long: skip to its end
	tokens  float64
	last    time.Time
	dropped int
}

// openShimLog makes the fifo if it is not there. Opened for reading and writing
// it never blocks and never reaches its end when a writer goes.
func openShimLog(path string, log *slog.Logger) (*shimLog, error) {
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make shim log fifo %s: %w", path, err)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open shim log fifo %s: %w", path, err)
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFIFO {
		err = errors.New("it is not a fifo; remove it")
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open shim log %s: %w", path, err)
	}
	l := &shimLog{
		file: os.NewFile(uintptr(fd), path), log: log, done: make(chan struct{}),
		tokens: logBurst, last: time.Now(),
	}
	conn, err := l.file.SyscallConn()
	if err != nil {
		l.file.Close()
		return nil, fmt.Errorf("open shim log %s: %w", path, err)
	}
	go l.read(conn)
	return l, nil
}

// Close ends the reading at once. Idempotent.
func (l *shimLog) Close() {
	l.once.Do(func() { l.file.Close() })
	<-l.done
}

// Finish reads what is still in the fifo and then closes it; for dead shims.
func (l *shimLog) Finish() {
	l.once.Do(func() {
		// The goroutine notices the deadline only when the fifo is empty.
		_ = l.file.SetReadDeadline(time.Now())
	})
	select {
	case <-l.done:
	case <-time.After(time.Second): // a child of the shim keeps writing
	}
	l.file.Close()
	<-l.done
}

var logBuffers = sync.Pool{New: func() any { return new([8192]byte) }}

func (l *shimLog) read(conn syscall.RawConn) {
	defer close(l.done)
	defer l.flush()
	for conn.Read(l.drain) == nil {
	}
	// Once more: what came together with the deadline that Finish set. If the
	// file has been closed this does nothing.
	_ = conn.Control(func(fd uintptr) { l.drain(fd) })
}

// drain reads until the fifo is empty. It is called when there may be something
// to read, and returns false to be called again: so a buffer is held only while
// there is something to put in. It returns true now and then under a flood, so
// that a Close is noticed.
func (l *shimLog) drain(fd uintptr) bool {
	buf, ok := logBuffers.Get().(*[8192]byte)
	if !ok {
		return true // never: New makes nothing else
	}
	defer logBuffers.Put(buf)
	for range 64 {
		n, err := unix.Read(int(fd), buf[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n <= 0 || err != nil {
			return false
		}
		l.take(buf[:n])
	}
	return true
}

// take cuts lines out of what was read.
func (l *shimLog) take(b []byte) {
	for len(b) > 0 {
		line, rest, complete := bytes.Cut(b, []byte{'\n'})
		b = rest
		if !l.cutting {
			room := maxLogLine - len(l.part)
			l.cutting = len(line) > room
			l.part = append(l.part, line[:min(room, len(line))]...)
		}
		if complete {
			l.flush()
		}
	}
}

func (l *shimLog) flush() {
	line := bytes.TrimSpace(l.part)
	if len(line) > 0 && l.allow() {
		sayAt := l.at(line)
		sayAt("shim: " + string(bytes.ToValidUTF8(line, []byte("?"))))
	}
	l.part, l.cutting = nil, false
}

// allow lets a burst pass and then a trickle: a shim that complains in a circle
// must not fill the disk of the node.
func (l *shimLog) allow() bool {
	now := time.Now()
	l.tokens = min(logBurst, l.tokens+now.Sub(l.last).Seconds()*logRate)
	l.last = now
	if l.tokens < 1 {
		l.dropped++
		return false
	}
	if l.dropped > 0 {
		l.log.Warn("shim log lines dropped", "count", l.dropped)
		l.dropped = 0
	}
	l.tokens--
	return true
}

// at reads the level of a logrus text line, the form of the Go shims.
func (l *shimLog) at(line []byte) func(string, ...any) {
	switch {
	case bytes.Contains(line, []byte("level=debug")):
		return l.log.Debug
	case bytes.Contains(line, []byte("level=warning")):
		return l.log.Warn
	case bytes.Contains(line, []byte("level=error")), bytes.Contains(line, []byte("level=fatal")):
		return l.log.Error
	}
	return l.log.Info
}
