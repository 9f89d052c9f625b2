package logs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func names(t testing.TB, dir string) (out []string) {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		out = append(out, e.Name())
	}
	return out
}

// One that holds text as if the process had been killed with it.
func kept(t testing.TB, p *Buffers, owner, text string) *buffer {
	t.Helper()
	s := splitter{stream: Stdout, max: DefaultMaxLine}
	b := p.take(0, p.sizes)
	if b == nil {
		t.Fatal("there is no buffer")
	}
	b.describe(owner, &s)
	b.endRead(copy(b.beginRead(len(text)), text))
	return b
}

// What somebody put among the buffers, or broke, is not believed, and neither
// read nor written as if it were one.
func TestBuffersThatAreDamagedOrForeign(t *testing.T) {
	dir := inMemory(t)
	p := buffers(t, dir, 0)
	good := bytes.Clone(kept(t, p, "container", "good\n").mem)
	p.Close()
	clean := func() {
		for _, n := range names(t, dir) {
			if err := os.RemoveAll(filepath.Join(dir, n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	clean()
	victim := filepath.Join(inMemory(t), "victim")
	if err := os.WriteFile(victim, good, 0o600); err != nil {
		t.Fatal(err)
	}
	at := func(off uintptr, b ...byte) func(string) error {
		return func(path string) error {
			data := bytes.Clone(good)
			copy(data[off:], b)
			return os.WriteFile(path, data, 0o600)
		}
	}
	state := func(pos, end int, doing uint64) func(string) error {
		return at(unsafe.Offsetof((*head)(nil).state), binary.NativeEndian.AppendUint64(nil, pack(pos, end, doing))...)
	}
	sum := unsafe.Offsetof((*head)(nil).sum)
	elsewhen := binary.NativeEndian.AppendUint32(nil, crc32.Checksum(good[:sum], castagnoli)) // as without a boot
	huge := binary.NativeEndian.AppendUint32(nil, 1<<31)
	for name, c := range map[string]struct {
		put     func(path string) error
		isThere bool // afterwards
		text    string
	}{
		"whole":                {at(0), false, "good\n"},
		"of another version":   {at(0, []byte("crid-lo0")...), false, ""},
		"of another boot":      {at(sum, elsewhen...), false, ""},
		"another's":            {at(unsafe.Offsetof((*head)(nil).owner), 'X'), false, ""},
		"a length that is not": {at(unsafe.Offsetof((*head)(nil).size), huge...), false, ""},
		"a broken maximum":     {at(unsafe.Offsetof((*head)(nil).max), 0, 0, 0, 0), false, ""},
		"an end beyond":        {state(0, 4096, resting), false, ""},
		"an end far beyond":    {state(0, 1<<30-1, resting), false, ""},
		"the end before":       {state(5, 2, resting), false, ""},
		"an unknown state":     {state(0, 5, 9), false, ""},
		"a read too long":      {state(0, 3584, reading), false, ""},
		"cut short":            {func(p string) error { return os.WriteFile(p, good[:1000], 0o600) }, false, ""},
		"nothing":              {func(p string) error { return os.WriteFile(p, nil, 0o600) }, false, ""},
		"zeros":                {func(p string) error { return os.WriteFile(p, make([]byte, 8192), 0o600) }, false, ""},
		"noise": {func(p string) error {
			data := make([]byte, 8192)
			for i := range data {
				data[i] = byte(rand.Int())
			}
			return os.WriteFile(p, data, 0o600)
		}, false, ""},
		"for others to write": {func(p string) error {
			return errors.Join(os.WriteFile(p, good, 0o600), os.Chmod(p, 0o666))
		}, true, ""},
		"a link":       {func(p string) error { return os.Symlink(victim, p) }, true, ""},
		"another name": {func(p string) error { return os.Link(victim, p) }, true, ""},
		"a fifo":       {func(p string) error { return unix.Mkfifo(p, 0o600) }, true, ""},
		"a folder":     {func(p string) error { return os.Mkdir(p, 0o700) }, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			defer clean()
			path := filepath.Join(dir, "00000007")
			if err := c.put(path); err != nil {
				t.Fatal(err)
			}
			p := buffers(t, dir, 0)
			log := filepath.Join(t.TempDir(), "0.log")
			l := open(t, log, Options{Buffers: p, Owner: "container"})
			if b := kept(t, p, "other", "x"); b != nil { // it does not stand in the way
				b.clear()
				b.release()
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			p.Close()
			if _, err := os.Lstat(path); (err == nil) != c.isThere {
				t.Errorf("afterwards: %v", err)
			}
			var got string
			for _, e := range entries(t, log) {
				got += e.text + "\n"
			}
			if got != c.text {
				t.Errorf("in the log: %.100q", got)
			}
		})
	}
	if data, err := os.ReadFile(victim); err != nil || !bytes.Equal(data, good) {
		t.Errorf("the file that was linked to has changed (%v)", err)
	}
}

// Where reserved space is not kept, there are no buffers.
func TestBuffersAreWhereAMappingCannotFail(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a file system")
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "ramfs", 0, ""); err != nil {
		t.Skipf("needs another file system than tmpfs, ext4 and xfs: %v", err)
	}
	mounted := dir
	t.Cleanup(func() { _ = unix.Unmount(mounted, unix.MNT_DETACH) })
	dir = filepath.Join(dir, "output")
	if _, err := OpenBuffers(dir, 0, slog.New(slog.DiscardHandler)); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("on a ramfs: %v", err)
	}
	if _, err := os.Lstat(dir); err == nil {
		t.Error("a folder is left")
	}
	var none *Buffers
	none.Keep(nil)
	none.Drop("container")
	none.Close()
}

// Idle streams have no buffer, but one within a line, and that one a page.
func TestIdleStreamsHoldNoBuffers(t *testing.T) {
	dir, path := inMemory(t), filepath.Join(t.TempDir(), "0.log")
	p := buffers(t, dir, 0)
	l := open(t, path, Options{Buffers: p, Owner: "container"})
	const n = 40
	var tails []*Tail
	for i := range n {
		in := fifo(t)
		w, gone := shim(t, in)
		tails = append(tails, follow(t, l, Stdout, in))
		text := strings.Repeat(strings.Repeat("x", 100)+"\n", 700) // grows to the largest
		if i%4 == 0 {
			text += "prompt$ "
		}
		put(t, w, text)
		defer gone()
	}
	free := func() (count int) {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, of := range p.free {
			count += len(of)
		}
		return count
	}
	for end := time.Now().Add(20 * time.Second); l.Counters().Entries < n*700 || free() != len(names(t, dir))-n/4; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d buffers, %d of them free", len(names(t, dir)), free())
		}
	}
	p.tidy()
	p.tidy()
	pages := 0
	for _, name := range names(t, dir) {
		fi, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		pages += int(fi.Size() / 4096)
	}
	if pages != n/4 || p.total != n/4*4096 {
		t.Errorf("%d pages (%d bytes) for %d streams within a line", pages, p.total, n/4)
	}
	for _, tail := range tails {
		if err := tail.Close(); err != nil {
			t.Error(err)
		}
	}
	p.tidy()
	p.tidy()
	if left := names(t, dir); len(left) > 0 {
		t.Errorf("left when all have ended: %q", left)
	}
}

// Buffers that nobody uses go by themselves, and no timer runs on.
func TestBuffersAreTidied(t *testing.T) {
	dir := inMemory(t)
	synctest.Test(t, func(t *testing.T) {
		p := buffers(t, dir, 0)
		b := kept(t, p, "container", "x")
		b.clear()
		b.release()
		time.Sleep(restFor + time.Second)
		if len(names(t, dir)) != 1 {
			t.Error("gone too soon")
		}
		time.Sleep(restFor)
		synctest.Wait()
		p.mu.Lock()
		tidies := p.tidies
		p.mu.Unlock()
		if left := names(t, dir); len(left) > 0 || tidies {
			t.Errorf("%q are left (%v)", left, tidies)
		}
		p.Close()
	})
}

// A tmpfs that is full is no reason to crash, or to lose anything while the
// process lives. When there is room again it is used again.
func TestNoRoomForBuffers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts a small tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=5m,mode=700"); err != nil {
		t.Skipf("needs mount: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	p := buffers(t, dir, 0)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 950<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	path, in := filepath.Join(t.TempDir(), "0.log"), fifo(t)
	l := open(t, path, Options{Buffers: p, Owner: "container"})
	w, gone := shim(t, in)
	tail := follow(t, l, Stdout, in)
	var want []string
	say := func(n int) {
		for range n {
			want = append(want, fmt.Sprintf("%d %s", len(want), strings.Repeat("x", len(want)%3000)))
			put(t, w, want[len(want)-1]+"\n")
		}
	}
	say(3000) // the small ones fit, the large ones do not
	if err := os.WriteFile(ballast, make([]byte, 6<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	say(3000)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	time.Sleep(retry + 100*time.Millisecond)
	say(3000)
	gone()
	within(t, "the end", tail.Done())
	if got := texts(entries(t, path)); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%d lines of %d", len(got), len(want))
	}
	if len(names(t, dir)) == 0 {
		t.Error("no buffers now that there is room")
	}
}

func TestBuffersAreBounded(t *testing.T) {
	p := buffers(t, inMemory(t), 0)
	n := 0
	for ; p.take(2, p.sizes) != nil; n++ {
		if int64(n*p.sizes[2]) > limit {
			t.Fatal("no bound")
		}
	}
	if int64((n+1)*p.sizes[2]) <= limit {
		t.Errorf("only %d", n)
	}
	l := &Log{path: "x", sizes: p.sizes, opts: Options{Buffers: p, Owner: "container"}}
	if b := l.take(&splitter{}, 10); b == nil {
		t.Error("a small one would have fit, and an ordinary one always does")
	}
}

// Each owner gets its own; what nobody wants goes.
func TestBuffersOfOthers(t *testing.T) {
	dir := inMemory(t)
	p := buffers(t, dir, 0)
	for _, o := range []string{"a", "b", "c"} {
		kept(t, p, o, "of "+o+"\n")
	}
	old := kept(t, p, "a", "on the move\n")
	old.stream = 2
	old.sum = old.checksum()
	moved := kept(t, p, "a", "on the move\n")
	moved.stream, moved.age = 2, 1
	moved.sum = moved.checksum()
	p.Close() // as they are

	p = buffers(t, dir, 0)
	p.Keep(func(o string) bool { return o != "c" })
	p.Drop("b")
	path := filepath.Join(t.TempDir(), "0.log")
	if got := len(names(t, dir)); got != 2 {
		t.Errorf("%d are left", got)
	}
	l := open(t, path, Options{Buffers: p, Owner: "b"})
	l.Close()
	l = open(t, path, Options{Buffers: p, Owner: "a"})
	l.Close()
	if got := fmt.Sprint(entries(t, path)); got != "[{stdout F of a} {stderr F on the move}]" && got != "[{stderr F on the move} {stdout F of a}]" {
		t.Error(got)
	}
	p.Close()
	if left := names(t, dir); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// The beginning of a line survives: ended later, it is one line. If lines are
// split in another way by then, or the container ends, it is a part.
func TestTheBeginningOfALineSurvives(t *testing.T) {
	for name, c := range map[string]struct {
		max  int
		tty  bool
		more string
		want string
	}{
		"ended later":      {0, false, "ning\n", "[{stdout F beginning}]"},
		"never ended":      {0, false, "", "[{stdout P begin}]"},
		"another maximum":  {300, false, "ning\n", "[{stdout P begin} {stdout F ning}]"},
		"a terminal's now": {0, true, "ning\r\n", "[{stdout P begin} {stdout F ning}]"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, path, in := inMemory(t), filepath.Join(t.TempDir(), "0.log"), fifo(t)
			p := buffers(t, dir, 0)
			kept(t, p, "container", "begin")
			p.Close()
			p = buffers(t, dir, c.max)
			if c.tty { // opened and closed in between: nothing is lost by that
				open(t, path, Options{Buffers: p, Owner: "another"}).Close()
			} else if c.max == 0 {
				open(t, path, Options{Buffers: p, Owner: "container"}).Close()
			}
			l := open(t, path, Options{MaxLine: c.max, TTY: c.tty, Buffers: p, Owner: "container"})
			w, gone := shim(t, in)
			tail := follow(t, l, Stdout, in)
			put(t, w, c.more)
			gone()
			if err := tail.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(entries(t, path)); got != c.want {
				t.Errorf("%s, not %s", got, c.want)
			}
		})
	}
}

// Somebody cut the log, or wrote to it, before crid came back: nothing of theirs
// is touched, and nothing is lost.
func TestALogThatWasMeddledWith(t *testing.T) {
	for name, meddle := range map[string]func(path string) error{
		"cut":     func(path string) error { return os.Truncate(path, 0) },
		"removed": os.Remove,
		"longer": func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteString("2026-01-01T00:00:00Z stdout F theirs\n")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, path := inMemory(t), filepath.Join(t.TempDir(), "0.log")
			p := buffers(t, dir, 0)
			if err := os.WriteFile(path, []byte("2026-01-01T00:00:00Z stdout F before\n"), 0o640); err != nil {
				t.Fatal(err)
			}
			var st unix.Stat_t
			if err := unix.Stat(path, &st); err != nil {
				t.Fatal(err)
			}
			kept(t, p, "container", "ours\n").beginWrite(st.Dev, st.Ino, st.Size, false)
			p.Close()
			if err := meddle(path); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadFile(path)
			p = buffers(t, dir, 0)
			open(t, path, Options{Buffers: p, Owner: "container"})
			after, err := os.ReadFile(path)
			if err != nil || !bytes.HasPrefix(after, before) || bytes.Count(after, []byte("ours\n")) != 1 {
				t.Errorf("%q became %q (%v)", before, after, err)
			}
			entries(t, path)
		})
	}
}

// Data that is moved within its buffer is there at every moment.
func TestDataIsMovedAbout(t *testing.T) {
	defer func() { onStep = nil }()
	r := rand.New(rand.NewPCG(1, 1))
	moved := 0
	for range 20000 {
		b := &buffer{head: &head{}, data: make([]byte, 64)}
		for i := range b.data {
			b.data[i] = byte(i)
		}
		pos := r.IntN(64)
		end := pos + r.IntN(65-pos)
		b.set(pos, end, resting)
		want := bytes.Clone(b.text())
		onStep = func(b *buffer) {
			moved++
			if !bytes.Equal(b.text(), want) {
				t.Fatalf("%d to %d became %d", pos, end, b.text())
			}
		}
		n := 1 + r.IntN(64)
		fits := b.makeRoom(n)
		if _, end := b.held(); fits && end+n > len(b.data) {
			t.Fatalf("no room for %d", n)
		}
		onStep = nil
	}
	if moved == 0 {
		t.Error("nothing was moved")
	}
}

// With the largest buffer there is always room for a fifo's content, whatever of
// a line is held.
func TestThereIsAlwaysRoom(t *testing.T) {
	for _, maxLine := range []int{1, 256, DefaultMaxLine, 1 << 20} {
		size := sizesFor(maxLine)[2] - headSize
		b := &buffer{head: &head{}, data: make([]byte, size)}
		for held := 0; held <= maxLine; held += 1 + maxLine/7 {
			for pos := 0; pos+held <= size; pos += 1 + size/1000 {
				b.state.Store(pack(pos, pos+held, resting))
				if pos+held == 0 {
					continue
				}
				if held == 0 {
					b.clear() // as set does it
				}
				if !b.makeRoom(largeRead) {
					t.Fatalf("max %d: no room with %d bytes at %d of %d", maxLine, held, pos, size)
				}
			}
		}
	}
}
