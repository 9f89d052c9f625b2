package stdio

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

// attachPatience bounds the wait for the shim to open a container's stdin: an attach may follow the start at once.
const attachPatience = time.Second

// Stdin is the write end of one container's standard input: a named pipe that outlives us. Nothing is open while nobody
// is attached, so it costs an idle node nothing, and after a restart of the daemon a new Stdin on the same path goes on:
// the shim keeps a write end of its own, so our leaving is not the container's EOF.
type Stdin struct {
	path string
	once bool
	tty  bool

	mu     sync.Mutex
	closed bool
	open   map[*os.File]struct{}
}

// NewStdin describes the stdin pipe at path, of a container with stdin_once and tty as configured. It does no I/O.
func NewStdin(path string, once, tty bool) *Stdin {
	return &Stdin{path: path, once: once, tty: tty}
}

// Path returns where the pipe is: what the shim's create is told.
func (s *Stdin) Path() string { return s.path }

// Make makes the pipe. To be called before the task is created; idempotent.
func (s *Stdin) Make() error { return mkfifo(s.path) }

// endsWithAttach tells whether the first attach that ends takes the container's stdin with it. A terminal's stdin has no
// end: closing it in the shim would hang the container up.
func (s *Stdin) endsWithAttach() bool { return s.once && !s.tty }

// feed copies a client's input into the container until the client's EOF (nil), the end of ctx, or the pipe's end
// (ErrStdinClosed). Several clients may feed at once; their writes interleave, as on a shared terminal.
func (s *Stdin) feed(ctx context.Context, from io.Reader) error {
	file, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	defer s.release(file)
	// Only a Write can be ended like this; a Read from the client ends when its connection does.
	defer context.AfterFunc(ctx, func() { _ = file.SetWriteDeadline(time.Now()) })()
	buf := takeBuffer()
	defer buffers.Put(buf)
	_, err = io.CopyBuffer(onlyWriter{file}, onlyReader{from}, *buf)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case isPipeEnd(err):
		return ErrStdinClosed
	}
	return err
}

func (s *Stdin) acquire(ctx context.Context) (*os.File, error) {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return nil, ErrStdinClosed
	}
	file, err := openWriter(ctx, s.path, attachPatience)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		file.Close()
		return nil, ErrStdinClosed
	}
	if s.open == nil {
		s.open = make(map[*os.File]struct{})
	}
	s.open[file] = struct{}{}
	return file, nil
}

func (s *Stdin) release(file *os.File) {
	s.mu.Lock()
	delete(s.open, file)
	s.mu.Unlock()
	file.Close()
}

// Close closes every write end of ours for good: with the shim told as well, the container reads EOF. Idempotent.
func (s *Stdin) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for file := range s.open {
		file.Close()
	}
	clear(s.open)
}

// isPipeEnd tells a pipe that ended under the writer from other errors.
func isPipeEnd(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, os.ErrClosed)
}
