package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/container/logs"
	"github.com/crid-project/crid/container/stdio"
	"github.com/crid-project/crid/failpoint"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

// streams are the open ends of one container's standard streams.
type streams struct {
	dir   string
	tty   bool
	log   *logs.Log
	stdin *stdio.Stdin // nil if the container has none

	mu     sync.Mutex
	tails  []Tail
	closed bool
}

func (s *streams) stdoutPath() string { return filepath.Join(s.dir, "stdout") }

func (s *streams) stderrPath() string {
	if s.tty {
		return "" // a terminal has one stream
	}
	return filepath.Join(s.dir, "stderr")
}

func (s *streams) stdinPath() string {
	if s.stdin == nil {
		return ""
	}
	return s.stdin.Path()
}

// Subscribe implements stdio.Output.
func (s *streams) Subscribe(stdout, stderr io.Writer) (cancel func(), done <-chan struct{}) {
	sub := s.log.Subscribe(stdout, stderr)
	return sub.Cancel, sub.Done()
}

// ends answers the tails; a tail is done when its stream has ended.
func (s *streams) ends() []Tail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tails
}

func (s *streams) close() {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return
	}
	_ = s.log.Close()
	if s.stdin != nil {
		s.stdin.Close()
	}
}

func (c *Containers) ioDir(id string) string { return filepath.Join(c.Bundle(id), "io") }

// prepareStreams makes the log file, so that a kubelet finds one, and the pipes.
func (c *Containers) prepareStreams(id string) error {
	v, err := c.Ledger.Container(id)
	if err != nil {
		return err
	}
	s, err := c.newStreams(v)
	if err != nil {
		return err
	}
	s.close()
	return nil
}

func (c *Containers) newStreams(v *store.Container) (*streams, error) {
	s := &streams{dir: c.ioDir(v.ID), tty: v.TTY}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make pipes: %w", err)
	}
	for _, path := range []string{s.stdoutPath(), s.stderrPath()} {
		if path == "" {
			continue
		}
		if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, fmt.Errorf("make pipe %s: %w", path, err)
		}
	}
	if v.Stdin {
		s.stdin = stdio.NewStdin(filepath.Join(s.dir, "stdin"), v.StdinOnce, v.TTY)
		if err := s.stdin.Make(); err != nil {
			return nil, fmt.Errorf("make stdin: %w", err)
		}
	}
	if err := failpoint.At("c5"); err != nil {
		return nil, err
	}
	log, err := logs.Open(v.LogPath, logs.Options{MaxLine: c.MaxLogLine, TTY: v.TTY, Buffers: c.Buffers, Owner: v.ID})
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	s.log = log
	return s, nil
}

// openStreams has the container's output followed. Idempotent; also takes up
// the pipes of an earlier run again, which go on where that one stopped.
func (c *Containers) openStreams(v *store.Container) (*streams, error) {
	if s := c.stream(v.ID); s != nil {
		return s, nil
	}
	s, err := c.newStreams(v)
	if err != nil {
		return nil, err
	}
	for stream, path := range map[logs.Stream]string{logs.Stdout: s.stdoutPath(), logs.Stderr: s.stderrPath()} {
		if path == "" {
			continue
		}
		t, err := c.Follow(s.log, stream, path)
		if err != nil {
			s.close()
			return nil, fmt.Errorf("follow %s: %w", stream, err)
		}
		s.tails = append(s.tails, t)
	}
	c.holdOutput(v, s)
	c.mu.Lock()
	defer c.mu.Unlock()
	if other := c.streams[v.ID]; other != nil {
		s.close()
		return other, nil
	}
	c.streams[v.ID] = s
	return s, nil
}

func (c *Containers) stream(id string) *streams {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.streams[id]
}

// drain waits until what a container wrote before its end is in the log, within
// a bound: somebody outside its cgroup may hold the pipe open for ever.
func (c *Containers) drain(id string, within time.Duration) {
	s := c.stream(id)
	if s == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	var wg sync.WaitGroup
	for _, t := range s.ends() {
		wg.Add(1)
		go func() {
			defer wg.Done()
			_ = t.Drain(ctx)
		}()
	}
	wg.Wait()
}

// closeStreams ends the following and closes the log.
func (c *Containers) closeStreams(id string) {
	c.mu.Lock()
	s := c.streams[id]
	delete(c.streams, id)
	c.mu.Unlock()
	if s != nil {
		s.close()
	}
	c.dropOutput(id)
}

// finishStreams reads what a container left in its pipes that ended while
// nobody followed.
func (c *Containers) finishStreams(v *store.Container) {
	if _, err := os.Lstat(c.ioDir(v.ID)); err != nil || !v.State.Dirty {
		return
	}
	if _, err := c.openStreams(v); err != nil {
		c.Log.Warn("read the rest of the output", "container", v.ID, "err", err)
		return
	}
	c.drain(v.ID, drainDeadline)
	c.closeStreams(v.ID)
}

// forget lets go of everything kept for a container.
func (c *Containers) forget(id string) {
	c.release(id)
	c.closeStreams(id)
}

// ReopenLog goes on in a new file at the log's path, after the kubelet moved
// the old one away.
func (c *Containers) ReopenLog(_ context.Context, id string) error {
	v, err := c.Ledger.Container(id)
	if err != nil {
		return err
	}
	if v.State.Phase != lifecycle.Running {
		return fmt.Errorf("reopen log of container %s: it is not running but %s: %w", v.ID, v.State.Phase, errdefs.ErrFailedPrecondition)
	}
	s := c.stream(v.ID)
	if s == nil {
		return fmt.Errorf("reopen log of container %s: its streams are not open: %w", v.ID, errdefs.ErrUnavailable)
	}
	if err := s.log.Reopen(); err != nil {
		return fmt.Errorf("reopen log of container %s: %w", v.ID, err)
	}
	return nil
}

func (s *streams) attach(ctx context.Context, task stdio.Task, id string, r stdio.AttachRequest) error {
	return stdio.Attach(ctx, task, id, s, s.stdin, r)
}
