package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// errLocked says that another crid is at work on the same directories.
var errLocked = errors.New("in use by another crid")

// How long a lock is waited for: one whose holder is dead but not reaped yet,
// and one whose holder seems to live, for a process that was just sent SIGKILL
// does so for a moment.
const (
	dyingWait  = 2 * time.Second
	livingWait = 700 * time.Millisecond
)

// dirLock is a flock on DIR/lock. The kernel drops it with the process, so a
// crash leaves none behind; the file stays and means nothing by itself.
type dirLock struct{ f *os.File }

// lockDir takes the lock, or says within a second who has it. A holder that is
// dead but not gone yet is waited for, two seconds at most.
func lockDir(dir string) (*dirLock, error) {
	path := filepath.Join(dir, "lock")
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		l, pid, err := tryLock(path)
		switch {
		case err == nil && l != nil:
			return l, nil
		case err != nil && !errors.Is(err, unix.EWOULDBLOCK):
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		case err != nil && (time.Since(begun) > dyingWait || alive(pid) && time.Since(begun) > livingWait):
			return nil, fmt.Errorf("%s is %w (pid %d): stop that one, or give this one its own --root and --state", dir, errLocked, pid)
		}
	}
}

// tryLock takes the lock or answers EWOULDBLOCK and who wrote its pid last. No
// lock and no error mean that the file was removed (by a reset) meanwhile.
func tryLock(path string) (l *dirLock, pid int, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.ENOSPC) {
		// On a disk that cannot be written crid comes up all the same: what runs has to be watched and stopped. Its lock is that of an earlier run.
		f, err = os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	}
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if l == nil {
			_ = f.Close()
		}
	}()
	for err = unix.EINTR; errors.Is(err, unix.EINTR); {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		return nil, holder(f), err
	}
	mine, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if named, err := os.Stat(path); err != nil || !os.SameFile(mine, named) {
		return nil, 0, nil
	}
	// Only a hint for messages: who holds the lock is the kernel's to know.
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return &dirLock{f: f}, 0, nil
}

// Close gives the lock back. The file stays: removing it would let two
// processes hold locks on two files of one name.
func (l *dirLock) Close() error { return l.f.Close() }

// lockDirs locks several directories, or none.
func lockDirs(dirs ...string) (unlock func(), err error) {
	var held []*dirLock
	unlock = func() {
		for _, l := range held {
			_ = l.Close()
		}
	}
	for _, d := range dirs {
		l, err := lockDir(d)
		if err != nil {
			unlock()
			return nil, err
		}
		held = append(held, l)
	}
	return unlock, nil
}

// holder reads the pid that the holder wrote; 0 if there is none.
func holder(f *os.File) int {
	b := make([]byte, 20)
	n, _ := f.ReadAt(b, 0)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	return pid
}

// alive tells whether a process is there and no zombie.
func alive(pid int) bool {
	if pid <= 0 {
		return false
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, rest, ok := strings.Cut(string(b), ") ")
	return ok && rest != "" && rest[0] != 'Z' && rest[0] != 'X'
}

// makeDir makes one of crid's own directories with mode 0700, or checks and
// corrects what is there. A link, a file or somebody else's directory is
// refused.
func makeDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	// Through one descriptor, so that what is checked is what is changed.
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s (it must be a directory, not a link): %w", dir, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	if int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d: chown it, or name another directory", dir, st.Uid)
	}
	// Others may pass through (0711), which pods with user namespaces need,
	// but neither read nor write.
	if st.Mode&0o066 != 0 {
		if err := unix.Fchmod(fd, 0o700); err != nil {
			return fmt.Errorf("close %s for others: %w", dir, err)
		}
	}
	return nil
}
