package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func open(t testing.TB, path string, opts Options) *Log {
	t.Helper()
	l, err := Open(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func fifo(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "stdout")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// shim opens both ends, as the shim does: without a reader the writer waits.
func shim(t testing.TB, path string) (w *os.File, gone func()) {
	t.Helper()
	r, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	w, err = os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	gone = func() { once.Do(func() { w.Close(); r.Close() }) }
	t.Cleanup(gone)
	return w, gone
}

func follow(t testing.TB, l *Log, stream Stream, path string) *Tail {
	t.Helper()
	tail, err := l.Follow(stream, path)
	if err != nil {
		t.Fatal(err)
	}
	return tail
}

func within(t testing.TB, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		buf := make([]byte, 1<<16)
		t.Fatalf("%s: not within 20 s\n%s", what, buf[:runtime.Stack(buf, true)])
	}
}

type entry struct{ stream, tag, text string }

// entries parses a log as the kubelet does, and fails on a torn line.
func entries(t testing.TB, path string) (out []entry) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > 0 && data[len(data)-1] != '\n' {
		t.Errorf("%s ends in the middle of an entry: %q", path, data[max(0, len(data)-80):])
	}
	for line := range strings.Lines(string(data)) {
		m := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if len(m) != 4 || m[1] != "stdout" && m[1] != "stderr" || m[2] != "F" && m[2] != "P" {
			t.Fatalf("torn entry in %s: %.200q", path, line)
		}
		if _, err := time.Parse(time.RFC3339Nano, m[0]); err != nil {
			t.Fatal(err)
		}
		out = append(out, entry{m[1], m[2], m[3]})
	}
	return out
}

func texts(es []entry) (out []string) {
	for _, e := range es {
		out = append(out, e.text)
	}
	return out
}

func put(t testing.TB, w io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(w, s); err != nil {
		t.Fatal(err)
	}
}

func TestFormat(t *testing.T) {
	for name, c := range map[string]struct {
		opts   Options
		writes []string
		want   string
	}{
		"lines":                      {Options{}, []string{"a\nb\n"}, "F:a F:b"},
		"empty lines":                {Options{}, []string{"\n\n"}, "F: F:"},
		"a line in pieces":           {Options{}, []string{"he", "l", "lo\nwor", "ld\n"}, "F:hello F:world"},
		"no end":                     {Options{}, []string{"prompt$ "}, "P:prompt$ "},
		"exactly the maximum":        {Options{MaxLine: 4}, []string{"abcd\n"}, "F:abcd"},
		"the maximum and no end":     {Options{MaxLine: 4}, []string{"abcd"}, "P:abcd"},
		"one more":                   {Options{MaxLine: 4}, []string{"abcde\n"}, "P:abcd F:e"},
		"twice and a half":           {Options{MaxLine: 4}, []string{"abcdefghij\nk\n"}, "P:abcd P:efgh F:ij F:k"},
		"the maximum, then the end":  {Options{MaxLine: 4}, []string{"ab", "cd", "\n"}, "F:abcd"},
		"split over several reads":   {Options{MaxLine: 4}, []string{"ab", "cde", "fghi", "\n"}, "P:abcd P:efgh F:i"},
		"carriage returns stay":      {Options{}, []string{"a\r\n"}, "F:a\r"},
		"but those of a terminal":    {Options{TTY: true}, []string{"a\r\nb", "\r", "\n\r\n"}, "F:a F:b F:"},
		"bytes that are no text":     {Options{}, []string{"\x00\xff\n"}, "F:\x00\xff"},
		"a terminal's progress line": {Options{TTY: true}, []string{"1%\r2%\r\n"}, "F:1%\r2%"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "pod", "c", "0.log")
			l := open(t, path, c.opts)
			s := splitter{stream: Stderr, max: l.opts.MaxLine, stripCR: c.opts.TTY}
			b := l.take(&s, 100)
			for _, data := range c.writes {
				clean := len(b.text())
				b.endRead(copy(b.beginRead(len(data)), data))
				l.put(&s, b, &batch{}, clean)
			}
			l.putRest(&s, b, &batch{})
			var got []string
			for _, e := range entries(t, path) {
				if e.stream != "stderr" {
					t.Errorf("stream %q", e.stream)
				}
				got = append(got, e.tag+":"+e.text)
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("got %q, want %q", strings.Join(got, " "), c.want)
			}
			if n := l.Counters().Entries; n != uint64(len(got)) {
				t.Errorf("counted %d entries of %d", n, len(got))
			}
		})
	}
}

func TestFollowBothStreams(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	l := open(t, path, Options{})
	out, errs := fifo(t), fifo(t)
	// Following begins before the shim has opened its ends: not the end.
	a, b := follow(t, l, Stdout, out), follow(t, l, Stderr, errs)
	select {
	case <-a.Done():
		t.Fatal("ended before it began")
	case <-time.After(50 * time.Millisecond):
	}
	w1, gone1 := shim(t, out)
	w2, gone2 := shim(t, errs)
	for i := range 1000 {
		put(t, w1, fmt.Sprintf("out %d\n", i))
		put(t, w2, fmt.Sprintf("err %d\n", i))
	}
	put(t, w1, "last words")
	gone1()
	gone2()
	within(t, "stdout", a.Done())
	within(t, "stderr", b.Done())
	next := map[string]int{}
	for _, e := range entries(t, path) {
		if e.tag == "P" {
			if e.text != "last words" {
				t.Errorf("%+v", e)
			}
			continue
		}
		if want := fmt.Sprintf("%s %d", e.stream[3:], next[e.stream]); e.text != want {
			t.Fatalf("%q, want %q", e.text, want)
		}
		next[e.stream]++
	}
	if next["stdout"] != 1000 || next["stderr"] != 1000 {
		t.Errorf("%v", next)
	}
}

// F68: the daemon is away while the container writes, and comes back.
func TestFollowAgainAfterARestart(t *testing.T) {
	path, in := filepath.Join(t.TempDir(), "0.log"), fifo(t)
	w, gone := shim(t, in)
	first := open(t, path, Options{})
	tail := follow(t, first, Stdout, in)
	put(t, w, "one\ntwo, be")
	for first.Counters().Entries == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := tail.Close(); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	written := make(chan struct{})
	go func() { // more than the fifo holds: waits, loses nothing
		defer close(written)
		put(t, w, "gun before\n")
		for i := range 20000 {
			put(t, w, fmt.Sprintf("line %d\n", i))
		}
	}()
	time.Sleep(20 * time.Millisecond)
	second := open(t, path, Options{})
	tail = follow(t, second, Stdout, in)
	within(t, "the container", written)
	gone()
	within(t, "the end", tail.Done())
	es := entries(t, path)
	if got := es[1].tag + es[1].text + es[2].tag + es[2].text; got != "Ptwo, beFgun before" {
		t.Errorf("the line that the restart cut: %q", got)
	}
	if len(es) != 20003 || es[20002].text != "line 19999" {
		t.Errorf("%d entries, last %+v", len(es), es[len(es)-1])
	}
}

func TestDrain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	l := open(t, path, Options{})
	t.Run("the writer died while nobody followed", func(t *testing.T) {
		tail := follow(t, l, Stdout, fifo(t))
		if err := tail.Drain(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("everything is in the file", func(t *testing.T) {
		in := fifo(t)
		w, gone := shim(t, in)
		tail := follow(t, l, Stdout, in)
		put(t, w, strings.Repeat("x\n", 20000))
		gone()
		if err := tail.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		if n := len(entries(t, path)); n != 20000 {
			t.Errorf("%d entries", n)
		}
	})
	t.Run("a grandchild holds the output", func(t *testing.T) {
		in := fifo(t)
		w, _ := shim(t, in)
		tail := follow(t, l, Stdout, in)
		put(t, w, "before the exit\n")
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := tail.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		within(t, "the tail", tail.Done())
		es := entries(t, path)
		if es[len(es)-1].text != "before the exit" {
			t.Error("output from before the exit is missing")
		}
	})
}

func TestOnlyRegularFiles(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, place := range map[string]func(string) error{
		"symlink":          func(p string) error { return os.Symlink(secret, p) },
		"dangling symlink": func(p string) error { return os.Symlink(secret+"2", p) },
		"fifo":             func(p string) error { return unix.Mkfifo(p, 0o600) },
		"directory":        func(p string) error { return os.Mkdir(p, 0o700) },
	} {
		path := filepath.Join(dir, name)
		l := open(t, path, Options{})
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := place(path); err != nil {
			t.Fatal(err)
		}
		if err := l.Reopen(); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("reopen %s: %v", name, err)
		}
		if _, err := Open(path, Options{}); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("open %s: %v", name, err)
		}
		// The old file goes on.
		b := &batch{}
		b.begin(Stdout, time.Now())
		b.entry('F', []byte("x"))
		l.append(b, nil, 0)
		if l.Counters().Entries != 1 {
			t.Errorf("after a refused reopen of a %s the log is dead", name)
		}
	}
	if data, _ := os.ReadFile(secret); string(data) != "s" {
		t.Error("the symlink was followed")
	}
	if _, err := Open("relative", Options{}); !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
	l := open(t, "", Options{})
	if _, err := l.Follow(Stdout, secret); !errdefs.IsInvalidArgument(err) {
		t.Errorf("followed a regular file: %v", err)
	}
	if err := l.Reopen(); err != nil {
		t.Error(err)
	}
}

// F67.
func TestRotationUnderLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "0.log")
	l := open(t, path, Options{})
	out, errs := fifo(t), fifo(t)
	w1, gone1 := shim(t, out)
	w2, gone2 := shim(t, errs)
	a, b := follow(t, l, Stdout, out), follow(t, l, Stderr, errs)
	stop := make(chan struct{})
	var writers sync.WaitGroup
	var counts [2]int
	for i, w := range []*os.File{w1, w2} {
		writers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				put(t, w, fmt.Sprintf("%d %s\n", counts[i], strings.Repeat("x", counts[i]%200)))
				counts[i]++
			}
		})
	}
	rotations := 300
	for i := range rotations {
		if err := os.Rename(path, fmt.Sprintf("%s.%04d", path, i)); err != nil {
			t.Fatal(err)
		}
		if err := l.Reopen(); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	writers.Wait()
	gone1()
	gone2()
	within(t, "stdout", a.Done())
	within(t, "stderr", b.Done())
	files, _ := filepath.Glob(path + ".*") // sorted
	next := map[string]int{}
	for _, file := range append(files, path) {
		for _, e := range entries(t, file) {
			var n int
			if _, err := fmt.Sscan(e.text, &n); err != nil || n != next[e.stream] || len(e.text) != len(fmt.Sprint(n))+1+n%200 {
				t.Fatalf("%s: %+v, want %d", file, e, next[e.stream])
			}
			next[e.stream]++
		}
	}
	if next["stdout"] != counts[0] || next["stderr"] != counts[1] {
		t.Errorf("read %v, written %v", next, counts)
	}
	t.Logf("%d rotations, %v lines", rotations, counts)
}

// F66.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts a small tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("needs mount: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	path := filepath.Join(dir, "0.log")
	l := open(t, path, Options{})
	in := fifo(t)
	w, gone := shim(t, in)
	tail := follow(t, l, Stdout, in)
	line := strings.Repeat("x", 90) + "\n"
	for range 20000 { // 1.8 MB into 64 KiB: does not block
		put(t, w, line)
	}
	deadline := time.Now().Add(10 * time.Second)
	for c := l.Counters(); c.Entries+c.DroppedEntries < 20000; c = l.Counters() {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", c)
		}
		time.Sleep(time.Millisecond)
	}
	// What is told as dropped within a log adds up, wherever there was room to tell it.
	const told = "[crid: %d log entries (%d bytes) were dropped here: no space left on device]"
	var whole, dropped, lost uint64
	count := func(all []string) {
		for _, text := range all {
			var n, size uint64
			if _, err := fmt.Sscanf(text, told, &n, &size); err == nil {
				dropped, lost = dropped+n, lost+size
			} else {
				whole++
			}
		}
	}
	count(texts(entries(t, path))) // no torn entry
	c := l.Counters()
	if c.DroppedEntries == 0 || whole != c.Entries {
		t.Errorf("%+v with %d entries in the file", c, whole)
	}
	// The kubelet rotates: there is space again.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	put(t, w, "back\n")
	gone()
	within(t, "the end", tail.Done())
	es := texts(entries(t, path))
	count(es)
	if len(es) != 2 || es[1] != "back" || dropped != c.DroppedEntries || lost != c.DroppedBytes {
		t.Errorf("%q after %+v; told are %d of %d bytes", es, c, dropped, lost)
	}
}

func TestAFileThatEndsInTheMiddleOfAnEntry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	if err := os.WriteFile(path, []byte("2026-01-01T00:00:00Z stdout F half an ent"), 0o640); err != nil {
		t.Fatal(err)
	}
	l := open(t, path, Options{})
	b := &batch{}
	b.begin(Stdout, time.Now())
	b.entry('F', []byte("whole"))
	l.append(b, nil, 0)
	l.append(b, nil, 0)
	if got := fmt.Sprint(texts(entries(t, path))); got != "[half an ent whole whole]" {
		t.Error(got)
	}
}

// F55: memory does not grow with the line.
func TestALineOf100MiB(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	l := open(t, path, Options{})
	in := fifo(t)
	w, gone := shim(t, in)
	tail := follow(t, l, Stdout, in)
	block := bytes.Repeat([]byte("x"), 1<<20)
	var top, before runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range 100 {
		if _, err := w.Write(block); err != nil {
			t.Fatal(err)
		}
		if i%10 == 9 {
			var now runtime.MemStats
			runtime.ReadMemStats(&now)
			if now.HeapInuse > top.HeapInuse {
				top = now
			}
		}
	}
	gone()
	within(t, "the end", tail.Done())
	if grown := int64(top.HeapInuse) - int64(before.HeapInuse); grown > 8<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	total := 0
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, e := range entries(t, path) {
		if e.tag != "P" || len(e.text) > DefaultMaxLine {
			t.Fatalf("%s of %d bytes", e.tag, len(e.text))
		}
		total += len(e.text)
	}
	if total != 100<<20 {
		t.Errorf("%d bytes of %d", total, 100<<20)
	}
}

func TestIdleStreamsAreCheap(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "0.log"), Options{})
	const n = 500
	goroutines := runtime.NumGoroutine()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range n {
		in := fifo(t)
		w, _ := shim(t, in)
		follow(t, l, Stdout, in)
		put(t, w, "hello\n")
	}
	for l.Counters().Entries < n {
		time.Sleep(time.Millisecond)
	}
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	if more := runtime.NumGoroutine() - goroutines; more > n {
		t.Errorf("%d goroutines for %d streams", more, n)
	}
	// The test's own two files for each stream are in it too.
	per := (int64(after.HeapInuse+after.StackInuse) - int64(before.HeapInuse+before.StackInuse)) / n
	t.Logf("%d bytes for each idle stream", per)
	if per > 16<<10 {
		t.Errorf("%d bytes for each idle stream", per)
	}
}

func FuzzSplit(f *testing.F) {
	f.Add([]byte("a\nbb\r\n\nccccccccc"), 3, 2, true)
	f.Fuzz(func(t *testing.T, data []byte, limit, step int, tty bool) {
		limit, step = 1+abs(limit)%64, 1+abs(step)%64
		s := splitter{stream: Stdout, max: limit, stripCR: tty}
		var back, out, held []byte
		b := &batch{}
		for i := 0; i < len(data); i += step {
			b.begin(Stdout, time.Unix(0, 0))
			clean := len(held)
			held = append(held, data[i:min(i+step, len(data))]...)
			held = held[s.split(b, held, clean):]
			out = append(out, b.out...)
			if len(held) > limit {
				t.Fatalf("%d bytes are held back", len(held))
			}
		}
		if len(held) > 0 {
			b.begin(Stdout, time.Unix(0, 0))
			s.rest(b, held)
			out = append(out, b.out...)
		}
		for line := range bytes.Lines(out) {
			fields := bytes.SplitN(bytes.TrimSuffix(line, []byte("\n")), []byte(" "), 4)
			if len(fields) != 4 || len(fields[3]) > limit {
				t.Fatalf("entry %q", line)
			}
			back = append(back, fields[3]...)
			if fields[2][0] == 'F' {
				back = append(back, '\n')
			}
		}
		if !tty && !bytes.Equal(back, data) {
			t.Fatalf("%q became %q", data, back)
		}
	})
}

func abs(n int) int {
	if n < 0 {
		return -(n + 1)
	}
	return n
}

func BenchmarkLines(b *testing.B) {
	for _, memory := range []string{"ordinary", "outlives"} {
		for _, n := range []int{20, 100, 1000} {
			b.Run(fmt.Sprintf("%s/%d", memory, n), func(b *testing.B) {
				opts := Options{Owner: "container"}
				if memory != "ordinary" {
					opts.Buffers = buffers(b, inMemory(b), 0)
				}
				benchmarkLines(b, opts, n, bytes.Repeat(append(bytes.Repeat([]byte("x"), n-1), '\n'), (64<<10)/n))
			})
		}
		// One line at a time: what a container costs that says something now and then.
		b.Run(memory+"/single", func(b *testing.B) {
			opts := Options{Owner: "container"}
			if memory != "ordinary" {
				opts.Buffers = buffers(b, inMemory(b), 0)
			}
			benchmarkLines(b, opts, 1, append(bytes.Repeat([]byte("x"), 99), '\n'))
		})
	}
}

func benchmarkLines(b *testing.B, opts Options, n int, block []byte) {
	path := filepath.Join(b.TempDir(), "0.log")
	l := open(b, path, opts)
	in := fifo(b)
	w, gone := shim(b, in)
	tail := follow(b, l, Stdout, in)
	b.SetBytes(int64(len(block)))
	for i := 0; b.Loop(); i++ {
		if _, err := w.Write(block); err != nil {
			b.Fatal(err)
		}
		for n == 1 && l.Counters().Entries <= uint64(i) {
			runtime.Gosched()
		}
		if i%2000 == 1999 { // as the kubelet would
			_ = os.Remove(path)
			if err := l.Reopen(); err != nil {
				b.Fatal(err)
			}
		}
	}
	gone()
	<-tail.Done()
}
