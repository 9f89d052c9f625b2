package cgroup

import (
	"bytes"
	"strconv"
)

// trim cuts white space at both ends.
func trim(b []byte) []byte { return bytes.TrimSpace(b) }

// parseUint reads an unsigned decimal without allocating. "max" and negative
// numbers are Unlimited, as are numbers too large.
func parseUint(b []byte) (uint64, bool) {
	if len(b) == 0 {
		return 0, false
	}
	if b[0] == '-' || string(b) == "max" {
		return Unlimited, true
	}
	var v uint64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		d := uint64(c - '0')
		if v > (Unlimited-d)/10 {
			return Unlimited, true
		}
		v = v*10 + d
	}
	return v, true
}

// eachLine calls fn for every line, without its end.
func eachLine(b []byte, fn func(line []byte)) {
	for len(b) > 0 {
		line := b
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			line, b = b[:i], b[i+1:]
		} else {
			b = nil
		}
		fn(line)
	}
}

// eachKey calls fn for the lines of a flat "key value" file.
func eachKey(b []byte, fn func(key []byte, v uint64)) {
	eachLine(b, func(line []byte) {
		i := bytes.IndexByte(line, ' ')
		if i < 0 {
			return
		}
		if v, ok := parseUint(trim(line[i+1:])); ok {
			fn(line[:i], v)
		}
	})
}

// word cuts the first word off a line.
func word(b []byte) (first, rest []byte) {
	b = bytes.TrimLeft(b, " \t")
	if i := bytes.IndexAny(b, " \t"); i >= 0 {
		return b[:i], b[i+1:]
	}
	return b, nil
}

// parseDevice reads "MAJOR:MINOR".
func parseDevice(b []byte) (major, minor uint64, ok bool) {
	i := bytes.IndexByte(b, ':')
	if i < 0 {
		return 0, 0, false
	}
	major, ok1 := parseUint(b[:i])
	minor, ok2 := parseUint(b[i+1:])
	return major, minor, ok1 && ok2
}

// parsePressure reads a pressure file (Documentation/accounting/psi.rst).
func parsePressure(b []byte, p *Pressure) {
	eachLine(b, func(line []byte) {
		kind, rest := word(line)
		var s *Stall
		switch string(kind) {
		case "some":
			s = &p.Some
		case "full":
			s = &p.Full
		default:
			return
		}
		for len(rest) > 0 {
			var f []byte
			f, rest = word(rest)
			i := bytes.IndexByte(f, '=')
			if i < 0 {
				continue
			}
			switch string(f[:i]) {
			case "avg10":
				s.Avg10 = parseFloat(f[i+1:])
			case "avg60":
				s.Avg60 = parseFloat(f[i+1:])
			case "avg300":
				s.Avg300 = parseFloat(f[i+1:])
			case "total":
				us, _ := parseUint(f[i+1:])
				s.TotalNanoseconds = us * 1000
			}
		}
	})
}

// parseFloat reads a percentage; 0 if it is none.
func parseFloat(b []byte) float64 {
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		return 0
	}
	return f
}
