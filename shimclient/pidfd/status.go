package pidfd

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Status is how a process ended, as the kernel put it.
type Status struct {
	// Raw is the wait status, as in wait(2).
	Raw uint32 `json:"raw"`
}

// Code is the exit code as the CRI shows it: the process's own, or 128 plus the
// number of the signal that killed it.
func (s Status) Code() int {
	if sig, ok := s.Signaled(); ok {
		return 128 + int(sig)
	}
	return unix.WaitStatus(s.Raw).ExitStatus()
}

// Signaled tells whether a signal ended the process, and which.
func (s Status) Signaled() (unix.Signal, bool) {
	ws := unix.WaitStatus(s.Raw)
	if !ws.Signaled() {
		return 0, false
	}
	return ws.Signal(), true
}

// Status returns how the process ended, although it was never our child. From
// Linux 6.15 on the kernel tells it even after somebody else has reaped the
// process; before, only while it is a zombie. False means that the process runs
// or that nobody knows any more.
func (h *Handle) Status() (Status, bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.fd < 0 || !readable(h.fd) {
		return Status{}, false
	}
	// The kernel keeps the status in the pidfd only from the reaping on, and in
	// /proc only until then. Whoever is reaped between the first two looks is
	// found by the third.
	if raw, ok := exitInfo(h.fd); ok {
		return Status{raw}, true
	}
	st, err := readStat(h.process.Pid)
	if err == nil && st.startTime == h.process.StartTime && st.dead() {
		return Status{st.exitCode}, true
	}
	if raw, ok := exitInfo(h.fd); ok {
		return Status{raw}, true
	}
	return Status{}, false
}

// getInfo is struct pidfd_info of linux/pidfd.h in its first published size,
// which every later kernel accepts.
type getInfo struct {
	mask     uint64
	cgroupID uint64
	_        [11]uint32 // pid, tgid, ppid and the eight user and group ids
	exitCode int32
}

const (
	infoExit = 1 << 3 // PIDFD_INFO_EXIT, Linux 6.15
	// PIDFD_GET_INFO is _IOWR(0xFF, 11, struct pidfd_info).
	ioctlGetInfo = 3<<30 | unsafe.Sizeof(getInfo{})<<16 | 0xFF<<8 | 11
)

func exitInfo(fd int) (uint32, bool) {
	info := getInfo{mask: infoExit}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlGetInfo, uintptr(unsafe.Pointer(&info)))
	if errno != 0 || info.mask&infoExit == 0 {
		return 0, false
	}
	return uint32(info.exitCode), true
}
