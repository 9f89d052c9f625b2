package logs

import (
	"bytes"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// largeRead is the most that is read at once: a fifo's capacity, so that one
// read empties it.
const largeRead = 64 << 10

// A buffer is what a stream has said and the log does not hold yet. It is made
// of a head, which says what is being done with the data, and the data; both lie
// in memory that outlives the process ([Buffers]), or, where there is none of
// that, in ordinary memory, with which everything works in the same way until
// the process is killed.
//
// One word of the head, state, says all: which part of the data is not written
// (pos to end, which begins a line or goes on with one that was split), and what
// is under way. Everything else is written before the word that makes it count,
// so that at whichever instruction the process is killed, the next one finds a
// state that holds.
//
// Reading: how many bytes a read brought cannot be noted at the moment at which
// the kernel takes them out of the fifo. But how many it will bring is known:
// nobody else reads, so a read of no more than the fifo holds brings exactly
// that, and a kill does not cut it short (the kernel looks for signals only while
// it waits for data, and the memory is there, locked). What remains is whether
// it has happened. So its place is marked beforehand, at its beginning and end,
// with bytes that are no UTF-8: where the marks are gone, it has. Text is never
// mistaken for marks; of other output, a read of n bytes is if each of its first
// n, up to 16, is the one of 13 that was drawn for its place, and a kill comes
// within the microsecond in which that matters: it would be lost.
//
// Writing: the head names file and offset of the write. The entries are made
// anew from the same data, state and time, thus the same, and what of them the
// file holds from that offset on is not written again (recover.go).
type buffer struct {
	*head
	data []byte

	// Of those that outlive the process; home is nil for the others.
	home  *Buffers
	mem   []byte
	name  string
	class int
	used  bool // since the pool was tidied last
}

// head is the beginning of a buffer. The layout is that of magic; what is
// shorter or longer, or differs in a meaning, needs another.
type head struct {
	magic  [8]byte
	size   uint32 // of head and data together
	max    uint32 // as in splitter
	stream uint8
	tty    uint8
	named  uint8 // length of owner
	_      uint8
	owner  [maxOwner]byte
	sum    uint32 // of everything above

	state atomic.Uint64 // see pack
	want  uint32        // length of the read under way
	mark  [16]byte      // where it will be
	age   uint64        // of two buffers of one stream the older one holds: it has been moved from the other
	when  int64         // time of the last read, unix nanoseconds
	// The write under way: file, and its length before.
	dev, ino uint64
	at       int64
}

const (
	magic    = "crid-lo2"
	headSize = 512
	maxOwner = 128
	_        = uint(headSize - unsafe.Sizeof(head{})) // it fits
)

// What is under way with a buffer.
const (
	resting     = iota
	reading     // want bytes to end
	writing     // a batch that begins at pos
	writingRest // all of it, as a part of a line
)

func pack(pos, end int, doing uint64) uint64 { return uint64(pos)<<34 | uint64(end)<<4 | doing }

func unpack(s uint64) (pos, end int, doing uint64) {
	return int(s >> 34), int(s >> 4 & (1<<30 - 1)), s & 15
}

// onStep, if a test sets it, is called after each change that a kill could leave
// as the last one.
var onStep func(b *buffer)

func (b *buffer) step() {
	if onStep != nil {
		onStep(b)
	}
}

func (b *buffer) set(pos, end int, doing uint64) {
	if pos == end && doing == resting {
		pos, end = 0, 0
	}
	b.state.Store(pack(pos, end, doing))
	b.step()
}

// held is the part of the data that is not in the log.
func (b *buffer) held() (pos, end int) {
	pos, end, _ = unpack(b.state.Load())
	return pos, end
}

func (b *buffer) text() []byte {
	pos, end := b.held()
	return b.data[pos:end]
}

// clear forgets the data: it is in the log, or nowhere to be written to.
func (b *buffer) clear() { b.set(0, 0, resting) }

// beginRead answers where n bytes are to be read to, for which there has to be
// room.
func (b *buffer) beginRead(n int) []byte {
	pos, end := b.held()
	into := b.data[end : end+n]
	if b.mem != nil {
		b.want = uint32(n)
		copy(into, b.mark[:])
		if n > 2*len(b.mark) {
			copy(into[n-len(b.mark):], b.mark[:])
		}
		b.set(pos, end, reading)
	}
	return into
}

// endRead notes that n bytes were read; none, if it failed.
func (b *buffer) endRead(n int) {
	pos, end := b.held()
	if n > 0 {
		b.when = time.Now().UnixNano()
	}
	b.set(pos, end+n, resting)
}

// settleRead finds out whether a read took place that the process did not see
// return. False: it did, and was not whole, which nothing that crid reads from
// does; where it ends is not known, and what may be behind its end is another
// container's.
func (b *buffer) settleRead() bool {
	pos, end, doing := unpack(b.state.Load())
	if doing != reading {
		return true
	}
	n := int(b.want)
	into := b.data[end : end+n]
	first := min(n, len(b.mark))
	switch {
	case bytes.Equal(into[:first], b.mark[:first]):
		n = 0
	case n > 2*len(b.mark) && bytes.Equal(into[n-len(b.mark):], b.mark[:]):
		b.set(pos, end, resting)
		return false
	}
	b.endRead(n)
	return true
}

// beginWrite notes that the entries of a batch are about to be appended to a
// file that has the length at.
func (b *buffer) beginWrite(dev, ino uint64, at int64, rest bool) {
	pos, end := b.held()
	b.dev, b.ino, b.at = dev, ino, at
	if rest {
		b.set(pos, end, writingRest)
	} else {
		b.set(pos, end, writing)
	}
}

// wrote notes that the data up to pos is in the log, or given up.
func (b *buffer) wrote(pos int) {
	_, end := b.held()
	b.set(pos, end, resting)
}

// makeRoom reports whether there is room to read n bytes, if need be after the
// data was moved to the beginning.
func (b *buffer) makeRoom(n int) bool {
	pos, end := b.held()
	if end+n <= len(b.data) {
		return true
	}
	// A copy that overlaps would destroy the one before it counts.
	if held := end - pos; held <= pos && held+n <= len(b.data) {
		copy(b.data, b.data[pos:end])
		b.step()
		b.set(0, held, resting)
		return true
	}
	return false
}

// describe says whose data is to come. The buffer is empty: nobody looks at the
// head of one that is.
func (b *buffer) describe(owner string, s *splitter) {
	b.age = 0
	if b.mem == nil {
		return
	}
	copy(b.magic[:], magic)
	b.size, b.max = uint32(len(b.mem)), uint32(s.max)
	b.stream, b.tty = 1, 0
	if s.stream == Stderr {
		b.stream = 2
	}
	if s.stripCR {
		b.tty = 1
	}
	b.named = uint8(copy(b.owner[:], owner))
	b.sum = b.checksum()
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum covers the boot, too: what a disk has of an earlier one is not what
// was in memory.
func (b *buffer) checksum() uint32 {
	return crc32.Update(bootSum(), castagnoli, b.mem[:unsafe.Offsetof((*head)(nil).sum)])
}

var bootSum = sync.OnceValue(func() uint32 {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return crc32.Checksum(id, castagnoli)
})

// valid reports whether a buffer that was found can be what this code wrote.
func (b *buffer) valid() bool {
	pos, end, doing := unpack(b.state.Load())
	return string(b.magic[:]) == magic && int64(b.size) == int64(len(b.mem)) && b.sum == b.checksum() &&
		b.named > 0 && int(b.named) <= maxOwner && (b.stream == 1 || b.stream == 2) && b.tty <= 1 &&
		b.max > 0 && pos <= end && end <= len(b.data) && doing <= writingRest &&
		(doing != reading || b.want > 0 && int64(b.want) <= int64(len(b.data)-end))
}

func (b *buffer) splitter() *splitter {
	s := &splitter{stream: Stdout, max: int(b.max), stripCR: b.tty == 1}
	if b.stream == 2 {
		s.stream = Stderr
	}
	return s
}

func (b *buffer) ownedBy() string { return string(b.owner[:b.named]) }

// draw chooses the mark, of bytes that occur nowhere in UTF-8.
func (b *buffer) draw() {
	const never = "\xc0\xc1\xf5\xf6\xf7\xf8\xf9\xfa\xfb\xfc\xfd\xfe\xff"
	for i := range b.mark {
		b.mark[i] = never[rand.IntN(len(never))] //nolint:gosec // not a secret
	}
}

// sizes are those of buffers, by class: what an idle stream can have to keep of
// an ordinary line; a long one; and room to read a fifo's content after one, and
// to move that one about.
type sizes [3]int

func sizesFor(maxLine int) sizes {
	page := func(n int) int { return (headSize + n + 4095) &^ 4095 }
	return sizes{page(1), page(maxLine + 2048), page(2*maxLine + largeRead)}
}

// class answers the smallest class with room for n bytes, of those that ever
// come: a read after a line's beginning.
func (s sizes) class(n int) int {
	for c, size := range s {
		if n <= size-headSize {
			return c
		}
	}
	return len(s) - 1
}

// ordinary are the buffers in ordinary memory, by class.
var ordinary [len(sizes{})]sync.Pool

// take answers an empty buffer for a stream, with room for n bytes.
func (l *Log) take(s *splitter, n int) *buffer {
	class := l.sizes.class(n)
	if l.path != "" && l.opts.Owner != "" && len(l.opts.Owner) <= maxOwner {
		if b := l.opts.Buffers.take(class, l.sizes); b != nil {
			b.describe(l.opts.Owner, s)
			return b
		}
	}
	size := l.sizes[class] - headSize
	if b, _ := ordinary[class].Get().(*buffer); b != nil && len(b.data) == size {
		return b
	}
	return &buffer{head: &head{}, data: make([]byte, size), class: class}
}

// release gives an empty buffer back.
func (b *buffer) release() {
	if b.home != nil {
		b.home.put(b)
		return
	}
	ordinary[b.class].Put(b)
}

// move takes what a buffer holds to one with room for n bytes more.
func (l *Log) move(s *splitter, b *buffer, n int) *buffer {
	text := b.text()
	to := l.take(s, len(text)+n)
	copy(to.data, text)
	to.when, to.age = b.when, b.age+1
	to.set(0, len(text), resting)
	b.clear()
	b.release()
	return to
}
