package holder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shortDir is a folder for holders, which are gone after the test.
func shortDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		if err := End(context.Background(), dir); err != nil {
			t.Errorf("end holders: %v", err)
		}
	})
	return dir
}

func opened(t *testing.T, dir string) *Holder {
	t.Helper()
	h := Open(t.Context(), dir, slog.New(slog.DiscardHandler))
	t.Cleanup(h.Close)
	if err := h.Status().Err; err != nil {
		t.Fatal(err)
	}
	return h
}

func fifo(t *testing.T, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// say writes to a fifo as a shim does: both ends open, closed when it is done.
func say(t *testing.T, path, text string) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// heard is what is in the fifo.
func heard(t *testing.T, path string) string {
	t.Helper()
	f, err := os.OpenFile(path, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 5 s: %s", what)
		}
	}
}

func alive(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(b), ") Z ")
}

func TestWhatWasWrittenWhileNobodyReadIsThere(t *testing.T) {
	dir := shortDir(t)
	out, other := fifo(t, dir, "out"), fifo(t, dir, "other")
	h := opened(t, dir)
	if err := h.Hold("a", out); err != nil {
		t.Fatal(err)
	}
	h.Close() // crid is gone
	say(t, out, "last words")
	say(t, other, "last words")
	if got := heard(t, other); got != "" {
		t.Fatalf("a fifo that nobody holds still has %q: this test proves nothing", got)
	}
	h = opened(t, dir)
	if got := heard(t, out); got != "last words" {
		t.Errorf("what was written while crid was down: %q", got)
	}
	say(t, out, "more")
	h.Drop("a")
	h.Drop("a")
	if got := heard(t, out); got != "" {
		t.Errorf("what nobody holds any more still has %q", got)
	}
}

func TestKilledHolderIsReplaced(t *testing.T) {
	dir := shortDir(t)
	out := fifo(t, dir, "out")
	h := opened(t, dir)
	if err := h.Hold("a", out); err != nil {
		t.Fatal(err)
	}
	first := h.Status().Pid
	if err := unix.Kill(first, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a new one holds the pipe", func() bool { s := h.Status(); return s.Pid != first && s.Held == 1 })
	say(t, out, "words")
	if got := heard(t, out); got != "words" {
		t.Errorf("the new holder kept %q", got)
	}
}

func TestHangingHolderDelaysNobodyForLongAndLosesNothing(t *testing.T) {
	dir := shortDir(t)
	out, more := fifo(t, dir, "out"), fifo(t, dir, "more")
	h := opened(t, dir)
	h.Keep(nil)
	if err := h.Hold("a", out); err != nil {
		t.Fatal(err)
	}
	first := h.Status().Pid
	if err := unix.Kill(first, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	say(t, out, "words")
	began := time.Now()
	if err := h.Hold("b", more); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("a stopped process has taken a pipe: %v", err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("a start would have waited %s", took)
	}
	eventually(t, "a new one holds both", func() bool { s := h.Status(); return s.Pid != first && s.Held == 2 })
	if alive(first) {
		t.Error("the one that hangs lives")
	}
	if got := heard(t, out); got != "words" {
		t.Errorf("what was in the pipe is now %q", got)
	}
}

func TestHangingHolderAtTheStartIsReplacedWithoutLoss(t *testing.T) {
	dir := shortDir(t)
	out := fifo(t, dir, "out")
	h := opened(t, dir)
	if err := h.Hold("a", out); err != nil {
		t.Fatal(err)
	}
	first := h.Status().Pid
	h.Close()
	say(t, out, "words")
	if err := unix.Kill(first, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	h = Open(t.Context(), dir, slog.New(slog.DiscardHandler))
	t.Cleanup(h.Close)
	if h.Status().Err == nil || !alive(first) {
		t.Fatalf("before it is known what is held nothing may end: %+v", h.Status())
	}
	h.Keep(map[string][]string{"a": {out}})
	if s := h.Status(); s.Err != nil || s.Pid == first || s.Held != 1 {
		t.Errorf("after that: %+v", s)
	}
	if got := heard(t, out); got != "words" {
		t.Errorf("what was in the pipe is now %q", got)
	}
}

func TestKeepMakesItExactAndEndsOtherVersions(t *testing.T) {
	dir := shortDir(t)
	was, stays, gone := fifo(t, dir, "was"), fifo(t, dir, "stays"), fifo(t, dir, "gone")
	// An older crid's holder, of which only the socket's name is known.
	if err := launch(t.Context(), dir, "holder-0.sock", time.Minute); err != nil {
		t.Fatal(err)
	}
	old, err := dial(t.Context(), dir, "holder-0.sock")
	if err != nil {
		t.Fatal(err)
	}
	pipes, err := open([]string{was})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.call(t.Context(), request{op: opHold, id: "was"}, pipes); err != nil {
		t.Fatal(err)
	}
	shut(pipes)
	old.close()
	say(t, was, "from the old one")

	h := opened(t, dir)
	for id, path := range map[string]string{"stays": stays, "gone": gone} {
		if err := h.Hold(id, path); err != nil {
			t.Fatal(err)
		}
		say(t, path, id)
	}
	h.Close()
	h = opened(t, dir)
	h.Keep(map[string][]string{"was": {was}, "stays": {stays}, "never": {filepath.Join(dir, "none")}})
	if got := heard(t, gone); got != "" {
		t.Errorf("what no record knows is held still: %q", got)
	}
	eventually(t, "the old one has ended", func() bool { return !alive(old.pid) })
	if got := heard(t, was) + " " + heard(t, stays); got != "from the old one stays" {
		t.Errorf("taken over: %q", got)
	}
	if got := sockets(dir); len(got) != 1 {
		t.Errorf("sockets: %v", got)
	}
}

func TestCridWorksWithoutAHolder(t *testing.T) {
	var log bytes.Buffer
	dir := filepath.Join(t.TempDir(), "none")
	h := Open(t.Context(), dir, slog.New(slog.NewTextHandler(&log, nil)))
	if err := h.Hold("a", "/none"); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("hold without a process: %v", err)
	}
	h.Keep(map[string][]string{"a": {"/none"}})
	h.Drop("a")
	if h.Status().Err == nil {
		t.Error("the status does not tell")
	}
	h.Close()
	h.Close()
	if n := strings.Count(log.String(), "level=ERROR"); n != 1 {
		t.Errorf("logged %d times, not once: %s", n, &log)
	}
}

func TestHolderComesLate(t *testing.T) {
	dir := shortDir(t)
	state := filepath.Join(dir, "state")
	h := Open(t.Context(), state, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { h.Close(); _ = End(context.Background(), state) })
	out := fifo(t, dir, "out")
	if err := h.Hold("a", out); err == nil {
		t.Fatal("held by nobody")
	}
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what could not be held is held later", func() bool { return h.Status().Held == 1 })
}

func TestProgramRunsFromMemory(t *testing.T) {
	dir := shortDir(t)
	if err := os.Mkdir(filepath.Join(dir, "holder"), 0o700); err != nil { // as good as noexec
		t.Fatal(err)
	}
	h := opened(t, dir)
	exe, err := os.Readlink("/proc/" + strconv.Itoa(h.Status().Pid) + "/exe")
	if err != nil || !strings.HasPrefix(exe, "/memfd:") {
		t.Errorf("runs from %s (%v)", exe, err)
	}
}

func TestProcessStandsAlone(t *testing.T) {
	dir := shortDir(t)
	pid := opened(t, dir).Status().Pid
	if sid, err := unix.Getsid(pid); err != nil || sid != pid {
		t.Errorf("session %d (%v), process %d", sid, err, pid)
	}
	if pgid, err := unix.Getpgid(pid); err != nil || pgid != pid {
		t.Errorf("process group %d (%v), process %d", pgid, err, pid)
	}
	proc := "/proc/" + strconv.Itoa(pid)
	if env, err := os.ReadFile(proc + "/environ"); err != nil || len(env) != 0 {
		t.Errorf("environment %q (%v)", env, err)
	}
	if cwd, err := os.Readlink(proc + "/cwd"); err != nil || cwd != "/" {
		t.Errorf("working directory %s (%v)", cwd, err)
	}
	fds, err := os.ReadDir(proc + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, _ := os.Readlink(proc + "/fd/" + fd.Name()); to != "/dev/null" && !strings.HasPrefix(to, "socket:") {
			t.Errorf("file %s is %s", fd.Name(), to)
		}
	}
	if st, err := os.Stat(filepath.Join(dir, socketName(version))); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v (%v)", st.Mode(), err)
	}
	status, err := os.ReadFile(proc + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kB int
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kB); n == 1 && kB > 64 {
			t.Errorf("it takes %d kB", kB)
		}
	}
}

func TestHolderEndsByItself(t *testing.T) {
	dir := shortDir(t)
	out := fifo(t, dir, "out")
	start := func(hold bool) int {
		if err := launch(t.Context(), dir, "holder-9.sock", 50*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		c, err := dial(t.Context(), dir, "holder-9.sock")
		if err != nil {
			t.Fatal(err)
		}
		defer c.close()
		time.Sleep(100 * time.Millisecond) // longer than it would stay alone
		if hold {
			pipes, err := open([]string{out})
			if err != nil {
				t.Fatal(err)
			}
			defer shut(pipes)
			if _, err := c.call(t.Context(), request{op: opHold, id: "a"}, pipes); err != nil {
				t.Fatal(err)
			}
		}
		return c.pid
	}
	pid := start(false)
	eventually(t, "nothing held, nobody connected: it ends", func() bool { return !alive(pid) })
	pid = start(true)
	time.Sleep(200 * time.Millisecond)
	if !alive(pid) {
		t.Fatal("it ended while it held something")
	}
	if err := os.Remove(filepath.Join(dir, "holder-9.sock")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nobody can ever come again: it ends", func() bool { return !alive(pid) })
}

func TestCloseEndsOneThatHoldsNothing(t *testing.T) {
	dir := shortDir(t)
	h := opened(t, dir)
	pid := h.Status().Pid
	h.Close()
	eventually(t, "it ends", func() bool { return !alive(pid) })
}

func TestManyIDsAndManyFiles(t *testing.T) {
	dir := shortDir(t)
	h := opened(t, dir)
	out := fifo(t, dir, "out")
	const n = 3*page + 1
	for i := range n {
		if err := h.Hold(fmt.Sprintf("%064d", i), out, out); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n { // again: replaced, not added
		if err := h.Hold(fmt.Sprintf("%064d", i), out, out, out); err != nil {
			t.Fatal(err)
		}
	}
	if s := Probe(t.Context(), dir); s.Held != n || s.Err != nil {
		t.Errorf("holds %d of %d (%v)", s.Held, n, s.Err)
	}
	h.mu.Lock()
	c := h.conn
	h.mu.Unlock()
	if a, err := c.call(t.Context(), request{op: opHello}, nil); err != nil || a.pipes != 3*n || int(a.pid) != c.pid {
		t.Errorf("%+v (%v)", a, err)
	}
	for i := range n {
		h.Drop(fmt.Sprintf("%064d", i))
	}
	if a, err := c.call(t.Context(), request{op: opHello}, nil); err != nil || a.pipes != 0 || a.ids != 0 {
		t.Errorf("%+v (%v)", a, err)
	}
}

func TestHolderRefusesWhatItDoesNotKnow(t *testing.T) {
	dir := shortDir(t)
	h := opened(t, dir)
	pid := h.Status().Pid
	files := func() int {
		e, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(e)
	}
	pipes, err := open([]string{fifo(t, dir, "out")})
	if err != nil {
		t.Fatal(err)
	}
	defer shut(pipes)
	many := []int{pipes[0], pipes[0], pipes[0], pipes[0], pipes[0]}
	before := files()
	c, err := dial(t.Context(), dir, socketName(version))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		q     request
		pipes []int
		want  error
	}{
		{"no files", request{op: opHold, id: "a"}, nil, refusal(unix.EINVAL)},
		{"too many files", request{op: opHold, id: "a"}, many, refusal(unix.EMFILE)},
		{"files with another word", request{op: opList}, pipes, nil},
		{"no such operation", request{op: 99}, pipes, refusal(unix.EINVAL)},
		{"drop what is not held", request{op: opDrop, id: "a"}, nil, refusal(unix.ENOENT)},
	} {
		if _, err := c.call(t.Context(), tt.q, tt.pipes); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, not %v", tt.name, err, tt.want)
		}
	}
	foreign := request{op: opDrop, seq: 7}.encode()
	order.PutUint32(foreign[4:], version+1)
	if _, err := c.sock.Write(foreign); err != nil {
		t.Fatal(err)
	}
	if a := <-c.answers; a.err != refusal(unix.EPROTO) || a.version != version {
		t.Errorf("another version: %+v", a)
	}
	for _, junk := range [][]byte{{1}, bytes.Repeat([]byte{0xff}, requestLen), bytes.Repeat([]byte{1}, 5000)} {
		bad, err := dial(t.Context(), dir, socketName(version))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bad.sock.Write(junk); err != nil {
			t.Fatal(err)
		}
		select {
		case <-bad.gone:
		case <-time.After(patience):
			t.Errorf("%d bytes of junk: it is still connected", len(junk))
		}
		bad.close()
	}
	c.close()
	eventually(t, "no file is left of all that", func() bool { return files() == before })
	if s := Probe(t.Context(), dir); s.Err != nil || s.Held != 0 {
		t.Errorf("after that: %+v", s)
	}
}

func TestTooManyClients(t *testing.T) {
	dir := shortDir(t)
	h := opened(t, dir)
	var got []*conn
	for range 20 {
		if c, err := dial(t.Context(), dir, socketName(version)); err == nil {
			got = append(got, c)
		}
	}
	if len(got) > 8 {
		t.Errorf("%d clients at a time", len(got))
	}
	if err := h.Hold("a", fifo(t, dir, "out")); err != nil {
		t.Errorf("crid's own connection: %v", err)
	}
	for _, c := range got {
		c.close()
	}
	eventually(t, "there is room again", func() bool { return Probe(t.Context(), dir).Err == nil })
}

func TestOnlyFifosAreHeld(t *testing.T) {
	dir := shortDir(t)
	h := opened(t, dir)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(fifo(t, dir, "out"), link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link, filepath.Join(dir, "none")} {
		if err := h.Hold("a", path); err == nil {
			t.Errorf("%s is held", path)
		}
	}
	for _, bad := range []error{h.Hold("", file), h.Hold(strings.Repeat("a", 65), file), h.Hold("a"), h.Hold("a", file, file, file, file, file)} {
		if !errors.Is(bad, errdefs.ErrInvalidArgument) {
			t.Errorf("%v", bad)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(make([]byte, answerMax))
	good := make([]byte, answerHead+idLen)
	order.PutUint32(good, magic)
	order.PutUint32(good[4:], version)
	order.PutUint32(good[32:], 1)
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := decode(b)
		if err == nil && len(a.list) > page {
			t.Errorf("%d ids", len(a.list))
		}
	})
}

func BenchmarkHold(b *testing.B) {
	dir := b.TempDir()
	defer func() { _ = End(context.Background(), dir) }()
	h := Open(b.Context(), dir, slog.New(slog.DiscardHandler))
	defer h.Close()
	out := filepath.Join(dir, "out")
	if err := unix.Mkfifo(out, 0o600); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := h.Hold("a", out, out); err != nil {
			b.Fatal(err)
		}
	}
}
