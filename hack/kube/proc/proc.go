package proc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Spec says what to run. Dir gets NAME.log and NAME.pid.
type Spec struct {
	Dir   string
	Name  string
	Argv  []string // the program's absolute path first
	Env   []string // beside this process's own
	NetNS string   // path of a network namespace to run in; empty is this process's
}

// Process is a server that runs or ran.
type Process struct {
	Name string
	Dir  string
	id   identity
	done chan struct{} // closed when a child has been waited for; nil for somebody else's child
}

type identity struct {
	Pid   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot, field 22 of /proc/PID/stat
}

// LogFile is where a server writes.
func (s Spec) LogFile() string { return filepath.Join(s.Dir, s.Name+".log") }

func pidFile(dir, name string) string { return filepath.Join(dir, name+".pid") }

// Start runs a server in a session of its own. If one of that name runs in Dir, that is an error.
func Start(s Spec) (*Process, error) {
	if p, err := Find(s.Dir, s.Name); err == nil && p.Alive() {
		return nil, fmt.Errorf("start %s: it runs already, pid %d", s.Name, p.id.Pid)
	}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	log, err := os.OpenFile(s.LogFile(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	defer log.Close()
	argv := s.Argv
	if s.NetNS != "" { // not `ip netns exec`: that mounts another /sys, without cgroups
		nsenter, err := exec.LookPath("nsenter")
		if err != nil {
			return nil, fmt.Errorf("start %s: %w", s.Name, err)
		}
		argv = append([]string{nsenter, "--net=" + s.NetNS, "--"}, argv...)
	}
	cmd := &exec.Cmd{Path: argv[0], Args: argv, Env: append(os.Environ(), s.Env...), Dir: "/", Stdout: log, Stderr: log,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	p := &Process{Name: s.Name, Dir: s.Dir, done: make(chan struct{})}
	p.id.Pid = cmd.Process.Pid
	p.id.Start, _ = startTime(p.id.Pid) // it is our child: until we wait the pid is nobody else's
	go func() { _ = cmd.Wait(); close(p.done) }()
	data, err := json.Marshal(p.id)
	if err == nil {
		err = os.WriteFile(pidFile(s.Dir, s.Name), data, 0o644)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", s.Name, err), p.Kill())
	}
	return p, nil
}

// Find gives the server of that name that was started with that Dir, by whomever. It may be dead.
func Find(dir, name string) (*Process, error) {
	data, err := os.ReadFile(pidFile(dir, name))
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", name, err)
	}
	p := &Process{Name: name, Dir: dir}
	if err := json.Unmarshal(data, &p.id); err != nil {
		return nil, fmt.Errorf("find %s: %w", name, err)
	}
	return p, nil
}

// Pid of the process; it may be dead.
func (p *Process) Pid() int { return p.id.Pid }

// Alive tells whether it runs. A zombie does not.
func (p *Process) Alive() bool {
	if p.done != nil {
		select {
		case <-p.done:
			return false
		default:
		}
	}
	start, err := startTime(p.id.Pid)
	return err == nil && start == p.id.Start
}

// Stop sends SIGTERM, after grace SIGKILL, and waits until it is gone. It may be called twice. A SIGKILL is an error: servers should end.
func (p *Process) Stop(grace time.Duration) error {
	if err := p.signal(unix.SIGTERM); err != nil {
		return err
	}
	if !p.gone(grace) {
		return errors.Join(fmt.Errorf("stop %s: still there %s after SIGTERM", p.Name, grace), p.Kill())
	}
	return p.forget()
}

// Kill sends SIGKILL and waits until it is gone. It may be called twice.
func (p *Process) Kill() error {
	if err := p.signal(unix.SIGKILL); err != nil {
		return err
	}
	if !p.gone(10 * time.Second) {
		return fmt.Errorf("kill %s: pid %d is still there", p.Name, p.id.Pid)
	}
	return p.forget()
}

func (p *Process) forget() error {
	if err := os.Remove(pidFile(p.Dir, p.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (p *Process) signal(s unix.Signal) error {
	fd, err := unix.PidfdOpen(p.id.Pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("signal %s: %w", p.Name, err)
	}
	defer unix.Close(fd)
	if !p.Alive() {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, s, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal %s: %w", p.Name, err)
	}
	return nil
}

func (p *Process) gone(limit time.Duration) bool {
	for deadline := time.Now().Add(limit); p.Alive(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// WaitFor asks until ready is nil, at most limit long. It gives up at once when the process is dead, and says what it wrote last.
func (p *Process) WaitFor(ctx context.Context, limit time.Duration, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		if !p.Alive() {
			return fmt.Errorf("%s has ended:\n%s", p.Name, p.LogTail(15))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready within %s: %w\n%s", p.Name, limit, err, p.LogTail(15))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// LogTail is the end of what it wrote.
func (p *Process) LogTail(lines int) string {
	data, err := os.ReadFile(Spec{Dir: p.Dir, Name: p.Name}.LogFile())
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// startTime fails for a pid that nobody has, or that only a zombie has.
func startTime(pid int) (uint64, error) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:])) // the name, in parentheses, may hold anything
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return 0, fs.ErrNotExist
	}
	return strconv.ParseUint(fields[19], 10, 64)
}
