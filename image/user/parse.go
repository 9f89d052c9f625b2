package user

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// MaxID is the largest id that is taken: above it ids turn negative in
// programs that keep them in an int (CVE-2024-40635).
const MaxID = math.MaxInt32

// maxName is the longest name of a user or group that is looked up.
const maxName = 256

// ref is one side of a USER string: an id, or a name to look up. Both unset
// means that the side was not given.
type ref struct {
	id   *uint32
	name string
}

func (r ref) unset() bool { return r.id == nil && r.name == "" }

// parseUser splits a USER string: "", "user", "user:group", each side an id or
// a name.
func parseUser(s string) (user, group ref, err error) {
	u, g, both := strings.Cut(s, ":")
	if both && (u == "" || g == "") {
		return ref{}, ref{}, invalid(s, "has an empty user or group")
	}
	if user, err = parseRef(s, u); err != nil {
		return ref{}, ref{}, err
	}
	group, err = parseRef(s, g)
	return user, group, err
}

// parseRef decides between id and name by the text alone, never by whether a
// lookup succeeds: a number that does not fit must not become root by way of a
// passwd entry of that name (CVE-2026-46680). So whatever begins like a number,
// a sign or a space is refused unless it is a plain id.
func parseRef(whole, s string) (ref, error) {
	switch {
	case s == "":
		return ref{}, nil
	case len(s) > maxName:
		return ref{}, invalid(whole, "is too long")
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == ':' || r == '/' || r == 0xfffd }):
		return ref{}, invalid(whole, "contains spaces, control characters or slashes")
	}
	if c := s[0]; c == '+' || c == '-' {
		return ref{}, invalid(whole, "an id has no sign, and no name begins with one")
	}
	if s[0] < '0' || s[0] > '9' {
		return ref{name: s}, nil
	}
	if strings.Trim(s, "0123456789") != "" {
		// "0x0" and the like; useradd makes no names that begin with a digit
		// and are close to a number, but "3proxy" is one.
		if looksNumeric(s) {
			return ref{}, invalid(whole, "is neither a decimal id nor a name")
		}
		return ref{name: s}, nil
	}
	id, err := strconv.ParseUint(s, 10, 64)
	if err != nil || id > MaxID {
		return ref{}, invalid(whole, fmt.Sprintf("an id is from 0 to %d", MaxID))
	}
	v := uint32(id)
	return ref{id: &v}, nil
}

// looksNumeric tells whether some reader of numbers might take s for one:
// other bases, exponents, separators, fractions.
func looksNumeric(s string) bool {
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return true
	}
	if _, err := strconv.ParseInt(s, 0, 64); err == nil {
		return true
	}
	lower := strings.ToLower(s)
	for _, base := range []struct{ prefix, digits string }{
		{"0x", "0123456789abcdef_"}, {"0o", "01234567_"}, {"0b", "01_"}, {"", "0123456789_.,e+-"},
	} {
		if rest, ok := strings.CutPrefix(lower, base.prefix); ok && strings.Trim(rest, base.digits) == "" {
			return true
		}
	}
	return false
}

func invalid(s, why string) error {
	const most = 64
	if len(s) > most {
		s = s[:most] + "…"
	}
	return fmt.Errorf("resolve user %q: %s: %w", s, why, errdefs.ErrInvalidArgument)
}
