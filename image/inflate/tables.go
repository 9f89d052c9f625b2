package inflate

import "math/bits"

// Codes are looked up by the next bits of input: by rootBits of them in the
// first part of a table, and where a code is longer, by the bits that follow
// in a second part of fixed size.
const (
	maxBits = 15 // longest code

	litRoot  = 11
	litSub   = maxBits - litRoot
	litCodes = 288
	// A second part holds two codes at least (codes are complete), so there
	// are at most half as many of them as there are codes.
	litSize = 1<<litRoot + litCodes/2<<litSub

	distRoot  = 9
	distSub   = maxBits - distRoot
	distCodes = 32
	distSize  = 1<<distRoot + distCodes/2<<distSub

	lenRoot  = 7 // codes of code lengths are never longer
	lenCodes = 19
)

// An entry of a table says how many bits to take in its low byte, and:
//
//	literal: flagLit, how many bytes (1, 2) in bits 24 and 25, the bytes in bits 8 to 23
//	length, distance: extra bits in bits 8 to 11, base value in bits 12 to 27
//	else: flagOther, and endOfBlock, or where a second part begins in bits 8 to 23, or 0: no such code
const (
	flagLit    = 1 << 31
	flagOther  = 1 << 30
	endOfBlock = 1 << 29
	flagSub    = 1 << 28
)

var (
	lengthBase  = [29]uint16{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthExtra = [29]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	distBase    = [30]uint16{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577}
	distExtra   = [30]uint8{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}
	lenOrder    = [lenCodes]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
)

// litEntry is what a literal or length symbol means, without its code's length.
func litEntry(sym int) uint32 {
	switch {
	case sym < 256:
		return flagLit | 1<<24 | uint32(sym)<<8
	case sym == 256:
		return flagOther | endOfBlock
	case sym < 257+len(lengthBase):
		return uint32(lengthExtra[sym-257])<<8 | uint32(lengthBase[sym-257])<<12
	}
	return flagOther
}

func distEntry(sym int) uint32 {
	if sym < len(distBase) {
		return uint32(distExtra[sym])<<8 | uint32(distBase[sym])<<12
	}
	return flagOther
}

func lenEntry(sym int) uint32 { return uint32(sym) << 12 }

// build fills a table from the lengths of the codes. It answers false for
// lengths that make no prefix code. As in other readers an incomplete code is
// refused, except for none at all and for a single one of one bit.
func build(table []uint32, root int, lengths []uint8, entry func(int) uint32) bool {
	var count [maxBits + 1]int
	for _, l := range lengths {
		count[l]++
	}
	used, left := len(lengths)-count[0], 1
	var next [maxBits + 2]uint16
	for l := 1; l <= maxBits; l++ {
		left = left<<1 - count[l]
		if left < 0 {
			return false
		}
		next[l+1] = (next[l] + uint16(count[l])) << 1
	}
	if left > 0 {
		if used > 1 || (used == 1 && count[1] != 1) {
			return false
		}
		for i := range table[:1<<root] {
			table[i] = flagOther
		}
	}
	sub := maxBits - root
	end := 1 << root
	clear(table[end:])
	var firsts [1 << litRoot / 64]uint64 // which entries lead to a second part already
	for sym, l := range lengths {
		if l == 0 {
			continue
		}
		code := int(bits.Reverse16(next[l]) >> (16 - l))
		next[l]++
		e := entry(sym)
		if int(l) <= root {
			for i := code; i < 1<<root; i += 1 << l {
				table[i] = e | uint32(l)
			}
			continue
		}
		low := code & (1<<root - 1)
		if firsts[low/64]>>(low%64)&1 == 0 {
			firsts[low/64] |= 1 << (low % 64)
			if end+1<<sub > len(table) {
				return false
			}
			table[low] = flagOther | flagSub | uint32(end)<<8 | uint32(root)
			end += 1 << sub
		}
		at := int(table[low]>>8) & 0xffff
		for i := code >> root; i < 1<<sub; i += 1 << (int(l) - root) {
			table[at+i] = e | uint32(int(l)-root)
		}
	}
	return true
}

// double lets an entry yield two literals where both codes fit into the root's bits.
func double(table *[litSize]uint32) {
	for i := 1<<litRoot - 1; i >= 0; i-- {
		// The entry that follows has a smaller index (the bits that are left), so it is still single: going down.
		e := table[i]
		if e&flagLit == 0 {
			continue
		}
		n := e & 0xff
		f := table[i>>n]
		if m := f & 0xff; f&flagLit != 0 && n+m <= litRoot {
			table[i] = flagLit | 2<<24 | (f>>8&0xff)<<16 | e&0xff00 | (n + m)
		}
	}
}
