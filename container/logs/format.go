package logs

import (
	"bytes"
	"time"
)

// Stream is where an entry comes from, in CRI's words.
type Stream string

// The two streams of CRI's log format. A terminal has only the first.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// DefaultMaxLine is the length at which a line is split, in bytes of text; that
// of other runtimes.
const DefaultMaxLine = 16 << 10

// batchSize is how much is gathered for one write.
const batchSize = 128 << 10

// splitter turns a stream of bytes into entries. It keeps the beginning of a
// line whose end has not come, at most max bytes.
type splitter struct {
	stream  Stream
	max     int
	stripCR bool // of the line ends that a terminal makes
	pending []byte
}

// batch is entries on their way to the file.
type batch struct {
	out     []byte
	entries int
	parts   int
	prefix  []byte // "TIME STREAM "
}

// begin starts a batch of entries of one moment: reading the clock for every
// line would cost more than writing it.
func (b *batch) begin(stream Stream, now time.Time) {
	b.out, b.entries, b.parts = b.out[:0], 0, 0
	b.prefix = now.UTC().AppendFormat(b.prefix[:0], time.RFC3339Nano)
	b.prefix = append(b.prefix, ' ')
	b.prefix = append(b.prefix, stream...)
	b.prefix = append(b.prefix, ' ')
}

func (b *batch) entry(tag byte, head, tail []byte) {
	b.out = append(b.out, b.prefix...)
	b.out = append(b.out, tag, ' ')
	b.out = append(b.out, head...)
	b.out = append(b.out, tail...)
	b.out = append(b.out, '\n')
	b.entries++
	if tag == 'P' {
		b.parts++
	}
}

// split adds the entries of data to b and calls flush when there are enough for
// a write.
func (s *splitter) split(b *batch, data []byte, flush func()) {
	for len(data) > 0 {
		line := data
		end := bytes.IndexByte(data, '\n')
		if end >= 0 {
			line, data = data[:end], data[end+1:]
		} else {
			data = nil
		}
		// Exactly max bytes are held back: they may yet be the end of the line.
		for len(s.pending)+len(line) > s.max {
			room := s.max - len(s.pending)
			b.entry('P', s.pending, line[:room])
			s.pending, line = s.pending[:0], line[room:]
			if len(b.out) >= batchSize {
				flush()
			}
		}
		if end < 0 {
			s.pending = append(s.pending, line...)
			return
		}
		s.end(b, line)
		if len(b.out) >= batchSize {
			flush()
		}
	}
}

func (s *splitter) end(b *batch, line []byte) {
	head := s.pending
	if s.stripCR {
		if n := len(line); n > 0 && line[n-1] == '\r' {
			line = line[:n-1]
		} else if m := len(head); n == 0 && m > 0 && head[m-1] == '\r' {
			head = head[:m-1]
		}
	}
	b.entry('F', head, line)
	if cap(s.pending) > 1024 {
		s.pending = nil // do not keep a long line's memory while idle
	} else {
		s.pending = s.pending[:0]
	}
}

// rest adds what has no line end as a part: the next reader of the stream, or
// nobody, ends the line.
func (s *splitter) rest(b *batch) {
	if len(s.pending) > 0 {
		b.entry('P', s.pending, nil)
	}
	s.pending = nil
}
