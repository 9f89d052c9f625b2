// Package field makes the errors that name a field of a CRI configuration, and
// holds the checks on strings that every field needs before it becomes a path,
// an argument or a key.
//
// It owns wording and checks of single values. It refuses to know CRI messages.
package field

import (
	"fmt"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/containerd/errdefs"
)

// MaxPath is the longest path the kernel takes, its final NUL included.
const MaxPath = 4096

// Invalid is an error about one field: "mounts[0].host_path: must be absolute".
// It wraps ErrInvalidArgument.
func Invalid(name, format string, args ...any) error {
	return fmt.Errorf("%s: %s: %w", name, fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument)
}

// Unsupported is an error about a field that asks for what this node lacks. It
// wraps ErrFailedPrecondition: the request is sound, the machine is not.
func Unsupported(name, format string, args ...any) error {
	return fmt.Errorf("%s: %s: %w", name, fmt.Sprintf(format, args...), errdefs.ErrFailedPrecondition)
}

// At is the name of an element of a list: "mounts[3]".
func At(name string, i int) string { return fmt.Sprintf("%s[%d]", name, i) }

// Key is the name of an entry of a map: `sysctls["net.x"]`.
func Key(name, key string) string { return fmt.Sprintf("%s[%q]", name, Short(key)) }

// Short cuts what a user sent to a length fit for an error message.
func Short(s string) string {
	const most = 128
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// Line refuses text that cannot stand on one line of a file or in an argument:
// NUL, CR and LF, and more than limit bytes.
func Line(name, value string, limit int) error {
	switch {
	case len(value) > limit:
		return Invalid(name, "is %d bytes long, at most %d are taken", len(value), limit)
	case strings.ContainsAny(value, "\x00\r\n"):
		return Invalid(name, "must not contain NUL or line breaks, got %q", Short(value))
	case !utf8.ValidString(value):
		return Invalid(name, "must be UTF-8, got %q", Short(value))
	}
	return nil
}

// AbsPath checks a path that must be absolute and returns it cleaned. With
// allowUp false a ".." element is refused, since on the host its meaning would
// hang on symbolic links that may change.
func AbsPath(name, value string, allowUp bool) (string, error) {
	switch {
	case value == "":
		return "", Invalid(name, "must not be empty")
	case len(value) >= MaxPath:
		return "", Invalid(name, "is %d bytes long, a path has at most %d", len(value), MaxPath-1)
	case strings.ContainsRune(value, 0) || !utf8.ValidString(value):
		return "", Invalid(name, "must be UTF-8 without NUL, got %q", Short(value))
	case value[0] != '/':
		return "", Invalid(name, "must be an absolute path, got %q", Short(value))
	case !allowUp && HasUp(value):
		return "", Invalid(name, `must not contain "..", got %q`, Short(value))
	}
	return path.Clean(value), nil
}

// HasUp tells whether a path has a ".." element.
func HasUp(p string) bool {
	for e := range strings.SplitSeq(p, "/") {
		if e == ".." {
			return true
		}
	}
	return false
}
