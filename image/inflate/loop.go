package inflate

import (
	"encoding/binary"
	"fmt"
)

// compressed decodes a block while there is input and room; it is called again
// for the rest. What it needs is kept in local variables (registers).
func (s *state) compressed() error {
	le := binary.LittleEndian
	bits, nbits, w, pos := s.bits, s.nbits, s.w, s.pos
	var err error
loop:
	for w < outSize {
		if s.end-pos < inSlack {
			s.pos = pos
			if ok := s.fill(); !ok {
				err = s.ended()
				break
			}
			pos = s.pos
		}
		bits |= le.Uint64(s.in[pos:pos+8:len(s.in)]) << (nbits & 63)
		pos += int((63 - nbits) >> 3)
		nbits |= 56
		e := s.lit[bits&(1<<litRoot-1)]
		// Four look-ups take 44 of the 56 bits at most, as a literal's code in
		// the first part of the table is not longer than its 11.
		if e&flagLit != 0 {
			for range 3 {
				le.PutUint16(s.out[w:], uint16(e>>8))
				w += int(e >> 24 & 3)
				bits >>= e & 63
				nbits -= uint(e & 63)
				if e = s.lit[bits&(1<<litRoot-1)]; e&flagLit == 0 {
					break
				}
			}
			if e&flagLit != 0 {
				le.PutUint16(s.out[w:], uint16(e>>8))
				w += int(e >> 24 & 3)
				bits >>= e & 63
				nbits -= uint(e & 63)
				continue
			}
			bits |= le.Uint64(s.in[pos:pos+8:len(s.in)]) << (nbits & 63)
			pos += int((63 - nbits) >> 3)
			nbits |= 56
		}
		if e&flagOther != 0 {
			if e&flagSub != 0 {
				bits >>= litRoot
				nbits -= litRoot
				e = s.lit[(e>>8&0xffff+uint32(bits&(1<<litSub-1)))%litSize]
				if e&flagLit != 0 {
					s.out[w] = byte(e >> 8)
					w++
					bits >>= e & 63
					nbits -= uint(e & 63)
					continue
				}
			}
			if e&flagOther != 0 {
				bits >>= e & 63
				nbits -= uint(e & 63)
				if e&endOfBlock == 0 {
					err = fmt.Errorf("%w: no such symbol", ErrCorrupt)
				}
				s.step = (*state).block
				break loop
			}
		}
		// A length: code and extra bits, then the distance's, 48 bits at most.
		bits >>= e & 63
		nbits -= uint(e & 63)
		extra := e >> 8 & 15
		length := int(e>>12) + int(bits&(1<<extra-1))
		bits >>= extra
		nbits -= uint(extra)
		e = s.dist[bits&(1<<distRoot-1)]
		if e&flagSub != 0 {
			bits >>= distRoot
			nbits -= distRoot
			e = s.dist[(e>>8&0xffff+uint32(bits&(1<<distSub-1)))%distSize]
		}
		if e&flagOther != 0 {
			err = fmt.Errorf("%w: no such distance", ErrCorrupt)
			break
		}
		bits >>= e & 63
		nbits -= uint(e & 63)
		extra = e >> 8 & 15
		distance := int(e>>12) + int(bits&(1<<extra-1))
		bits >>= extra
		nbits -= uint(extra)
		if distance > w-s.base {
			err = fmt.Errorf("%w: a match begins before the stream", ErrCorrupt)
			break
		}
		s.repeat(w, distance, length)
		w += length
	}
	s.bits, s.nbits, s.w, s.pos = bits, nbits, w, pos
	return err
}

// repeat writes length bytes at w that are those from distance before it,
// which may be some that it writes. It may write a few bytes more.
func (s *state) repeat(w, distance, length int) {
	le := binary.LittleEndian
	from := w - distance
	if length <= 32 && distance >= 8 {
		for i := 0; i < length; i += 8 {
			le.PutUint64(s.out[w+i:], le.Uint64(s.out[from+i:]))
		}
		return
	}
	// What has been written is a source too: each copy doubles it.
	for done := 0; done < length; {
		done += copy(s.out[w+done:w+length], s.out[from:w+done])
	}
}
