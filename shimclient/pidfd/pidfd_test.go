package pidfd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	switch os.Getenv("PIDFD_TEST_ROLE") {
	case "headless":
		headless()
	case "":
		goleak.VerifyTestMain(m)
	}
}

// headless is a process whose first thread has exited while another runs on.
func headless() {
	fmt.Println("up")
	go func() {
		runtime.LockOSThread()
		io.Copy(io.Discard, os.Stdin) // until the test lets go
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 7, 0, 0)
	}()
	time.Sleep(50 * time.Millisecond)
	unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
}

func init() {
	// The first thread is the test's own only if it is claimed before main.
	if os.Getenv("PIDFD_TEST_ROLE") == "headless" {
		runtime.LockOSThread()
	}
}

// held is a process that ends when the test closes its input, and is not reaped
// before the test says so.
type held struct {
	cmd   *exec.Cmd
	stdin io.Closer
	t     *testing.T
}

func start(t *testing.T, script string) *held {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "read x; "+script)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := &held{cmd, in, t}
	t.Cleanup(func() { in.Close(); cmd.Process.Kill(); cmd.Wait() })
	return h
}

func (h *held) pid() int { return h.cmd.Process.Pid }
func (h *held) end()     { h.stdin.Close() }
func (h *held) reap()    { h.cmd.Wait() }

func (h *held) open() *Handle {
	h.t.Helper()
	p, err := Identify(h.pid())
	if err != nil {
		h.t.Fatal(err)
	}
	fd, err := Open(p)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { fd.Close() })
	return fd
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never happened: %s", what)
}

func TestExitCodeOfAProcessThatIsNotOurChild(t *testing.T) {
	for _, c := range []struct {
		script string
		code   int
		sig    unix.Signal
	}{
		{"exit 0", 0, 0},
		{"exit 42", 42, 0},
		{"exit 137", 137, 0}, // chosen by the process: no signal
		{"kill -KILL $$", 137, unix.SIGKILL},
		{"kill -TERM $$", 143, unix.SIGTERM},
	} {
		t.Run(c.script, func(t *testing.T) {
			h := start(t, c.script)
			fd := h.open()
			if _, ok := fd.Status(); ok || fd.Exited() {
				t.Fatal("a running process has a status")
			}
			h.end()
			eventually(t, "exit", fd.Exited)
			check := func(when string) {
				t.Helper()
				st, ok := fd.Status()
				if !ok {
					t.Fatalf("%s: no status", when)
				}
				sig, signaled := st.Signaled()
				if st.Code() != c.code || signaled != (c.sig != 0) || sig != c.sig {
					t.Fatalf("%s: code %d, signal %v %v; want %d, %v", when, st.Code(), sig, signaled, c.code, c.sig)
				}
			}
			check("as a zombie")
			h.reap()
			if !kernelKeepsStatus(t) {
				t.Skip("needs Linux 6.15: the kernel forgets the status of a reaped process")
			}
			check("after the reaping")
		})
	}
}

func kernelKeepsStatus(t *testing.T) bool {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	var major, minor int
	fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return major > 6 || major == 6 && minor >= 15
}

func TestZombieIsDeadButItsStatusCanStillBeFetched(t *testing.T) {
	h := start(t, "exit 3")
	fd := h.open()
	p := fd.Process()
	if alive, err := p.Alive(); err != nil || !alive {
		t.Fatalf("alive: %v, %v", alive, err)
	}
	h.end()
	eventually(t, "exit", fd.Exited)
	if alive, err := p.Alive(); err != nil || alive {
		t.Fatalf("zombie: alive %v, %v", alive, err)
	}
	if _, err := Identify(p.Pid); !errors.Is(err, ErrGone) {
		t.Fatalf("identify a zombie: %v", err)
	}
	if err := fd.Signal(unix.SIGTERM); !errors.Is(err, ErrGone) {
		t.Fatalf("signal a zombie: %v", err)
	}
	// A daemon that restarts now finds a zombie under a stopped shim.
	late, err := Open(p)
	if err != nil {
		t.Fatalf("open a zombie: %v", err)
	}
	defer late.Close()
	if st, ok := late.Status(); !ok || st.Code() != 3 {
		t.Fatalf("status of a zombie: %v %v", st, ok)
	}
	h.reap()
	if _, err := Open(p); !errors.Is(err, ErrGone) {
		t.Fatalf("open a reaped process: %v", err)
	}
	if alive, err := p.Alive(); err != nil || alive {
		t.Fatalf("reaped: alive %v, %v", alive, err)
	}
}

func TestStrangerWithOurPidIsNeverSignalled(t *testing.T) {
	h := start(t, "exit 0")
	p, err := Identify(h.pid())
	if err != nil {
		t.Fatal(err)
	}
	p.StartTime-- // the record is of an earlier process
	if alive, err := p.Alive(); err != nil || alive {
		t.Fatalf("alive %v, %v", alive, err)
	}
	if fd, err := Open(p); !errors.Is(err, ErrGone) {
		fd.Close()
		t.Fatalf("open: %v", err)
	}
	for _, pid := range []int{0, -1} { // kill(2) would take these for whole groups
		if fd, err := Open(Process{Pid: pid}); !errors.Is(err, ErrGone) {
			fd.Close()
			t.Fatalf("open pid %d: %v", pid, err)
		}
		if _, err := Identify(pid); !errors.Is(err, ErrGone) {
			t.Fatalf("identify pid %d: %v", pid, err)
		}
	}
}

func TestProcessWhoseFirstThreadExitedIsAlive(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PIDFD_TEST_ROLE=headless")
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	bufio.NewReader(out).ReadString('\n')
	stat := "/proc/" + strconv.Itoa(cmd.Process.Pid) + "/stat"
	eventually(t, "first thread is a zombie", func() bool {
		b, _ := os.ReadFile(stat)
		return strings.Contains(string(b), ") Z ")
	})
	p, err := Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := Open(p)
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	if alive, err := p.Alive(); err != nil || !alive || fd.Exited() {
		t.Fatalf("alive %v, %v, exited %v", alive, err, fd.Exited())
	}
	in.Close()
	eventually(t, "exit", fd.Exited)
	if st, ok := fd.Status(); !ok || st.Code() != 7 {
		t.Fatalf("status %v %v", st, ok)
	}
}

func TestProcessNameCannotFakeAState(t *testing.T) {
	rest := strings.Repeat("0 ", 16) + "4 0 777 " + strings.Repeat("0 ", 29) + "10752\n"
	st, err := parseStat([]byte("12 (a) Z 1 (b) S " + rest))
	if err != nil {
		t.Fatal(err)
	}
	if st != (stat{state: 'S', threads: 4, startTime: 777, exitCode: 10752}) {
		t.Fatalf("%+v", st)
	}
	for _, bad := range []string{"", "12", "12 (x", "12 (x)", "12 (x) S 1 2 3", "12 (x) " + strings.Repeat("y ", 60)} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestWatcherTellsEachEndOnce(t *testing.T) {
	w, err := NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	const n = 100 // more than one read of the epoll set
	var calls [n]atomic.Int32
	var all sync.WaitGroup
	var procs []*held
	for i := range n {
		h := start(t, "exit 0")
		procs = append(procs, h)
		all.Add(1)
		if err := w.Watch(h.open(), func() { calls[i].Add(1); all.Done() }); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range procs {
		h.end()
	}
	all.Wait()
	for _, h := range procs {
		h.reap()
	}
	for i := range calls {
		if c := calls[i].Load(); c != 1 {
			t.Errorf("watch %d: told %d times", i, c)
		}
	}
}

func TestWatcherTellsOfWhatHappenedBefore(t *testing.T) {
	w, _ := NewWatcher()
	defer w.Close()
	h := start(t, "exit 0")
	fd := h.open()
	h.end()
	eventually(t, "exit", fd.Exited)
	h.reap()
	told := make(chan struct{})
	if err := w.Watch(fd, func() { close(told) }); err != nil {
		t.Fatal(err)
	}
	<-told
}

func TestForgottenAndClosedHandlesAreSilent(t *testing.T) {
	w, _ := NewWatcher()
	defer w.Close()
	var wrong atomic.Int32
	forgotten, closed, last := start(t, "exit 0"), start(t, "exit 0"), start(t, "exit 0")
	f, c := forgotten.open(), closed.open()
	w.Watch(f, func() { wrong.Add(1) })
	w.Watch(c, func() { wrong.Add(1) })
	w.Forget(f)
	w.Forget(f)
	c.Close()
	c.Close()
	for _, h := range []*held{forgotten, closed} {
		h.end()
		h.reap()
	}
	// A later event of the same set: the earlier ones would have come before it.
	told := make(chan struct{})
	w.Watch(last.open(), func() { close(told) })
	last.end()
	<-told
	if wrong.Load() != 0 {
		t.Fatal("told of a handle that nobody watches")
	}
	if err := w.Watch(c, func() {}); !errors.Is(err, ErrClosed) {
		t.Fatalf("watch a closed handle: %v", err)
	}
	if len(w.funcs) != 0 {
		t.Fatalf("%d watches left behind", len(w.funcs))
	}
}

func TestClosedWatcherRefuses(t *testing.T) {
	w, _ := NewWatcher()
	fd := start(t, "exit 0").open()
	w.Watch(fd, func() {})
	w.Close()
	w.Close()
	if err := w.Watch(fd, func() {}); !errors.Is(err, ErrClosed) {
		t.Fatalf("%v", err)
	}
	w.Forget(fd)
}

func BenchmarkAlive(b *testing.B) {
	p, _ := Identify(os.Getpid())
	b.ReportAllocs()
	for b.Loop() {
		p.Alive()
	}
}
