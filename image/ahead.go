package image

import (
	"context"
	"errors"
	"io"
	"sync"
)

// Loading and decompressing on one side, hashing and unpacking on the other,
// run beside each other with a few buffers between them.
const (
	aheadBuffers = 4
	aheadSize    = 256 << 10
)

var aheadPool sync.Pool

func aheadBuffer() *[]byte {
	if buf, ok := aheadPool.Get().(*[]byte); ok {
		return buf
	}
	buf := make([]byte, aheadSize)
	return &buf
}

// ahead is an io.Reader whose source is read by a goroutine of its own.
type ahead struct {
	ctx    context.Context
	full   chan chunk
	quit   chan struct{}
	exited chan struct{}
	cur    chunk
	at     int
	err    error
	once   sync.Once
}

type chunk struct {
	buf *[]byte
	n   int
	err error
}

func readAhead(ctx context.Context, r io.Reader) *ahead {
	a := &ahead{ctx: ctx, full: make(chan chunk, aheadBuffers), quit: make(chan struct{}), exited: make(chan struct{})}
	go a.run(r)
	return a
}

func (a *ahead) run(r io.Reader) {
	defer close(a.exited)
	for {
		buf := aheadBuffer()
		n, err := io.ReadFull(r, *buf)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			// ReadFull's own word for a short last chunk; a source that says so
			// itself was cut off, which the digests would find as well.
			err = shortOrCut(r)
		}
		select {
		case a.full <- chunk{buf, n, err}:
		case <-a.quit:
			aheadPool.Put(buf)
			return
		}
		if err != nil {
			return
		}
	}
}

// shortOrCut asks the source once more: its end is io.EOF, its failure stays one.
func shortOrCut(r io.Reader) error {
	var one [1]byte
	for {
		n, err := r.Read(one[:])
		if err != nil {
			return err
		}
		if n > 0 {
			return io.ErrNoProgress
		}
	}
}

func (a *ahead) Read(p []byte) (int, error) {
	for {
		if a.cur.buf != nil && a.at < a.cur.n {
			n := copy(p, (*a.cur.buf)[a.at:a.cur.n])
			a.at += n
			return n, nil
		}
		if a.cur.buf != nil {
			aheadPool.Put(a.cur.buf)
			a.err, a.cur = a.cur.err, chunk{}
		}
		if a.err != nil {
			return 0, a.err
		}
		select {
		case a.cur = <-a.full:
			a.at = 0
		case <-a.ctx.Done():
			return 0, context.Cause(a.ctx)
		}
	}
}

// Close waits for the reading goroutine, whose source must end with the
// context. It answers no error.
func (a *ahead) Close() error {
	a.once.Do(func() {
		close(a.quit)
		<-a.exited
		if a.cur.buf != nil {
			aheadPool.Put(a.cur.buf)
			a.cur = chunk{}
			a.err = io.ErrClosedPipe
		}
	})
	return nil
}
