package stdio

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/crid-project/crid/shimclient"
)

func TestExecGivesOutputAndExitCode(t *testing.T) {
	for name, c := range map[string]struct {
		script, stdin, out, errOut string
		code                       int
	}{
		"both streams":             {script: "echo out; echo err >&2", out: "out\n", errOut: "err\n"},
		"exit code":                {script: "exit 42", code: 42},
		"killed by a signal":       {script: "kill -TERM $$", code: 143},
		"stdin to its end":         {script: "cat", stdin: "fed", out: "fed"},
		"empty stdin":              {script: "cat; echo done", out: "done\n"},
		"stdin nobody reads":       {script: "exit 3", stdin: strings.Repeat("x", 1<<20), code: 3},
		"stdin closed by process":  {script: "exec <&-; echo on", stdin: strings.Repeat("x", 1<<20), out: "on\n"},
		"more than the pipes hold": {script: "head -c 1000000 /dev/zero | tr '\\0' y", out: strings.Repeat("y", 1000000)},
	} {
		t.Run(name, func(t *testing.T) {
			s, dir := newFakeShim(t), filepath.Join(t.TempDir(), "not", "made", "yet")
			code, out, errOut, err := run(t.Context(), s, dir, c.script, ExecRequest{Stdin: strings.NewReader(c.stdin)})
			if err != nil || code != c.code || out != c.out || errOut != c.errOut {
				t.Errorf("got code %d, %d bytes out, %q err, %v; want code %d, %d bytes out, %q err", code, len(out), errOut, err, c.code, len(c.out), c.errOut)
			}
			eventually(t, "exec deleted", func() bool { return s.left() == 0 })
			eventually(t, "pipes removed", emptyDir(t, dir))
		})
	}
}

func TestExecStdinIsNotLostWhenTheShimOpensItLate(t *testing.T) {
	s := newFakeShim(t)
	s.slowStdin = 100 * time.Millisecond
	_, out, _, err := run(t.Context(), s, t.TempDir(), "cat", ExecRequest{Stdin: strings.NewReader("the last bytes")})
	if err != nil || out != "the last bytes" {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestExecWithoutWantedOutputMakesNoPipes(t *testing.T) {
	s := newFakeShim(t)
	code, err := Exec(t.Context(), s, "c1", sh("echo nobody; exit 7"), t.TempDir(), ExecRequest{})
	if err != nil || code != 7 {
		t.Errorf("got %d, %v", code, err)
	}
}

// F53, CVE-2026-53495: a child in the background keeps the pipe of an exec whose process has ended.
func TestExecReturnsThoughABackgroundChildKeepsThePipe(t *testing.T) {
	s := newFakeShim(t)
	s.deleteWait = 10 * time.Millisecond
	start := time.Now()
	code, out, _, err := run(t.Context(), s, t.TempDir(), "echo first; sleep 1000 & exit 5", ExecRequest{})
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("took %v, want under 2 s", took)
	}
	if code != 5 || out != "first\n" || err != nil {
		t.Errorf("got %d, %q, %v", code, out, err)
	}
	eventually(t, "exec deleted", func() bool { return s.left() == 0 })
}

// The same with a child that never stops writing: time spent reading its output must end too.
func TestExecReturnsThoughABackgroundChildKeepsWriting(t *testing.T) {
	s := newFakeShim(t)
	s.deleteWait = 10 * time.Millisecond
	var out Capped
	start := time.Now()
	code, _, _, err := run(t.Context(), s, t.TempDir(), "yes & exit 5", ExecRequest{Stdout: &out})
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("took %v, want under 2 s", took)
	}
	if code != 5 || err != nil || len(out.Bytes()) == 0 {
		t.Errorf("got %d, %v, %d bytes", code, err, len(out.Bytes()))
	}
}

func TestExecBackgroundChildrenLeaveNothingBehind(t *testing.T) {
	s := newFakeShim(t)
	s.deleteWait = time.Millisecond
	dir := t.TempDir()
	files, routines := openFiles(t), runtime.NumGoroutine()
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			if _, _, _, err := run(t.Context(), s, dir, "sleep 1000 &", ExecRequest{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	eventually(t, "execs deleted", func() bool { return s.left() == 0 })
	eventually(t, "goroutines as before", func() bool { return runtime.NumGoroutine() <= routines })
	eventually(t, "files as before", func() bool { return openFiles(t) <= files })
	eventually(t, "pipes removed", emptyDir(t, dir))
}

func TestExecTimeoutKillsTheProcess(t *testing.T) {
	s := newFakeShim(t)
	start := time.Now()
	_, _, _, err := run(t.Context(), s, t.TempDir(), "echo x; exec sleep 1000", ExecRequest{Timeout: 100 * time.Millisecond})
	if !errors.Is(err, context.DeadlineExceeded) || !errdefs.IsDeadlineExceeded(err) {
		t.Errorf("got %v, want DeadlineExceeded", err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("took %v", took)
	}
	eventually(t, "exec deleted", func() bool { return s.left() == 0 })
}

// The start takes effect in the shim long after the caller's timeout: the process must not live on unknown.
func TestExecTimeoutDuringTheStartStillKillsWhatStartsLater(t *testing.T) {
	s := newFakeShim(t)
	s.startBlocks = make(chan struct{})
	_, _, _, err := run(t.Context(), s, t.TempDir(), "exec sleep 1000", ExecRequest{Timeout: 20 * time.Millisecond})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want DeadlineExceeded", err)
	}
	time.AfterFunc(100*time.Millisecond, func() { close(s.startBlocks) })
	eventually(t, "late process killed and deleted", func() bool { return s.left() == 0 })
}

func TestExecClientLeavingKillsTheProcess(t *testing.T) {
	s := newFakeShim(t)
	ctx, leave := context.WithCancel(t.Context())
	r, w := io.Pipe()
	defer w.Close()
	time.AfterFunc(50*time.Millisecond, leave)
	_, _, _, err := run(ctx, s, t.TempDir(), "exec sleep 1000", ExecRequest{Stdin: r})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want Canceled", err)
	}
	eventually(t, "exec deleted", func() bool { return s.left() == 0 })
}

// A client that stops reading holds the process back, and when it leaves everything ends but its own Write.
func TestExecClientThatNeverReads(t *testing.T) {
	s := newFakeShim(t)
	ctx, leave := context.WithCancel(t.Context())
	r, w := io.Pipe() // nobody reads r
	time.AfterFunc(100*time.Millisecond, leave)
	start := time.Now()
	_, _, _, err := run(ctx, s, t.TempDir(), "exec yes", ExecRequest{Stdout: w})
	if !errors.Is(err, context.Canceled) || time.Since(start) > 3*time.Second {
		t.Errorf("got %v after %v, want Canceled", err, time.Since(start))
	}
	r.Close() // the connection goes
	eventually(t, "exec deleted", func() bool { return s.left() == 0 })
}

// Slow is not gone: what the process wrote before it ended arrives, though it takes longer than any drain time.
func TestExecSlowClientGetsEverything(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 3 s: a client slower than the drain time")
	}
	s := newFakeShim(t)
	s.deleteWait = 30 * time.Second
	var got bytes.Buffer
	slow := writerFunc(func(p []byte) (int, error) {
		time.Sleep(time.Duration(len(p)) * 20 * time.Microsecond)
		return got.Write(p)
	})
	_, _, _, err := run(t.Context(), s, t.TempDir(), "head -c 160000 /dev/zero", ExecRequest{Stdout: slow})
	if err != nil || got.Len() != 160000 {
		t.Errorf("got %d bytes, %v", got.Len(), err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestExecClientsThatVanishLeaveNothingBehind(t *testing.T) {
	n := 1000
	if testing.Short() {
		n = 50
	}
	s := newFakeShim(t)
	dir := t.TempDir()
	files, routines := openFiles(t), runtime.NumGoroutine()
	slots := make(chan struct{}, 16)
	var wg sync.WaitGroup
	for range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ctx, leave := context.WithTimeout(t.Context(), 5*time.Millisecond)
			defer leave()
			r, w := io.Pipe()
			defer w.Close()
			if _, _, _, err := run(ctx, s, dir, "exec sleep 1000", ExecRequest{Stdin: r}); err == nil {
				t.Error("no error")
			}
		})
	}
	wg.Wait()
	eventually(t, "execs deleted", func() bool { return s.left() == 0 })
	eventually(t, "goroutines as before", func() bool { return runtime.NumGoroutine() <= routines })
	eventually(t, "files as before", func() bool { return openFiles(t) <= files })
	eventually(t, "pipes removed", emptyDir(t, dir))
}

// CVE-2022-31030, F55: more output than anybody should keep.
func TestExecKeepsNoMoreThanTheCap(t *testing.T) {
	s := newFakeShim(t)
	out := Capped{Max: 1 << 20}
	code, _, _, err := run(t.Context(), s, t.TempDir(), "head -c 200000000 /dev/zero; exit 9", ExecRequest{Stdout: &out})
	if code != 9 || err != nil {
		t.Fatalf("got %d, %v", code, err)
	}
	if kept, dropped := len(out.Bytes()), out.Dropped(); kept != 1<<20 || dropped != 200000000-1<<20 || cap(out.kept) > 1<<20 {
		t.Errorf("kept %d (room for %d), dropped %d", kept, cap(out.kept), dropped)
	}
}

func TestExecRefusedByTheShimLeavesNothing(t *testing.T) {
	s, dir := &refusingShim{newFakeShim(t)}, t.TempDir()
	_, _, _, err := run(t.Context(), s, dir, "true", ExecRequest{})
	if !errdefs.IsNotFound(err) {
		t.Errorf("got %v, want NotFound", err)
	}
	if s.deletes != 0 {
		t.Error("deleted an exec that was never made")
	}
	eventually(t, "pipes removed", emptyDir(t, dir))
}

type refusingShim struct{ *fakeShim }

func (refusingShim) Exec(context.Context, shimclient.ExecSpec) error { return errdefs.ErrNotFound }

// CVE-2022-23471: a terminal exec of a command that does not exist, and a client that sends sizes.
func TestExecOfAMissingCommandEndsWithItsResizes(t *testing.T) {
	s, dir := newFakeShim(t), t.TempDir()
	routines := runtime.NumGoroutine()
	for range 100 {
		proc := sh("")
		proc.Args[0] = "/no/such/command"
		sizes := make(chan Size, 1)
		sizes <- Size{80, 24}
		if _, err := Exec(t.Context(), s, "c1", proc, dir, ExecRequest{TTY: true, Stdout: io.Discard, Resize: sizes}); err == nil {
			t.Fatal("no error")
		}
	}
	eventually(t, "execs deleted", func() bool { return s.left() == 0 })
	eventually(t, "goroutines as before", func() bool { return runtime.NumGoroutine() <= routines })
}

func TestExecTerminalHasOneStream(t *testing.T) {
	s := newFakeShim(t)
	_, out, errOut, err := run(t.Context(), s, t.TempDir(), "echo one", ExecRequest{TTY: true})
	if err != nil || out != "one\n" || errOut != "" {
		t.Errorf("got %q, %q, %v", out, errOut, err)
	}
}

func TestExecAfterTheCallerLeftDoesNothing(t *testing.T) {
	ctx, leave := context.WithCancel(t.Context())
	leave()
	s := newFakeShim(t)
	if _, _, _, err := run(ctx, s, t.TempDir(), "true", ExecRequest{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if s.deletes != 0 {
		t.Error("something was made")
	}
}

func BenchmarkExecPlumbing(b *testing.B) {
	s := &instantShim{}
	dir := b.TempDir()
	for b.Loop() {
		var out, errOut Capped
		if _, err := Exec(b.Context(), s, "c1", sh("true"), dir, ExecRequest{Stdout: &out, Stderr: &errOut, Timeout: time.Minute}); err != nil {
			b.Fatal(err)
		}
	}
}
