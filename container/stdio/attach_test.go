package stdio

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// fakeContainer is a running container as attach sees it: output that can be followed, a stdin pipe that the shim reads.
type fakeContainer struct {
	mu     sync.Mutex
	subs   map[int][2]io.Writer
	next   int
	done   chan struct{}
	sizes  []Size
	closed int
	shim   *os.File // the shim's own write end of stdin
}

func newFakeContainer() *fakeContainer {
	return &fakeContainer{subs: map[int][2]io.Writer{}, done: make(chan struct{})}
}

func (c *fakeContainer) Subscribe(stdout, stderr io.Writer) (func(), <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.next
	c.next++
	c.subs[n] = [2]io.Writer{stdout, stderr}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.subs, n)
	}, c.done
}

func (c *fakeContainer) watchers() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.subs)
}

func (c *fakeContainer) says(stream int, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.subs {
		if s[stream] != nil {
			_, _ = s[stream].Write([]byte(text))
		}
	}
}

func (c *fakeContainer) ResizePty(_ context.Context, _, _ string, w, h uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sizes = append(c.sizes, Size{uint16(w), uint16(h)})
	return nil
}

func (c *fakeContainer) CloseStdin(context.Context, string, string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed++
	if c.shim != nil {
		c.shim.Close()
	}
	return nil
}

// stdinOf makes a container's stdin with the shim's two ends open, and returns the shim's read end.
func stdinOf(t *testing.T, c *fakeContainer, once, tty bool) (*Stdin, *os.File) {
	t.Helper()
	in := NewStdin(filepath.Join(t.TempDir(), "stdin"), once, tty)
	for range 2 { // twice: idempotent
		if err := in.Make(); err != nil {
			t.Fatal(err)
		}
	}
	r, err := openReader(in.Path())
	if err != nil {
		t.Fatal(err)
	}
	if c.shim, err = os.OpenFile(in.Path(), os.O_WRONLY|unix.O_NONBLOCK, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); c.shim.Close() })
	return in, r
}

func attach(ctx context.Context, c *fakeContainer, in *Stdin, req AttachRequest) <-chan error {
	result := make(chan error, 1)
	go func() { result <- Attach(ctx, c, "c1", c, in, req) }()
	return result
}

func TestAttachShowsOutputUntilTheContainerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeContainer()
		var out, errOut Capped
		result := attach(t.Context(), c, nil, AttachRequest{Stdout: &out, Stderr: &errOut})
		synctest.Wait()
		c.says(0, "o")
		c.says(1, "e")
		close(c.done)
		if err := <-result; err != nil {
			t.Error(err)
		}
		if string(out.Bytes()) != "o" || string(errOut.Bytes()) != "e" || c.watchers() != 0 {
			t.Errorf("got %q, %q, %d watchers left", out.Bytes(), errOut.Bytes(), c.watchers())
		}
	})
}

func TestAttachEndsWhenTheClientLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeContainer()
		ctx, leave := context.WithCancel(t.Context())
		result := attach(ctx, c, nil, AttachRequest{Stdout: io.Discard})
		synctest.Wait()
		leave()
		if err := <-result; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if c.watchers() != 0 {
			t.Error("still subscribed")
		}
	})
}

func TestAttachEndsWhenTheClientTakesNoMoreOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeContainer()
		gone := errors.New("broken pipe")
		result := attach(t.Context(), c, nil, AttachRequest{Stdout: writerFunc(func([]byte) (int, error) { return 0, gone })})
		synctest.Wait()
		c.says(0, "x")
		if err := <-result; !errors.Is(err, gone) {
			t.Errorf("got %v", err)
		}
	})
}

// What the fan-out still has in hand when the client has left does not reach the client's writer any more.
func TestAttachWritesNothingAfterItsReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeContainer()
		var out Capped
		ctx, leave := context.WithCancel(t.Context())
		result := attach(ctx, c, nil, AttachRequest{Stdout: &out})
		synctest.Wait()
		late := c.subs[0][0]
		leave()
		<-result
		if _, err := late.Write([]byte("late")); err == nil || len(out.Bytes()) != 0 {
			t.Errorf("got %v, %q", err, out.Bytes())
		}
	})
}

func TestAttachOfATerminalHasOneStreamAndPassesSizes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeContainer()
		sizes := make(chan Size)
		var errOut Capped
		result := attach(t.Context(), c, nil, AttachRequest{TTY: true, Stdout: io.Discard, Stderr: &errOut, Resize: sizes})
		sizes <- Size{132, 43}
		synctest.Wait()
		c.says(1, "never")
		close(c.done)
		<-result
		if len(errOut.Bytes()) != 0 || len(c.sizes) != 1 || c.sizes[0] != (Size{132, 43}) {
			t.Errorf("got %q on stderr, sizes %v", errOut.Bytes(), c.sizes)
		}
	})
}

// stdin_once: the first client's EOF is the container's, and its output still arrives.
func TestAttachStdinOnceEndsTheContainersInput(t *testing.T) {
	c := newFakeContainer()
	in, shim := stdinOf(t, c, true, false)
	result := attach(t.Context(), c, in, AttachRequest{Stdin: strings.NewReader("line\n"), Stdout: io.Discard})
	if got, err := io.ReadAll(shim); string(got) != "line\n" || err != nil {
		t.Errorf("container read %q, %v", got, err)
	}
	select {
	case err := <-result:
		t.Errorf("attach ended with the input: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	// A second client may watch, its input goes nowhere.
	second := attach(t.Context(), c, in, AttachRequest{Stdin: strings.NewReader("too late"), Stdout: io.Discard})
	close(c.done)
	if err := errors.Join(<-result, <-second); err != nil {
		t.Error(err)
	}
	if c.closed != 1 {
		t.Errorf("stdin closed %d times", c.closed)
	}
}

// Without stdin_once the container's input stays open for the next client; the client whose input ends is detached.
func TestAttachStdinStaysOpenForTheNextClient(t *testing.T) {
	c := newFakeContainer()
	in, shim := stdinOf(t, c, false, false)
	for _, line := range []string{"one\n", "two\n"} {
		if err := <-attach(t.Context(), c, in, AttachRequest{Stdin: strings.NewReader(line), Stdout: io.Discard}); err != nil {
			t.Error(err)
		}
	}
	// After a restart of the daemon: a new Stdin on the old pipe.
	in = NewStdin(in.Path(), false, false)
	if err := <-attach(t.Context(), c, in, AttachRequest{Stdin: strings.NewReader("three\n")}); err != nil {
		t.Error(err)
	}
	got := make([]byte, 14)
	if _, err := io.ReadFull(shim, got); err != nil || string(got) != "one\ntwo\nthree\n" {
		t.Errorf("container read %q, %v", got, err)
	}
	if c.closed != 0 || len(in.open) != 0 {
		t.Errorf("stdin closed %d times, %d ends open", c.closed, len(in.open))
	}
}

// The shim has opened nothing after a restart: stdin had been closed before. Watching still works.
func TestAttachToAStdinThatNobodyReads(t *testing.T) {
	c := newFakeContainer()
	in := NewStdin(filepath.Join(t.TempDir(), "stdin"), true, false)
	if err := in.Make(); err != nil {
		t.Fatal(err)
	}
	result := attach(t.Context(), c, in, AttachRequest{Stdin: strings.NewReader("x")})
	select {
	case err := <-result:
		t.Errorf("ended: %v", err)
	case <-time.After(attachPatience + 200*time.Millisecond):
	}
	close(c.done)
	if err := <-result; err != nil {
		t.Error(err)
	}
}

// F95, CVE-2025-64329: clients that vanish, some of them while the container does not take their input.
func TestAttachClientsThatVanishLeaveNothingBehind(t *testing.T) {
	c := newFakeContainer()
	in, _ := stdinOf(t, c, false, false)
	files, routines := openFiles(t), runtime.NumGoroutine()
	for range 1000 {
		ctx, vanish := context.WithCancel(t.Context())
		conn, client := io.Pipe()
		sizes := make(chan Size)
		result := attach(ctx, c, in, AttachRequest{TTY: true, Stdin: conn, Stdout: io.Discard, Resize: sizes})
		sizes <- Size{80, 24}
		_, _ = client.Write(make([]byte, 100)) // soon the pipe is full
		vanish()
		if err := <-result; err == nil {
			t.Fatal("no error")
		}
	}
	eventually(t, "goroutines as before", func() bool { return runtime.NumGoroutine() <= routines })
	eventually(t, "files as before", func() bool { return openFiles(t) <= files })
	if c.watchers() != 0 {
		t.Errorf("%d subscriptions left", c.watchers())
	}
}

func TestResizeFloodCostsAsManyCallsAsTheShimAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		sizes := make(chan Size)
		var mu sync.Mutex
		var set []Size
		go followSizes(ctx, sizes, func(ctx context.Context, s Size) error {
			mu.Lock()
			set = append(set, s)
			mu.Unlock()
			time.Sleep(time.Second)
			return nil
		})
		for i := range 10000 {
			sizes <- Size{uint16(i), 1} // never waits for the shim
		}
		close(sizes)
		time.Sleep(10 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		if len(set) > 3 || set[len(set)-1].Width != 9999 {
			t.Errorf("got %d calls, the last %v; want few, the last of the newest size", len(set), set[len(set)-1])
		}
	})
}

func TestResizeOfAHungShimIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sizes := make(chan Size)
		var calls atomic.Int32
		go followSizes(t.Context(), sizes, func(ctx context.Context, s Size) error {
			calls.Add(1)
			<-ctx.Done()
			return ctx.Err()
		})
		sizes <- Size{1, 1}
		sizes <- Size{2, 2}
		time.Sleep(resizeTimeout + time.Second)
		if calls.Load() != 2 {
			t.Errorf("got %d calls; want the second after the first was given up", calls.Load())
		}
		close(sizes)
		time.Sleep(resizeTimeout)
	})
}

func TestMkfifoRefusesWhatIsNoFifo(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/dev/null", filepath.Join(dir, "stdin")); err != nil {
		t.Fatal(err)
	}
	if err := NewStdin(filepath.Join(dir, "stdin"), false, false).Make(); err == nil {
		t.Error("made a pipe of a symlink")
	}
}
