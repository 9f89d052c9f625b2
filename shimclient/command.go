package shimclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
)

// maxAnswer bounds what a shim command may print on stdout, in bytes.
const maxAnswer = 1 << 20

var errTooMuch = errors.New("output is too long")

// command is one short run of a shim binary.
type command struct {
	path, dir string
	args, env []string
	stdin     []byte
	timeout   time.Duration
}

// commandError carries what a failed run wrote to stderr.
type commandError struct {
	err    error
	stderr string
}

func (e *commandError) Error() string {
	if e.stderr == "" {
		return e.err.Error()
	}
	return e.err.Error() + ": " + e.stderr
}

func (e *commandError) Unwrap() error { return e.err }

// run runs the command, within its time-out. A program that somebody is just
// writing, as an upgrade may do, cannot be run; it is tried again for a while.
func (c command) run(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	for try := 0; ; try++ {
		out, err := c.once(ctx)
		if try == busyTries || !errors.Is(err, syscall.ETXTBSY) {
			return out, err
		}
		select {
		case <-ctx.Done():
			return out, err
		case <-time.After(busyPause):
		}
	}
}

// A program is written in less than a second.
const (
	busyTries = 20
	busyPause = 50 * time.Millisecond
)

// once returns stdout alone: a warning on stderr must not become part of an
// answer. The run is its own process group, and at the deadline the whole group
// is killed; a shim that has been started is in another one by then.
func (c command) once(ctx context.Context) ([]byte, error) {
	cmd := exec.CommandContext(ctx, c.path, c.args...)
	cmd.Dir, cmd.Env = c.dir, c.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	// Whoever inherited our pipes and lives on must not keep us waiting.
	cmd.WaitDelay = time.Second
	if len(c.stdin) > 0 {
		cmd.Stdin = bytes.NewReader(c.stdin)
	}
	stdout := &bounded{max: maxAnswer, strict: true}
	stderr := &bounded{max: maxMessage}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err := cmd.Run()
	if err == nil {
		return stdout.buf.Bytes(), nil
	}
	switch {
	case stdout.over:
		err = fmt.Errorf("more than %d bytes on stdout: %w", maxAnswer, errdefs.ErrResourceExhausted)
	case ctx.Err() != nil:
		err = fmt.Errorf("no end before the deadline: %w", ctx.Err())
	case errors.Is(err, exec.ErrWaitDelay):
		return stdout.buf.Bytes(), nil // it succeeded; somebody kept the pipe
	}
	return nil, &commandError{err, clip(stderr.buf.String())}
}

// bounded keeps the first max bytes. A strict one refuses the rest, which ends
// the writer; another one swallows it.
type bounded struct {
	buf    bytes.Buffer
	max    int
	strict bool
	over   bool
}

func (b *bounded) Write(p []byte) (int, error) {
	room := b.max - b.buf.Len()
	if len(p) <= room {
		return b.buf.Write(p)
	}
	b.buf.Write(p[:room])
	b.over = true
	if b.strict {
		return room, errTooMuch
	}
	return len(p), nil
}
