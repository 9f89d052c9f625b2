package shimclient

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func openTestLog(t *testing.T) (*shimLog, *lines, *os.File) {
	t.Helper()
	var out lines
	path := filepath.Join(t.TempDir(), "log")
	l, err := openShimLog(path, slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	// As the shim does; it must not block.
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return l, &out, f
}

func TestLastWordsOfAShimAreRead(t *testing.T) {
	l, out, f := openTestLog(t)
	fmt.Fprintln(f, `time="x" level=error msg="first"`)
	fmt.Fprint(f, "panic: no newline at the end")
	f.Close()
	l.Finish()
	l.Finish()
	if s := out.text(); !strings.Contains(s, "level=ERROR") || !strings.Contains(s, "first") || !strings.Contains(s, "panic: no newline") {
		t.Fatal(s)
	}
}

func TestLogLinesAreBounded(t *testing.T) {
	l, out, f := openTestLog(t)
	fmt.Fprintln(f, strings.Repeat("x", 100_000))
	fmt.Fprintln(f, "after")
	l.Finish()
	s := out.text()
	if !strings.Contains(s, "after") || strings.Count(s, "x") > maxLogLine+10 || len(strings.Split(strings.TrimSpace(s), "\n")) != 2 {
		t.Fatalf("%d bytes: %.200s", len(s), s)
	}
}

func TestChattyShimDoesNotFillTheDisk(t *testing.T) {
	l, out, f := openTestLog(t)
	for i := range 20_000 {
		fmt.Fprintln(f, "again", i)
	}
	l.Finish()
	if n := strings.Count(out.text(), "again"); n < logBurst || n > 2*logBurst {
		t.Fatalf("%d lines", n)
	}
}

func TestLogOfAFloodingShimCanBeClosed(t *testing.T) {
	l, _, f := openTestLog(t)
	var flood sync.WaitGroup
	defer flood.Wait()
	unix.SetNonblock(int(f.Fd()), true)
	stop := make(chan struct{})
	defer close(stop)
	flood.Go(func() {
		line := bytes.Repeat([]byte("y\n"), 4096)
		for {
			select {
			case <-stop:
				return
			default:
				f.Write(line)
			}
		}
	})
	time.Sleep(20 * time.Millisecond)
	began := time.Now()
	l.Finish()
	if took := time.Since(began); took > 5*time.Second {
		t.Fatalf("took %v", took)
	}
}

func TestLogIsAFifoOrNothing(t *testing.T) {
	dir := t.TempDir()
	for name, create := range map[string]func(string) error{
		"link": func(p string) error { return os.Symlink("/dev/null", p) },
		"file": func(p string) error { return os.WriteFile(p, nil, 0o600) },
	} {
		path := filepath.Join(dir, name)
		if err := create(path); err != nil {
			t.Fatal(err)
		}
		if l, err := openShimLog(path, slog.Default()); err == nil {
			l.Close()
			t.Errorf("%s was taken for a shim's log", name)
		}
	}
}
