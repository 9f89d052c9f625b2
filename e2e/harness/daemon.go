package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Kind is a container runtime that the harness can run.
type Kind interface {
	// Name of the runtime, for people.
	Name() string
	// Prepare writes the configuration for a home and gives the program and its arguments.
	Prepare(h *Home) (program string, args []string, err error)
}

// Daemon is a container runtime in a home. It is a child of this process, in a session of its own.
type Daemon struct {
	Home *Home
	Kind Kind
	*CRI // set while it runs

	cmd  *exec.Cmd
	done chan struct{} // closed when the process is dead and reaped
	exit error
}

// startLimit is how long a daemon may take until it answers Version.
const startLimit = 30 * time.Second

// Launch starts a runtime in a home and waits until it answers.
func Launch(ctx context.Context, h *Home, kind Kind) (*Daemon, error) {
	d := &Daemon{Home: h, Kind: kind}
	return d, d.Start(ctx)
}

// Start starts the daemon again, in the home as it is. On an error nothing runs.
func (d *Daemon) Start(ctx context.Context) error {
	if d.Running() {
		return errors.New("start daemon: it runs already")
	}
	if err := d.spawn(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	cri, err := Dial(d.Home.Socket())
	if err != nil {
		return errors.Join(err, d.Kill())
	}
	d.CRI = cri
	if err := d.ready(ctx); err != nil {
		return errors.Join(err, d.Kill())
	}
	return nil
}

func (d *Daemon) spawn() error {
	program, args, err := d.Kind.Prepare(d.Home)
	if err != nil {
		return fmt.Errorf("start %s: %w", d.Kind.Name(), err)
	}
	log, err := os.OpenFile(d.Home.Log(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("start %s: %w", d.Kind.Name(), err)
	}
	defer log.Close()
	// No context: the daemon's life is not that of the call which starts it.
	d.cmd = &exec.Cmd{Path: program, Args: append([]string{program}, args...), Dir: "/", Stdout: log, Stderr: log,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
	if more, ok := d.Kind.(interface{ Env() []string }); ok {
		d.cmd.Env = append(os.Environ(), more.Env()...)
	}
	if err := d.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", d.Kind.Name(), err)
	}
	d.done = make(chan struct{})
	go func() { d.exit = d.cmd.Wait(); close(d.done) }()
	return nil
}

func (d *Daemon) ready(ctx context.Context) error {
	for {
		if _, err := d.Version(ctx); err == nil {
			return nil
		}
		select {
		case <-d.done:
			return fmt.Errorf("start %s: it ended at once (%w):\n%s", d.Kind.Name(), d.exit, d.LogTail(15))
		case <-ctx.Done():
			return fmt.Errorf("start %s: no answer within %s:\n%s", d.Kind.Name(), startLimit, d.LogTail(15))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Pid of the daemon; 0 if it does not run.
func (d *Daemon) Pid() int {
	if !d.Running() {
		return 0
	}
	return d.cmd.Process.Pid
}

// Running tells whether the process lives.
func (d *Daemon) Running() bool {
	if d.done == nil {
		return false
	}
	select {
	case <-d.done:
		return false
	default:
		return true
	}
}

// Kill ends the daemon as a crash would, by SIGKILL, and waits until it is gone. Pods are not told.
func (d *Daemon) Kill() error { return d.end(syscall.SIGKILL, 10*time.Second) }

// Stop ends the daemon as a service manager would, by SIGTERM, and waits until it is gone. It fails if that takes more than 15 seconds.
// Pods stay as they are.
func (d *Daemon) Stop() error { return d.end(syscall.SIGTERM, 15*time.Second) }

func (d *Daemon) end(signal syscall.Signal, limit time.Duration) error {
	if d.CRI != nil {
		d.CRI.Close()
		d.CRI = nil
	}
	if !d.Running() {
		return nil
	}
	if err := d.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end %s: %w", d.Kind.Name(), err)
	}
	select {
	case <-d.done:
		return nil
	case <-time.After(limit):
		return fmt.Errorf("end %s: still there %s after %s", d.Kind.Name(), limit, signal)
	}
}

// LogTail is the end of the daemon's own log.
func (d *Daemon) LogTail(lines int) string {
	data, err := os.ReadFile(d.Home.Log())
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
