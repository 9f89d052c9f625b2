package container

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/container/holder"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

// noConfig is a configuration that nobody opens.
type noConfig struct{}

func (noConfig) Marshal() ([]byte, error) { return nil, nil }

// shimEnds are what a shim has open of a container's output.
func shimEnds(t *testing.T, paths ...string) (say func(string), done func()) {
	t.Helper()
	var fds []int
	for _, path := range paths {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
	}
	say = func(text string) {
		for _, fd := range fds {
			if _, err := unix.Write(fd, []byte(text)); err != nil {
				t.Error(err)
			}
		}
	}
	return say, func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}
}

// TestLastWordsOfAContainerThatEndedWhileCridWasDown: the shim is through with its
// copying and has closed the pipes, and nobody of this process had them open.
func TestLastWordsOfAContainerThatEndedWhileCridWasDown(t *testing.T) {
	defer goleak.VerifyNone(t)
	dir := t.TempDir()
	defer func() {
		if err := holder.End(context.Background(), dir); err != nil {
			t.Error(err)
		}
	}()
	log := slog.New(slog.DiscardHandler)
	open := func([]byte) (store.Sealed, error) { return noConfig{}, nil }
	l, _, err := store.Open(store.Config{Dir: filepath.Join(dir, "ledger"), Boot: "boot", OpenPod: open, OpenContainer: open, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	id := strings.Repeat("a", 64)
	logPath := filepath.Join(dir, "pods", "0.log")
	v, isNew := l.AddContainer(&store.Container{ID: id, PodID: strings.Repeat("b", 64), Name: store.ContainerName{Name: "a"}, Config: noConfig{},
		LogPath: logPath, State: lifecycle.Container{Phase: lifecycle.Exited, Dirty: true}})
	if !isNew {
		t.Fatal("it is there already")
	}

	run := func() (*Containers, *holder.Holder) {
		h := holder.Open(t.Context(), dir, log)
		c := New(Config{Ledger: l, StateDir: filepath.Join(dir, "state"), MaxLogLine: 16 << 10, Holder: h, Log: log})
		return c, h
	}
	logged := func() string {
		b, err := os.ReadFile(logPath)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	end := func(c *Containers, h *holder.Holder) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		c.Close(ctx)
		h.Close()
	}

	c, h := run()
	c.KeepOutput()
	s, err := c.openStreams(v)
	if err != nil {
		t.Fatal(err)
	}
	say, done := shimEnds(t, s.outputs()...)
	say("first\n")
	for end := time.Now().Add(5 * time.Second); strings.Count(logged(), "first\n") != 2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the log while crid runs: %q", logged())
		}
	}
	end(c, h)
	say("last words\n")
	done()

	c, h = run()
	defer func() { end(c, h) }()
	c.KeepOutput()
	if held := h.Status().Held; held != 1 {
		t.Fatalf("output of %d containers is held after the restart (%v)", held, h.Status().Err)
	}
	c.finishStreams(v)
	for _, want := range []string{" stdout F first\n", " stderr F first\n", " stdout F last words\n", " stderr F last words\n"} {
		if n := strings.Count(logged(), want); n != 1 {
			t.Errorf("%q is %d times in the log, not once:\n%s", want, n, logged())
		}
	}
	if held := h.Status().Held; held != 0 {
		t.Errorf("output of %d containers is held for nobody", held)
	}
}

func TestOutputOfATerminalIsOnePipe(t *testing.T) {
	if got := (&streams{dir: "/io", tty: true}).outputs(); len(got) != 1 || got[0] != "/io/stdout" {
		t.Errorf("%q", got)
	}
	if got := (&streams{dir: "/io"}).outputs(); len(got) != 2 {
		t.Errorf("%q", got)
	}
}
