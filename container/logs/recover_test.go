package logs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// inMemory is a folder on a tmpfs.
func inMemory(t testing.TB) string {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs("/dev/shm", &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
		t.Skip("needs a tmpfs at /dev/shm")
	}
	dir, err := os.MkdirTemp("/dev/shm", "crid-logs-")
	if err != nil {
		t.Skipf("needs a tmpfs at /dev/shm to write to: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func buffers(t testing.TB, dir string, maxLine int) *Buffers {
	t.Helper()
	p, err := OpenBuffers(dir, maxLine, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// output is what a container says: numbered lines, most of them short, some
// longer than a part, some empty.
func output(r *rand.Rand, size, maxLine int) []byte {
	var out []byte
	for n := 0; len(out) < size; n++ {
		var pad int
		switch r.IntN(40) {
		case 0:
			pad = r.IntN(4 * maxLine)
		case 1:
			pad = maxLine - 10 + r.IntN(20) // about as long as a part, or exactly
		default:
			pad = r.IntN(60)
		}
		if r.IntN(10) > 0 {
			out = fmt.Appendf(out, "%d %s", n, strings.Repeat("x", pad))
		}
		out = append(out, '\n')
	}
	return out
}

// said is what the entries of logs say, one after the other. Every part has to
// be as long as a part is: a line that was cut elsewhere was torn.
func said(t testing.TB, maxLine int, files ...string) []byte {
	t.Helper()
	var out []byte
	for _, f := range files {
		for _, e := range entries(t, f) {
			out = append(out, e.text...)
			if e.tag == "F" {
				out = append(out, '\n')
			} else if len(e.text) != maxLine {
				t.Fatalf("%s: a part of %d bytes", f, len(e.text))
			}
		}
	}
	return out
}

// scene is what a kill leaves: files of buffers, and the log.
type scene struct {
	files map[string][]byte
	log   []byte
}

// look takes the scene as it is at this moment.
func look(t testing.TB, dir, log string) scene {
	t.Helper()
	s := scene{files: map[string][]byte{}}
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range names {
		if s.files[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	if s.log, err = os.ReadFile(log); err != nil {
		t.Fatal(err)
	}
	return s
}

// with answers the scene with another state in one of its buffers.
func (s scene) with(name string, state uint64) scene {
	files := map[string][]byte{}
	for n, data := range s.files {
		files[n] = data
	}
	files[name] = bytes.Clone(files[name])
	binary.NativeEndian.PutUint64(files[name][unsafe.Offsetof((*head)(nil).state):], state)
	return scene{files, s.log}
}

// play sets the scene up somewhere else and has it recovered, twice. It answers
// what the log says then, with the beginning of a line that waits for its end.
func (s scene) play(t testing.TB, opts Options, rotated bool) []byte {
	t.Helper()
	home := inMemory(t)
	defer os.RemoveAll(home)
	dir, path := filepath.Join(home, "output"), filepath.Join(home, "0.log")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	logs := []string{path}
	if rotated {
		logs = []string{path + ".20261122-220000", path}
	}
	if err := os.WriteFile(logs[0], s.log, 0o640); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(logs[0], &st); err != nil {
		t.Fatal(err)
	}
	for name, data := range s.files {
		data = bytes.Clone(data)
		binary.NativeEndian.PutUint64(data[unsafe.Offsetof((*head)(nil).dev):], st.Dev)
		binary.NativeEndian.PutUint64(data[unsafe.Offsetof((*head)(nil).ino):], st.Ino)
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var first []byte
	for again := range 2 {
		p := buffers(t, dir, opts.MaxLine)
		opts.Buffers = p
		l := open(t, path, opts)
		out := said(t, opts.MaxLine, logs...)
		if b := l.recovered[Stdout]; b != nil {
			out = append(out, b.text()...)
		}
		if again == 1 && !bytes.Equal(out, first) {
			t.Fatal("recovered once more it says something else")
		}
		first = out
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		p.Close()
	}
	return first
}

// The process is killed at every single step: before and after each change of
// what it has noted, with a read that took place or did not, with a write that
// got to any length. Each time the log has, in the end, what was taken out of the
// fifo until then, every line once.
func TestKilledAtEveryStep(t *testing.T) {
	for name, rotated := range map[string]bool{"": false, "and rotated while it was dead": true} {
		t.Run(name, func(t *testing.T) { killAtEveryStep(t, rotated) })
	}
}

func killAtEveryStep(t *testing.T, rotated bool) {
	const maxLine = 2000
	r, feed := rand.New(rand.NewPCG(1, 2)), rand.New(rand.NewPCG(3, 4))
	home := inMemory(t)
	dir, path := filepath.Join(home, "output"), filepath.Join(home, "0.log")
	opts := Options{MaxLine: maxLine, Owner: "container"}
	p := buffers(t, dir, maxLine)
	live := opts
	live.Buffers = p
	l := open(t, path, live)

	input := output(r, 300<<10, maxLine)
	input = append(input, strings.Repeat("\n", 12000)...) // more than one write for one read
	input = append(input, output(r, 100<<10, maxLine)...)
	taken, steps, played := 0, 0, 0
	before := map[string]uint64{}
	logged := 0 // length of the log before the write under way
	check := func(what string, s scene, want int) {
		played++
		defer func() {
			if t.Failed() {
				onStep = nil
				for n, d := range s.files {
					pos, end, doing := unpack(binary.NativeEndian.Uint64(d[unsafe.Offsetof((*head)(nil).state):]))
					t.Logf("%s: %s: %d bytes, %d to %d, %d", what, n, len(d), pos, end, doing)
				}
				t.Logf("log of %d bytes: ...%q", len(s.log), s.log[max(0, len(s.log)-100):])
			}
		}()
		if got := s.play(t, opts, rotated); !bytes.Equal(got, input[:want]) {
			n := 0
			for n < min(len(got), want) && got[n] == input[n] {
				n++
			}
			t.Fatalf("step %d, %s: %d bytes in the log, %d taken, the same up to %d: %.60q, not %.60q", steps, what, len(got), want, n, got[n:], input[n:want])
		}
	}
	onStep = func(b *buffer) {
		if b.home != p {
			return // one of a recovery
		}
		steps++
		was := before[b.name]
		before[b.name] = b.state.Load()
		_, endWas, doingWas := unpack(was)
		_, end, doing := unpack(before[b.name])
		if doingWas == reading && doing == resting {
			taken += max(end-endWas, 0)
		}
		// All of them would take minutes: those that are rare, and some of the others.
		if doingWas == doing || r.IntN(3) == 0 || len(b.data) < 8<<10 {
			s := look(t, dir, path)
			check("killed after it", s, taken)
			if doingWas == reading {
				check("killed before the read was noted", s.with(b.name, was), taken)
			}
			if doingWas >= writing {
				for _, n := range []int{logged, logged + 1, logged + r.IntN(len(s.log)-logged), len(s.log) - 1, len(s.log)} {
					cut := s.with(b.name, was)
					cut.log = s.log[:n]
					check(fmt.Sprintf("killed with %d of %d bytes written", n-logged, len(s.log)-logged), cut, taken)
				}
			}
		}
		if doing >= writing {
			logged = int(b.at)
		}
	}
	defer func() { onStep = nil }()

	in := fifo(t)
	w, gone := shim(t, in)
	tail := follow(t, l, Stdout, in)
	go func() { // a failure ends the reader
		<-tail.Done()
		gone()
	}()
	for rest := input; len(rest) > 0; {
		n := 1 + feed.IntN(1500)
		if feed.IntN(12) == 0 {
			n = 1 + feed.IntN(60<<10)
		}
		n = min(n, len(rest))
		put(t, w, string(rest[:n]))
		rest = rest[n:]
		for wait := feed.IntN(4) > 0; wait && !t.Failed(); time.Sleep(50 * time.Microsecond) {
			avail, err := unix.IoctlGetInt(int(w.Fd()), unix.TIOCINQ)
			wait = err == nil && avail > 0
		}
	}
	gone()
	within(t, "the end", tail.Done())
	if err := tail.Close(); err != nil {
		t.Fatal(err)
	}
	if got := said(t, maxLine, path); !bytes.Equal(got, input) {
		t.Errorf("without a kill the log says %d bytes of %d", len(got), len(input))
	}
	t.Logf("%d steps, %d kills", steps, played)
	if played < 100 {
		t.Errorf("only %d kills", played)
	}
}
