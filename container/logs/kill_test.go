package logs

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// childEnv names the folder in which this test program is to write a log until
// it is killed, instead of testing.
const childEnv = "CRID_LOGS_TEST_CHILD"

// killsEnv says how often it is killed; KILLS=1000 for a long run.
const killsEnv = "KILLS"

const childLine = 4000

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func child(dir string) {
	must := func(err error) {
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	p, err := OpenBuffers(filepath.Join(dir, "output"), childLine, slog.New(slog.NewTextHandler(os.Stdout, nil)))
	must(err)
	l, err := Open(filepath.Join(dir, "0.log"), Options{MaxLine: childLine, Owner: "container", Buffers: p})
	must(err)
	out, err := l.Follow(Stdout, filepath.Join(dir, "stdout"))
	must(err)
	errs, err := l.Follow(Stderr, filepath.Join(dir, "stderr"))
	must(err)
	fmt.Println("follows")
	<-out.Done()
	<-errs.Done()
	must(l.Close())
	p.Close()
}

// speaker says numbered lines, as fast as it can, with a pause now and then, in
// the middle of a line as well. Line n is what lineOf says, so that the reader
// knows it too.
func speak(w io.Writer, r *rand.Rand, stop *atomic.Bool) (lines int, err error) {
	var block []byte
	for !stop.Load() {
		block = lineOf(block[:0], lines)
		lines++
		for len(block) < 30<<10 && r.IntN(200) > 0 {
			block = lineOf(block, lines)
			lines++
		}
		if r.IntN(50) == 0 {
			cut := r.IntN(len(block))
			if _, err := w.Write(block[:cut]); err != nil {
				return lines, err
			}
			time.Sleep(time.Duration(r.IntN(8)) * time.Millisecond)
			block = block[cut:]
		}
		if _, err := w.Write(block); err != nil {
			return lines, err
		}
	}
	return lines, nil
}

func lineOf(b []byte, n int) []byte {
	const x = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
	b = strconv.AppendInt(b, int64(n), 10)
	b = append(b, x[:n%len(x)]...)
	for range 100 * (n % 997 / 995) { // some are longer than a part: 6,400 bytes and more
		b = append(b, x...)
	}
	return append(b, '\n')
}

// listener checks that a log has every line of both streams once, in order, and
// no part that is not as long as a part is.
type listener struct {
	next [2]int
	line [2][]byte
	want []byte
}

func (h *listener) hear(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for text := range bytes.Lines(data) {
		f := bytes.SplitN(bytes.TrimSuffix(text, []byte("\n")), []byte(" "), 4)
		if len(f) != 4 || text[len(text)-1] != '\n' {
			t.Fatalf("%s: torn: %.100q", path, text)
		}
		s := 0
		if string(f[1]) == "stderr" {
			s = 1
		}
		h.line[s] = append(h.line[s], f[3]...)
		if string(f[2]) == "P" {
			if len(f[3]) != childLine {
				t.Fatalf("%s: a part of %d bytes, after line %d", path, len(f[3]), h.next[s]-1)
			}
			continue
		}
		h.want = lineOf(h.want[:0], h.next[s])
		if !bytes.Equal(append(h.line[s], '\n'), h.want) {
			t.Fatalf("%s: %s: %.60q is not line %d", path, f[1], h.line[s], h.next[s])
		}
		h.next[s]++
		h.line[s] = h.line[s][:0]
	}
}

// A process that follows two streams at full speed is killed again and again, at
// any moment, and the log is rotated while nobody follows. No line is lost, none
// is there twice, none is torn, and no line that was cut by a kill is in parts.
func TestKilledUnderMuchOutput(t *testing.T) {
	kills := 25
	if n, err := strconv.Atoi(os.Getenv(killsEnv)); err == nil {
		kills = n
	}
	dir := inMemory(t)
	if err := os.Mkdir(filepath.Join(dir, "output"), 0o700); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var gone [2]func()
	type result struct {
		lines int
		err   error
	}
	results := [2]chan result{}
	for i, name := range []string{"stdout", "stderr"} {
		if err := unix.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
		var w *os.File
		w, gone[i] = shim(t, filepath.Join(dir, name))
		results[i] = make(chan result, 1)
		go func() {
			lines, err := speak(w, rand.New(rand.NewPCG(uint64(i), 7)), &stop)
			results[i] <- result{lines, err}
		}()
	}
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	log := filepath.Join(dir, "0.log")
	var heard listener
	var moved []string
	for i := range kills {
		cmd := startChild(t, dir, r.IntN(3) > 0) // or it is killed while it recovers
		time.Sleep(time.Duration(r.IntN(15000)) * time.Microsecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if _, err := os.Stat(log); err == nil && r.IntN(2) == 0 {
			moved = append(moved, fmt.Sprintf("%s.%06d", log, i))
			if err := os.Rename(log, moved[len(moved)-1]); err != nil {
				t.Fatal(err)
			}
		}
		for len(moved) > 6 { // the last ones may be completed yet: not every start gets that far
			heard.hear(t, moved[0])
			if err := os.Remove(moved[0]); err != nil {
				t.Fatal(err)
			}
			moved = moved[1:]
		}
	}
	stop.Store(true)
	cmd := startChild(t, dir, true)
	var lines [2]int
	for i := range results {
		res := <-results[i]
		if res.err != nil {
			t.Fatal(res.err)
		}
		lines[i] = res.lines
		gone[i]()
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, path := range append(moved, log) {
		heard.hear(t, path)
	}
	if heard.next != lines {
		t.Errorf("%v lines in the log, of %v", heard.next, lines)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "output")); len(left) > 0 {
		t.Errorf("%d files are left", len(left))
	}
	t.Logf("%d kills, %v lines", kills, lines)
}

func startChild(t *testing.T, dir string, wait bool) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	if !wait {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has ended, unless the test failed
	said := make([]byte, 1024)
	n, err := io.ReadAtLeast(out, said, 1)
	if err != nil || !strings.HasPrefix(string(said[:n]), "follows") {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		t.Fatalf("the child says %q (%v)", said[:n], err)
	}
	return cmd
}
