package pidfd

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// Handle is one open pidfd. It goes on naming its process after the process has
// died and its pid has been given away. All methods may be called from several
// goroutines; none of them blocks.
type Handle struct {
	process Process

	mu      sync.RWMutex // guards fd against Close; held over system calls that never wait
	fd      int          // -1 once closed
	watches map[*Watcher]uint64
}

// Open takes a pidfd for the process. It returns ErrGone if the process has been
// reaped or if its pid is somebody else's now. A zombie with the right start
// time can be opened: it has exited, and its status is still there to be read.
func Open(p Process) (*Handle, error) {
	if p.Pid <= 0 {
		return nil, fmt.Errorf("open pidfd of pid %d: %w", p.Pid, ErrGone)
	}
	fd, err := unix.PidfdOpen(p.Pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		// EINVAL: the number is a thread's of some process, so not the one meant.
		return nil, fmt.Errorf("open pidfd of %v: %w", p, ErrGone)
	}
	if err != nil {
		return nil, fmt.Errorf("open pidfd of %v: %w", p, err)
	}
	// Only now, with the fd holding the pid's identity fast, does the start time
	// prove anything: checked before, the pid could still change hands.
	st, err := readStat(p.Pid)
	if err == nil && st.startTime != p.StartTime {
		err = fmt.Errorf("open pidfd of %v: pid belongs to a process started at tick %d: %w", p, st.startTime, ErrGone)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &Handle{process: p, fd: fd}, nil
}

// Process returns the name of the process that the handle was opened for.
func (h *Handle) Process() Process { return h.process }

// Signal sends sig to this process and to no other. It returns ErrGone if the
// process has exited, also if it is a zombie still.
func (h *Handle) Signal(sig unix.Signal) error {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.fd < 0 {
		return fmt.Errorf("signal %v: handle is closed", h.process)
	}
	if readable(h.fd) {
		return fmt.Errorf("signal %v: %w", h.process, ErrGone)
	}
	err := unix.PidfdSendSignal(h.fd, sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal %v: %w", h.process, ErrGone)
	}
	if err != nil {
		return fmt.Errorf("signal %v with %v: %w", h.process, sig, err)
	}
	return nil
}

// Exited tells whether all threads of the process have ended, reaped or not. A
// closed handle says false: it knows nothing.
func (h *Handle) Exited() bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.fd >= 0 && readable(h.fd)
}

// Close gives the pidfd back and ends every watch on it. Idempotent.
func (h *Handle) Close() error {
	h.mu.Lock()
	fd, watches := h.fd, h.watches
	h.fd, h.watches = -1, nil
	if fd >= 0 {
		unix.Close(fd) // leaves every epoll set with it, for the fd is never duplicated
	}
	h.mu.Unlock()
	for w, token := range watches {
		w.drop(token)
	}
	return nil
}

func readable(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return err == nil && n == 1 && fds[0].Revents&(unix.POLLIN|unix.POLLHUP) != 0
	}
}
