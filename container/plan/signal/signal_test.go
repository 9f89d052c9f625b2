package signal

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
)

func TestParse(t *testing.T) {
	for in, want := range map[string]syscall.Signal{
		"SIGTERM": 15, "TERM": 15, "term": 15, "sigterm": 15, "15": 15, "9": 9, "1": 1, "64": 64, "SIGKILL": 9, "SIGIOT": 6, "SIGCLD": 17,
		"SIGPOLL": 29, "SIGWINCH": 28, "SIGRTMIN": 34, "RTMIN": 34, "SIGRTMIN+3": 37, "RTMIN+15": 49, "SIGRTMAX": 64, "SIGRTMAX-14": 50, "rtmax-1": 63,
		"SIGRTMIN+30": 64, "SIGSTKFLT": 16, "SIGPWR": 30,
	} {
		if got, err := Parse(in); err != nil || got != want {
			t.Errorf("%q: got %d, %v", in, got, err)
		}
	}
	for _, in := range []string{
		"", "0", "-1", "+9", " 9", "9 ", "015", "65", "99999999999999999999", "SIG", "SIGFOO", "SIGRTMIN-1", "SIGRTMAX+1", "SIGRTMIN+31", "SIGRTMIN+",
		"SIGRTMIN++1", "SIGRTMIN+01", "SIGRTMIN1", "SIGTERM\n", "SIGSIGTERM", "9\x00", strings.Repeat("SIG", 1000), "٩",
	} {
		if got, err := Parse(in); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q: got %d, %v", in, got, err)
		}
	}
}

func TestNamesComeBack(t *testing.T) {
	for n := syscall.Signal(1); n <= 64; n++ {
		name := Name(n)
		if n == 32 || n == 33 {
			if name != "" {
				t.Errorf("%d is the C library's own, got %q", n, name)
			}
			continue
		}
		if got, err := Parse(name); err != nil || got != n {
			t.Errorf("%d is %q is %d, %v", n, name, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"SIGTERM", "15", "RTMIN+3", "SIGRTMAX-2", "-9", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := Parse(s); err == nil && (got < 1 || got > 64) {
			t.Errorf("%q is %d", s, got)
		}
	})
}
