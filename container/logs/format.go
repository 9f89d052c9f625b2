package logs

import (
	"bytes"
	"sync"
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

// splitter turns a stream of bytes into entries.
type splitter struct {
	stream  Stream
	max     int
	stripCR bool // of the line ends that a terminal makes
}

// batch is entries on their way to the file.
type batch struct {
	out     []byte
	entries int
	parts   int
	rest    bool   // all that there is, with no line end
	prefix  []byte // "TIME STREAM "
}

var batches = sync.Pool{New: func() any { return &batch{} }}

// begin starts a batch of entries of one moment: reading the clock for every
// line would cost more than writing it.
func (b *batch) begin(stream Stream, now time.Time) {
	b.out, b.entries, b.parts, b.rest = b.out[:0], 0, 0, false
	b.prefix = now.UTC().AppendFormat(b.prefix[:0], time.RFC3339Nano)
	b.prefix = append(b.prefix, ' ')
	b.prefix = append(b.prefix, stream...)
	b.prefix = append(b.prefix, ' ')
}

func (b *batch) entry(tag byte, text []byte) {
	b.out = append(b.out, b.prefix...)
	b.out = append(b.out, tag, ' ')
	b.out = append(b.out, text...)
	b.out = append(b.out, '\n')
	b.entries++
	if tag == 'P' {
		b.parts++
	}
}

func (b *batch) full() bool { return len(b.out) >= batchSize }

// split adds the entries of data to b, until it is full, and answers how much of
// data is in them. The rest is, if b is not full, the beginning of a line whose
// end has not come, at most max bytes. Of such a beginning, which comes again
// with more, clean bytes are known to have no line end in them.
//
// The same data gives the same entries, whoever splits it: what is done after a
// kill rests on that.
func (s *splitter) split(b *batch, data []byte, clean int) (n int) {
	for n < len(data) && !b.full() {
		stop := len(data)
		end := bytes.IndexByte(data[n+clean:], '\n')
		if end >= 0 {
			stop = n + clean + end
		}
		clean = 0
		// Exactly max bytes are held back: they may yet be the end of the line.
		for ; stop-n > s.max; n += s.max {
			if b.full() {
				return n
			}
			b.entry('P', data[n:n+s.max])
		}
		if end < 0 || b.full() {
			return n
		}
		line := data[n:stop]
		if s.stripCR {
			line = bytes.TrimSuffix(line, []byte{'\r'})
		}
		b.entry('F', line)
		n = stop + 1
	}
	return n
}

// rest adds what has no line end as a part: the next reader of the stream, or
// nobody, ends the line.
func (s *splitter) rest(b *batch, text []byte) {
	b.entry('P', text)
	b.rest = true
}

func (l *Log) splitter(s Stream) splitter {
	return splitter{stream: s, max: l.opts.MaxLine, stripCR: l.opts.TTY}
}
