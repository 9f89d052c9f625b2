package holder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// idle is how long a holder stays that holds nothing and has no connection.
const idle = 60 * time.Second

// launch starts a holder that listens at the entry name of dir. Nobody listens
// there: what lies there is a dead one's.
func launch(ctx context.Context, dir, name string, idle time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	listener, err := bind(dir, name)
	if err != nil {
		return fmt.Errorf("start the holder: %w", err)
	}
	defer listener.Close()
	path := filepath.Join(dir, "holder")
	err = write(path)
	if err == nil {
		err = spawn(ctx, path, nil, listener, filepath.Join(dir, name), idle)
	}
	if err == nil {
		return nil
	}
	// /run is often mounted noexec.
	first := err
	m, err := memory()
	if err == nil {
		defer m.Close()
		err = spawn(ctx, "/proc/self/fd/4", m, listener, filepath.Join(dir, name), idle)
	}
	if err != nil {
		return fmt.Errorf("start the holder: %w; and from memory: %w", first, err)
	}
	return nil
}

// bind makes the socket. It is the holder that listens, so nobody can connect
// before the mode is right.
func bind(dir, name string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), name) //nolint:gosec // not negative
	err = atDir(dir, name, func(path string) error {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
			return fmt.Errorf("bind %s: %w", filepath.Join(dir, name), err)
		}
		return os.Chmod(path, 0o600)
	})
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// write puts the program where it can be run from; one that runs keeps its own.
func write(path string) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, program) {
		return nil
	}
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(tmp, program, 0o700); err != nil { //nolint:gosec // it is a program
		return err
	}
	return os.Rename(tmp, path)
}

// memory is the program in memory, for a machine on which dir is noexec.
func memory() (*os.File, error) {
	fd, err := unix.MemfdCreate("crid-holder", unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("crid-holder", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("make a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "crid-holder") //nolint:gosec // not negative
	if _, err := f.Write(program); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// spawn runs the program, which makes a process of its own and ends when that
// one listens.
func spawn(ctx context.Context, path string, from, listener *os.File, socket string, idle time.Duration) error {
	cmd := exec.CommandContext(ctx, path)
	cmd.Args = []string{"crid-holder", strconv.FormatInt(idle.Milliseconds(), 10), socket}
	cmd.Dir, cmd.Env = "/", []string{}
	cmd.ExtraFiles = []*os.File{listener}
	if from != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, from)
	}
	return cmd.Run()
}
