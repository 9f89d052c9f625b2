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

// readerPatience bounds the wait for the shim to open its end of a stdin pipe.
const readerPatience = 5 * time.Second

// input copies a client's standard input into a pipe. The zero value is not ready: see newInput.
type input struct {
	from io.Reader
	path string

	ctx  context.Context // ends a wait for the pipe's reader
	stop context.CancelFunc

	mu     sync.Mutex
	file   *os.File
	closed bool
}

func newInput(from io.Reader, path string) *input {
	ctx, stop := context.WithCancel(context.Background())
	return &input{from: from, path: path, ctx: ctx, stop: stop}
}

// copy feeds the pipe until the client's EOF, or until close. What the client sends after the process stopped reading is
// read and discarded, so that resizes and the client's leaving, which come over the same connection, are still seen. It
// returns nil at the client's EOF, with the pipe still open: who closes it must ask the shim first.
func (in *input) copy() error {
	file, err := in.open()
	if err == nil {
		buf := takeBuffer()
		_, err = io.CopyBuffer(onlyWriter{file}, onlyReader{in.from}, *buf)
		buffers.Put(buf)
	}
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, ErrStdinClosed) {
		_, err = io.Copy(io.Discard, in.from)
	}
	return err
}

func (in *input) open() (*os.File, error) {
	file, err := openWriter(in.ctx, in.path, readerPatience)
	if err != nil {
		return nil, err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		file.Close()
		return nil, os.ErrClosed
	}
	in.file = file
	return file, nil
}

// close closes our end of the pipe and ends copy, unless that waits for the client. Idempotent.
func (in *input) close() {
	in.stop()
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = true
	if in.file != nil {
		in.file.Close()
		in.file = nil
	}
}

// The client's reader and the pipe are copied through our buffer: os.File would otherwise try splice and the like with
// buffers of its own.
type (
	onlyWriter struct{ io.Writer }
	onlyReader struct{ io.Reader }
)
