package inflate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
)

// ErrCorrupt is what a stream is that is not gzip.
var ErrCorrupt = errors.New("gzip stream is corrupt")

const (
	window = 32 << 10
	// A step of the inner loop writes at most this much (8 literals, a match
	// of 258 and what copying in words writes beyond it), and reads at most
	// that much.
	outSlack = 512
	inSlack  = 32

	outSize = window + 128<<10
	inSize  = 64 << 10
)

// Reader decompresses a gzip stream of one or several members. Close gives
// its memory back.
type Reader struct {
	*state
	err error
}

// state is what a Reader keeps; it is used again by later ones.
type state struct {
	src io.Reader
	in  [inSize]byte
	pos int // next byte of in to be taken into bits
	end int // end of what in holds, padding included
	// real is where the source's bytes end; behind it, once the source has
	// ended, are zeros, so that the inner loop may look ahead.
	real   int
	srcErr error

	bits  uint64
	nbits uint // how many of bits count; what is above them are the bits that in[pos:] begins with

	out  [outSize + outSlack]byte
	r, w int // what of out is to be read
	base int // where in out this member begins

	step  func(*state) error // what to do next
	last  bool               // the block is the member's last
	left  int                // of a stored block, in bytes
	crc   uint32
	total uint32

	lit     [litSize]uint32
	dist    [distSize]uint32
	lens    [1 << lenRoot]uint32
	lengths [litCodes + distCodes]uint8
}

var states sync.Pool

// NewReader reads the stream's header and answers a reader of its content. It
// reads from r ahead of what it has answered.
func NewReader(r io.Reader) (*Reader, error) {
	s, ok := states.Get().(*state)
	if !ok {
		s = new(state)
	}
	s.src, s.srcErr = r, nil
	s.pos, s.end, s.real = 0, 0, 0
	s.bits, s.nbits = 0, 0
	s.r, s.w, s.base = 0, 0, 0
	z := &Reader{state: s}
	if err := s.header(); err != nil {
		z.Close()
		return nil, err
	}
	return z, nil
}

// Close ends the reader, not its source. Idempotent.
func (z *Reader) Close() error {
	if z.state != nil {
		z.src = nil
		states.Put(z.state)
		z.state = nil
	}
	if z.err == nil {
		z.err = io.ErrClosedPipe
	}
	return nil
}

// Read answers io.EOF only after the checksums of all members were right.
func (z *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if z.state == nil {
			return 0, z.err
		}
		if z.r < z.w {
			n := copy(p, z.out[z.r:z.w])
			z.r += n
			return n, nil
		}
		if z.err != nil {
			return 0, z.err
		}
		z.err = z.more()
	}
}

// more decompresses until there is something to read, or an error.
func (s *state) more() error {
	if s.w > outSize/2 {
		// Keep what matches may refer to.
		shift := s.w - window
		copy(s.out[:window], s.out[shift:s.w])
		s.w, s.base = window, max(s.base-shift, 0)
	}
	s.r = s.w
	for s.w == s.r {
		err := s.step(s)
		if s.cut() {
			s.w = s.r // some of it is made of padding
			return s.ended()
		}
		if s.w > s.r {
			fresh := s.out[s.r:s.w]
			s.crc = crc32.Update(s.crc, crc32.IEEETable, fresh)
			s.total += uint32(len(fresh))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// cut tells whether more bits were taken than there are.
func (s *state) cut() bool { return s.srcErr != nil && s.pos-int(s.nbits/8) > s.real }

// ended is the error of a stream that ends too early.
func (s *state) ended() error {
	if s.srcErr == nil || errors.Is(s.srcErr, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return s.srcErr
}

// fill sees to it that inSlack bytes can be looked at, padded with zeros
// behind the source's end. false: even the padding is used up.
func (s *state) fill() bool {
	for s.end-s.pos < inSlack {
		if s.srcErr != nil {
			return false
		}
		keep := min(s.pos, 8) // what bits holds of them may be given back
		copy(s.in[:], s.in[s.pos-keep:s.end])
		s.end -= s.pos - keep
		s.pos = keep
		var n int
		for range 100 {
			if n, s.srcErr = s.src.Read(s.in[s.end : inSize-2*inSlack]); n > 0 || s.srcErr != nil {
				break
			}
		}
		s.end += n
		s.real = s.end
		if n == 0 && s.srcErr == nil {
			s.srcErr = io.ErrNoProgress
		}
		if s.srcErr != nil {
			clear(s.in[s.end : s.end+2*inSlack])
			s.end += 2 * inSlack
		}
	}
	return true
}

// need refills bits, with at least 56 of them.
func (s *state) need() error {
	if s.end-s.pos < inSlack && !s.fill() {
		return s.ended()
	}
	s.bits |= binary.LittleEndian.Uint64(s.in[s.pos:]) << (s.nbits & 63)
	s.pos += int((63 - s.nbits) >> 3)
	s.nbits |= 56
	return nil
}

// take answers n bits, 32 at most, after need.
func (s *state) take(n uint) uint32 {
	v := uint32(s.bits & (1<<n - 1))
	s.bits >>= n
	s.nbits -= n
	return v
}

// align gives whole bytes back to in and drops the rest of the one begun.
func (s *state) align() {
	s.pos -= int(s.nbits / 8)
	s.bits, s.nbits = 0, 0
}

// readByte reads a byte of a header, after align.
func (s *state) readByte() (byte, error) {
	if s.pos >= s.real && (!s.fill() || s.pos >= s.real) {
		return 0, s.ended()
	}
	s.pos++
	return s.in[s.pos-1], nil
}

const (
	flagHeaderCRC = 1 << 1
	flagExtra     = 1 << 2
	flagName      = 1 << 3
	flagComment   = 1 << 4
	// maxHeader bounds a header, in bytes.
	maxHeader = 1 << 20
)

// header reads a member's header.
func (s *state) header() error {
	var h [10]byte
	for i := range h {
		b, err := s.readByte()
		if err != nil {
			return err
		}
		h[i] = b
	}
	if h[0] != 0x1f || h[1] != 0x8b || h[2] != 8 {
		return fmt.Errorf("%w: no header", ErrCorrupt)
	}
	skip := 0
	if h[3]&flagExtra != 0 {
		lo, err := s.readByte()
		if err != nil {
			return err
		}
		hi, err := s.readByte()
		if err != nil {
			return err
		}
		skip = int(hi)<<8 | int(lo)
	}
	if err := s.skip(skip); err != nil {
		return err
	}
	for _, f := range []byte{flagName, flagComment} {
		if h[3]&f != 0 {
			if err := s.text(); err != nil {
				return err
			}
		}
	}
	if h[3]&flagHeaderCRC != 0 {
		if err := s.skip(2); err != nil {
			return err
		}
	}
	s.base, s.crc, s.total = s.w, 0, 0
	s.last, s.left = false, 0
	s.step = (*state).block
	return nil
}

func (s *state) skip(n int) error {
	for range n {
		if _, err := s.readByte(); err != nil {
			return err
		}
	}
	return nil
}

// text skips a text that ends with a zero.
func (s *state) text() error {
	for range maxHeader {
		b, err := s.readByte()
		if err != nil || b == 0 {
			return err
		}
	}
	return fmt.Errorf("%w: its header has no end", ErrCorrupt)
}

// trailer checks a member's end, and begins the next member if there is one.
func (s *state) trailer() error {
	s.align()
	var t [8]byte
	for i := range t {
		b, err := s.readByte()
		if err != nil {
			return err
		}
		t[i] = b
	}
	if binary.LittleEndian.Uint32(t[:]) != s.crc || binary.LittleEndian.Uint32(t[4:]) != s.total {
		return fmt.Errorf("%w: the checksum does not match", ErrCorrupt)
	}
	if s.pos >= s.real && (!s.fill() || s.pos >= s.real) {
		return s.srcErr
	}
	return s.header()
}
