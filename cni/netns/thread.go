package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// onThread runs fn on an operating system thread that is destroyed afterwards.
//
// The goroutine locks its thread and never unlocks it: the runtime then ends
// the thread together with the goroutine, so nothing else can run in the
// namespaces that fn entered. The process's first thread cannot be ended (the
// runtime would park it for ever, and /proc/self would show its namespaces),
// so it is not used.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// While this goroutine holds the first thread, the next one gets another.
			done <- onThread(fn)
			runtime.UnlockOSThread()
			return
		}
		done <- fn()
	}()
	return <-done
}

// Do runs fn inside the network namespace at path and returns its error. fn
// must not start goroutines that rely on the namespace; sockets that it opens
// stay in it.
func Do(path string, fn func() error) error {
	f, err := openPin(path)
	if err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	defer f.Close()
	return onThread(func() error {
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", path, err)
		}
		return fn()
	})
}

// enter moves the calling, locked thread into the pins that are given.
func enter(p Pinned) error {
	for _, pin := range []struct {
		path string
		flag int
	}{{p.Net, unix.CLONE_NEWNET}, {p.IPC, unix.CLONE_NEWIPC}, {p.UTS, unix.CLONE_NEWUTS}} {
		if pin.path == "" {
			continue
		}
		f, err := openPin(pin.path)
		if err != nil {
			return err
		}
		err = unix.Setns(int(f.Fd()), pin.flag)
		f.Close()
		if err != nil {
			return fmt.Errorf("enter namespace %s: %w", pin.path, err)
		}
	}
	return nil
}

// openPin opens a pin and makes sure that it is one: a plain file in its place
// (its mount is gone) would otherwise give an error that says nothing.
func openPin(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		f.Close()
		return nil, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	if st.Type != unix.NSFS_MAGIC {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, ErrNotPinned)
	}
	return f, nil
}

// ErrNotPinned is returned where a path was expected to keep a namespace alive
// and does not: its bind mount is gone (unmounted by hand, or a reboot).
var ErrNotPinned = errors.New("no namespace is pinned there")

// Temporary makes a network namespace that lives for one call: setup runs
// inside it, then use is called outside of it with a path to it. Nothing is
// pinned, so nothing is left whatever happens.
func Temporary(setup func() error, use func(path string) error) error {
	ready, release := make(chan string, 1), make(chan struct{})
	failed := make(chan error, 1)
	go func() {
		failed <- onThread(func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			if err := setup(); err != nil {
				return err
			}
			ready <- fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
			<-release
			return nil
		})
	}()
	select {
	case err := <-failed:
		return fmt.Errorf("make temporary network namespace: %w", err)
	case path := <-ready:
		err := use(path)
		close(release)
		return errors.Join(err, <-failed)
	}
}
