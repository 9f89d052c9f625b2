package stdio

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/shimclient"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeShim treats pipes as the runc shim does, with real processes: outputs are copied through a pipe of its own, it holds
// both ends of every output fifo, opens stdin late and in the background, and keeps a write end of stdin until told.
type fakeShim struct {
	t *testing.T

	slowStdin  time.Duration // how late the shim opens stdin
	deleteWait time.Duration // how long delete waits for output

	startBlocks chan struct{} // if set, StartExec takes effect only when this closes

	mu      sync.Mutex
	execs   map[string]*fakeExec
	deletes int
	sizes   []Size
	resize  func(context.Context) error
}

type fakeExec struct {
	spec  shimclient.ExecSpec
	cmd   *exec.Cmd
	done  chan struct{}
	code  int
	stdin *os.File // write end kept open, as the shim does
	outs  sync.WaitGroup
	read  []*os.File // read ends of the process's pipes
}

func newFakeShim(t *testing.T) *fakeShim {
	s := &fakeShim{t: t, execs: map[string]*fakeExec{}, deleteWait: 2 * time.Second}
	return s
}

func (s *fakeShim) get(execID string) (*fakeExec, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.execs[execID]
	if e == nil {
		return nil, fmt.Errorf("exec %s: %w", execID, errdefs.ErrNotFound)
	}
	return e, nil
}

func (s *fakeShim) Exec(ctx context.Context, spec shimclient.ExecSpec) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.execs[spec.ExecID] = &fakeExec{spec: spec, done: make(chan struct{})}
	return nil
}

func (s *fakeShim) StartExec(ctx context.Context, id, execID string) (int, error) {
	e, err := s.get(execID)
	if err != nil {
		return 0, err
	}
	if s.startBlocks != nil {
		started := make(chan error, 1)
		go func() {
			<-s.startBlocks
			started <- s.start(e)
		}()
		select {
		case err = <-started:
		case <-ctx.Done():
			return 0, ctx.Err() // and the start still takes effect
		}
	} else {
		err = s.start(e)
	}
	if err != nil {
		return 0, err
	}
	return e.cmd.Process.Pid, nil
}

func (s *fakeShim) start(e *fakeExec) error {
	cmd := exec.Command(e.spec.Process.Args[0], e.spec.Process.Args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var inR, inW *os.File
	var err error
	if e.spec.Stdin != "" {
		if inR, inW, err = os.Pipe(); err != nil {
			return err
		}
		cmd.Stdin = inR
	}
	var ours []*os.File
	open := func(path string) (*os.File, error) {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		ours = append(ours, w)
		s.copyOut(e, path, r)
		return w, nil
	}
	if cmd.Stdout, err = open(e.spec.Stdout); err != nil {
		return err
	}
	if e.spec.Stderr != "" {
		if cmd.Stderr, err = open(e.spec.Stderr); err != nil {
			return err
		}
	}
	err = cmd.Start()
	for _, f := range ours {
		f.Close()
	}
	if inR != nil {
		inR.Close()
		if err == nil {
			s.copyIn(e, inW)
		}
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	e.cmd = cmd
	s.mu.Unlock()
	go func() {
		state, _ := cmd.Process.Wait()
		e.code = state.ExitCode()
		if ws := state.Sys().(syscall.WaitStatus); ws.Signaled() {
			e.code = 128 + int(ws.Signal())
		}
		close(e.done)
	}()
	s.t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }) // background children, by their own group
	return nil
}

func (s *fakeShim) copyOut(e *fakeExec, path string, r *os.File) {
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		s.t.Error(err)
		return
	}
	var keep *os.File
	if path != nullDevice {
		keep, _ = os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	}
	e.read = append(e.read, r)
	e.outs.Add(1)
	go func() {
		defer e.outs.Done()
		_, _ = io.Copy(onlyWriter{w}, onlyReader{r})
		w.Close()
		keep.Close()
		r.Close()
	}()
}

func (s *fakeShim) copyIn(e *fakeExec, inW *os.File) {
	go func() {
		time.Sleep(s.slowStdin)
		r, err := os.OpenFile(e.spec.Stdin, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			inW.Close()
			return
		}
		w, err := os.OpenFile(e.spec.Stdin, os.O_WRONLY, 0)
		if err != nil { // killed and removed meanwhile
			inW.Close()
			r.Close()
			return
		}
		s.mu.Lock()
		e.stdin = w
		s.mu.Unlock()
		go func() { <-e.done; w.Close() }()
		_, _ = io.Copy(onlyWriter{inW}, onlyReader{r})
		inW.Close()
		r.Close()
	}()
}

func (s *fakeShim) WaitExec(ctx context.Context, id, execID string) (shimclient.Exit, error) {
	e, err := s.get(execID)
	if err != nil {
		return shimclient.Exit{}, err
	}
	select {
	case <-e.done:
		return shimclient.Exit{Code: e.code}, nil
	case <-ctx.Done():
		return shimclient.Exit{}, ctx.Err()
	}
}

func (s *fakeShim) KillExec(ctx context.Context, id, execID string, sig uint32) error {
	e, err := s.get(execID)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-e.done:
		return fmt.Errorf("already finished: %w", errdefs.ErrNotFound)
	default:
	}
	if e.cmd == nil {
		return fmt.Errorf("not created: %w", errdefs.ErrFailedPrecondition)
	}
	return e.cmd.Process.Signal(syscall.Signal(sig))
}

func (s *fakeShim) DeleteExec(ctx context.Context, id, execID string) (exit shimclient.Exit, err error) {
	e, err := s.get(execID)
	if err != nil {
		return exit, err
	}
	s.mu.Lock()
	started := e.cmd != nil
	s.mu.Unlock()
	if started {
		select {
		case <-e.done:
		default:
			return exit, errors.New("cannot delete a running process")
		}
		outs := make(chan struct{})
		go func() { e.outs.Wait(); close(outs) }()
		select {
		case <-outs:
		case <-time.After(s.deleteWait):
			for _, r := range e.read {
				r.Close()
			}
		}
	} else if s.startBlocks != nil {
		return exit, errors.New("busy starting")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.execs, execID)
	s.deletes++
	return exit, nil
}

func (s *fakeShim) ResizePty(ctx context.Context, id, execID string, w, h uint32) error {
	s.mu.Lock()
	s.sizes = append(s.sizes, Size{uint16(w), uint16(h)})
	s.mu.Unlock()
	if s.resize != nil {
		return s.resize(ctx)
	}
	return nil
}

func (s *fakeShim) CloseStdin(ctx context.Context, id, execID string) error {
	for range 1000 { // the real one's close waits for its own open as well
		s.mu.Lock()
		e := s.execs[execID]
		if e == nil {
			s.mu.Unlock()
			return errdefs.ErrNotFound
		}
		if e.stdin != nil {
			e.stdin.Close()
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		time.Sleep(time.Millisecond)
	}
	return errdefs.ErrUnavailable
}

func (s *fakeShim) left() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.execs)
}

func sh(script string) *oci.Process { return &oci.Process{Args: []string{"/bin/sh", "-c", script}} }

// run runs one exec with buffers for its output.
func run(ctx context.Context, s Execer, dir, script string, req ExecRequest) (code int, out, errOut string, err error) {
	var o, e bytes.Buffer
	if req.Stdout == nil {
		req.Stdout = &o
	}
	if req.Stderr == nil {
		req.Stderr = &e
	}
	code, err = Exec(ctx, s, "c1", sh(script), dir, req)
	return code, o.String(), e.String(), err
}

// eventually waits for what happens in the background of a call that has returned.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: still not after 10 s", what)
		}
	}
}

func emptyDir(t *testing.T, dir string) func() bool {
	return func() bool {
		entries, err := os.ReadDir(dir)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return len(entries) == 0
	}
}

func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
