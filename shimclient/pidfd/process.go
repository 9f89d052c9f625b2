package pidfd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrGone says that the process named does not live any more, or that its pid
// belongs to another process by now. It is a statement of the kernel, so it is
// the one error that proves a death.
var ErrGone = errors.New("process is gone")

// Process names one process for as long as the machine is up. The zero value
// names none and is never alive.
type Process struct {
	Pid int `json:"pid"`
	// StartTime is field 22 of /proc/PID/stat, in clock ticks since boot.
	StartTime uint64 `json:"start_time"`
}

// Identify names the process that has this pid now. It returns ErrGone if there
// is none, or only the remains of one (a zombie waiting for its parent).
func Identify(pid int) (Process, error) {
	st, err := readStat(pid)
	if err != nil {
		return Process{}, err
	}
	if st.dead() {
		return Process{}, fmt.Errorf("identify pid %d (state %c): %w", pid, st.state, ErrGone)
	}
	return Process{Pid: pid, StartTime: st.startTime}, nil
}

// Alive tells whether this very process still runs. A zombie does not, and
// neither does a stranger with the same pid. The error is for a /proc that
// cannot be read: then nothing is known, and nothing may be concluded.
func (p Process) Alive() (bool, error) {
	st, err := readStat(p.Pid)
	if errors.Is(err, ErrGone) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return st.startTime == p.StartTime && !st.dead(), nil
}

// String is for logs.
func (p Process) String() string {
	return fmt.Sprintf("pid %d (started at tick %d)", p.Pid, p.StartTime)
}

// stat is what this package reads of /proc/PID/stat; see proc_pid_stat(5).
type stat struct {
	state     byte
	parent    int
	threads   int
	startTime uint64
	exitCode  uint32
}

// dead is true for a process that runs no more. A leading thread that has
// exited shows as Z too while the other threads of its process work on: the
// count of threads tells the two apart.
func (s stat) dead() bool {
	switch s.state {
	case 'X', 'x':
		return true
	case 'Z':
		return s.threads <= 1
	}
	return false
}

func readStat(pid int) (stat, error) {
	if pid <= 0 {
		return stat{}, fmt.Errorf("read stat of pid %d: %w", pid, ErrGone)
	}
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/stat")
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return stat{}, fmt.Errorf("read stat of pid %d: %w", pid, ErrGone)
	}
	if err != nil {
		return stat{}, fmt.Errorf("read stat of pid %d: %w", pid, err)
	}
	defer f.Close()
	var buf [2048]byte // a stat line is some 350 bytes; the kernel bounds comm to 64
	n, err := f.Read(buf[:])
	if errors.Is(err, unix.ESRCH) || (n == 0 && errors.Is(err, io.EOF)) {
		return stat{}, fmt.Errorf("read stat of pid %d: %w", pid, ErrGone)
	}
	if err != nil {
		return stat{}, fmt.Errorf("read stat of pid %d: %w", pid, err)
	}
	return parseStat(buf[:n])
}

// Positions of the fields after the command's closing parenthesis, counted from
// field 3 of proc_pid_stat(5).
const (
	fieldState     = 0
	fieldParent    = 4 - 3
	fieldThreads   = 20 - 3
	fieldStartTime = 22 - 3
	fieldExitCode  = 52 - 3
)

// parseStat cuts at the last parenthesis, because a process may call itself
// ") Z 1 (" if it likes to be taken for dead.
func parseStat(line []byte) (stat, error) {
	i := bytes.LastIndexByte(line, ')')
	if i < 0 {
		return stat{}, fmt.Errorf("parse stat line %q: no command", line)
	}
	fields := bytes.Fields(line[i+1:])
	if len(fields) <= fieldStartTime || len(fields[fieldState]) != 1 {
		return stat{}, fmt.Errorf("parse stat line %q: %d fields", line, len(fields))
	}
	st := stat{state: fields[fieldState][0]}
	var err error
	if st.parent, err = strconv.Atoi(string(fields[fieldParent])); err != nil {
		return stat{}, fmt.Errorf("parse stat line: parent: %w", err)
	}
	if st.threads, err = strconv.Atoi(string(fields[fieldThreads])); err != nil {
		return stat{}, fmt.Errorf("parse stat line: thread count: %w", err)
	}
	if st.startTime, err = strconv.ParseUint(string(fields[fieldStartTime]), 10, 64); err != nil {
		return stat{}, fmt.Errorf("parse stat line: start time: %w", err)
	}
	if len(fields) > fieldExitCode {
		if n, err := strconv.ParseUint(string(fields[fieldExitCode]), 10, 32); err == nil {
			st.exitCode = uint32(n)
		}
	}
	return st, nil
}

// Parent returns the pid of a process's parent, 0 if that is outside our pid
// namespace. It is true for a moment only.
func Parent(pid int) (int, error) {
	st, err := readStat(pid)
	return st.parent, err
}

// Now is the present in the units of StartTime: a process that was started
// after this call has a StartTime of at least this much.
func Now() (uint64, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0, fmt.Errorf("read boot time clock: %w", err)
	}
	const tick = 10_000_000 // ns; USER_HZ is 100 on every architecture that Go runs on
	return uint64(ts.Nano()) / tick, nil
}
