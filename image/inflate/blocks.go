package inflate

import (
	"encoding/binary"
	"fmt"
	"sync"
)

// block begins the next block.
func (s *state) block() error {
	if s.last {
		s.last = false
		return s.trailer()
	}
	if err := s.need(); err != nil {
		return err
	}
	s.last = s.take(1) == 1
	switch s.take(2) {
	case 0:
		return s.beginStored()
	case 1:
		f := fixed()
		s.lit, s.dist = f.lit, f.dist
		s.step = (*state).compressed
		return nil
	case 2:
		s.step = (*state).compressed
		return s.codes()
	}
	return fmt.Errorf("%w: no such block type", ErrCorrupt)
}

func (s *state) beginStored() error {
	s.align()
	var h [4]byte
	for i := range h {
		b, err := s.readByte()
		if err != nil {
			return err
		}
		h[i] = b
	}
	n := binary.LittleEndian.Uint16(h[:])
	if n != ^binary.LittleEndian.Uint16(h[2:]) {
		return fmt.Errorf("%w: a stored block's length", ErrCorrupt)
	}
	s.left = int(n)
	s.step = (*state).stored
	return nil
}

// stored copies what fits of a stored block.
func (s *state) stored() error {
	for s.left > 0 && s.w < outSize {
		if s.pos >= s.real && (!s.fill() || s.pos >= s.real) {
			return s.ended()
		}
		n := copy(s.out[s.w:outSize], s.in[s.pos:min(s.real, s.pos+s.left)])
		s.w += n
		s.pos += n
		s.left -= n
	}
	if s.left == 0 {
		s.step = (*state).block
	}
	return nil
}

type fixedCodes struct {
	lit  [litSize]uint32
	dist [distSize]uint32
}

// fixed are the codes of blocks that bring none.
var fixed = sync.OnceValue(func() *fixedCodes {
	var l [litCodes]uint8
	for i := range l {
		switch {
		case i < 144:
			l[i] = 8
		case i < 256:
			l[i] = 9
		case i < 280:
			l[i] = 7
		default:
			l[i] = 8
		}
	}
	var d [distCodes]uint8
	for i := range d {
		d[i] = 5
	}
	f := new(fixedCodes)
	if !build(f.lit[:], litRoot, l[:], litEntry) || !build(f.dist[:], distRoot, d[:], distEntry) {
		panic("the fixed codes of RFC 1951 are no codes")
	}
	double(&f.lit)
	return f
})

// codes reads the codes of a block.
func (s *state) codes() error {
	if err := s.need(); err != nil {
		return err
	}
	nlit, ndist, nlen := int(s.take(5))+257, int(s.take(5))+1, int(s.take(4))+4
	if nlit > 286 || ndist > 30 {
		return fmt.Errorf("%w: too many codes", ErrCorrupt)
	}
	var lens [lenCodes]uint8
	for _, at := range lenOrder[:nlen] {
		if err := s.need(); err != nil {
			return err
		}
		lens[at] = uint8(s.take(3))
	}
	if !build(s.lens[:], lenRoot, lens[:], lenEntry) {
		return fmt.Errorf("%w: the code of code lengths", ErrCorrupt)
	}
	all := s.lengths[:nlit+ndist]
	for i := 0; i < len(all); {
		if err := s.need(); err != nil {
			return err
		}
		e := s.lens[s.bits&(1<<lenRoot-1)]
		if e&flagOther != 0 {
			return fmt.Errorf("%w: a code length", ErrCorrupt)
		}
		s.take(uint(e & 0xff))
		sym := e >> 12
		if sym < 16 {
			all[i] = uint8(sym)
			i++
			continue
		}
		var v uint8
		var n int
		switch sym {
		case 16:
			if i == 0 {
				return fmt.Errorf("%w: a code length that repeats nothing", ErrCorrupt)
			}
			v, n = all[i-1], int(s.take(2))+3
		case 17:
			n = int(s.take(3)) + 3
		case 18:
			n = int(s.take(7)) + 11
		}
		if i+n > len(all) {
			return fmt.Errorf("%w: too many code lengths", ErrCorrupt)
		}
		for range n {
			all[i] = v
			i++
		}
	}
	if !build(s.lit[:], litRoot, all[:nlit], litEntry) || !build(s.dist[:], distRoot, all[nlit:], distEntry) {
		return fmt.Errorf("%w: a block's codes", ErrCorrupt)
	}
	double(&s.lit)
	return nil
}
