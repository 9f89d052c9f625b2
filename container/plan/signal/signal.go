package signal

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// The real-time range as applications see it: glibc and musl keep the kernel's
// first two (32, 33) to themselves.
const (
	rtMin = 34
	rtMax = 64
)

// Default is sent where neither the configuration nor the image names a signal.
const Default = unix.SIGTERM

// aliases are names that CRI or POSIX know beside the one unix.SignalName gives.
var aliases = map[string]syscall.Signal{
	"SIGIOT":  unix.SIGIOT,
	"SIGCLD":  unix.SIGCLD,
	"SIGPOLL": unix.SIGPOLL,
}

// Parse returns the signal that s names: a number from 1 to 64, or a name with
// or without "SIG", in any case, where the real-time ones are RTMIN, RTMIN+n,
// RTMAX-n and RTMAX. Everything else, spaces and signs included, is refused
// with ErrInvalidArgument: s may come from an image.
func Parse(s string) (syscall.Signal, error) {
	if n, ok := number(s); ok {
		if n < 1 || n > rtMax {
			return 0, invalid(s)
		}
		return syscall.Signal(n), nil
	}
	if len(s) > 16 {
		return 0, invalid(s[:16] + "…")
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if sig, ok := aliases[name]; ok {
		return sig, nil
	}
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	if rest, ok := strings.CutPrefix(name, "SIGRTMIN"); ok {
		if n, ok := offset(rest, "+"); ok {
			return syscall.Signal(rtMin + n), nil
		}
	}
	if rest, ok := strings.CutPrefix(name, "SIGRTMAX"); ok {
		if n, ok := offset(rest, "-"); ok {
			return syscall.Signal(rtMax - n), nil
		}
	}
	return 0, invalid(s)
}

// Name returns the name of a signal as CRI spells it: "SIGTERM", "SIGRTMIN+3",
// "SIGRTMAX-2". A number that is no signal an application may use gives "".
func Name(sig syscall.Signal) string {
	switch {
	case sig == rtMin:
		return "SIGRTMIN"
	case sig > rtMin && sig <= rtMin+15:
		return "SIGRTMIN+" + strconv.Itoa(int(sig)-rtMin)
	case sig == rtMax:
		return "SIGRTMAX"
	case sig > rtMin+15 && sig < rtMax:
		return "SIGRTMAX-" + strconv.Itoa(rtMax-int(sig))
	default:
		return unix.SignalName(sig)
	}
}

// number reads a plain decimal number: digits only, no sign, no leading zero.
func number(s string) (int, bool) {
	if s == "" || len(s) > 9 || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	return n, err == nil && s[0] != '0'
}

// offset reads what follows RTMIN or RTMAX: nothing, or sign and number within
// the real-time range.
func offset(s, sign string) (int, bool) {
	if s == "" {
		return 0, true
	}
	digits, ok := strings.CutPrefix(s, sign)
	if !ok {
		return 0, false
	}
	n, ok := number(digits)
	return n, ok && n <= rtMax-rtMin
}

func invalid(s string) error {
	return fmt.Errorf("parse stop signal %q: not a signal name or number: %w", s, errdefs.ErrInvalidArgument)
}
