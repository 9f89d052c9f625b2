//go:build failpoints

package failpoint

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Env names the environment variable with the folder in which points are armed. Without it they do nothing.
const Env = "CRID_FAILPOINTS"

// ErrInjected is what a point that was told to fail answers.
var ErrInjected = errors.New("injected at a failpoint")

// longest bounds a hang: a test that forgets to release one must not keep the daemon for ever.
const longest = 5 * time.Minute

// underWay is how long after a moment of sending the daemon dies: what was sent has arrived by then, and is rarely answered.
const underWay = 8 * time.Millisecond

// At is a moment in which the daemon's work may fail: it answers nil unless a test has armed it to fail.
func At(name string) error { return at(name, die) }

// Sending is the moment just after the request or answer that comes next has been sent: told to kill, it lets that happen and dies a moment
// later, from the side. Everything else happens before the sending.
func Sending(name string) error {
	return at(name, func() { time.AfterFunc(underWay, die) })
}

func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // not a step further
}

func at(name string, kill func()) error {
	dir := os.Getenv(Env)
	if dir == "" {
		return nil
	}
	note(dir, name)
	armed := filepath.Join(dir, name)
	text, err := os.ReadFile(armed)
	if err != nil || os.Rename(armed, armed+".reached") != nil {
		return nil //nolint:nilerr // not armed, or somebody else passed here at the same moment
	}
	action, how, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	switch action {
	case "kill":
		kill()
	case "error":
		return fmt.Errorf("%s: %w", name, ErrInjected)
	case "hang":
		for end := time.Now().Add(longest); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
			if os.Remove(armed+".release") == nil {
				break
			}
		}
	case "sleep":
		d, _ := time.ParseDuration(how)
		time.Sleep(min(d, longest))
	}
	return nil
}

// Pass is a moment in which nothing may fail.
func Pass(name string) { _ = At(name) }

func note(dir, name string) {
	f, err := os.OpenFile(filepath.Join(dir, "passed"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return // nobody wants to know
	}
	defer f.Close()
	_, _ = f.WriteString(name + "\n")
}
