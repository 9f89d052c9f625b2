package socket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// maxPath is what fits into a sockaddr_un with its final NUL.
const maxPath = 107

// Path is the file of an address: "unix:///run/crid.sock" or the bare path.
func Path(address string) (string, error) {
	path := strings.TrimPrefix(address, "unix://")
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("listen on %q: give an absolute path, such as /run/crid/crid.sock: %w", address, errdefs.ErrInvalidArgument)
	}
	// The socket is made beside its place under a name that is a bit longer.
	if path = filepath.Clean(path); len(path)+len(newSuffix) > maxPath {
		return "", fmt.Errorf("listen on %s: the path is longer than %d bytes, use a shorter state directory: %w", path, maxPath-len(newSuffix), errdefs.ErrInvalidArgument)
	}
	return path, nil
}

const newSuffix = ".new"

// Listen makes a listening unix socket with the permissions mode. What a crash
// left there is replaced; a daemon that is alive is not: errdefs.ErrAlreadyExists.
// A file that is no socket is left alone and is an error. Closing the listener
// removes the socket.
func Listen(address string, mode fs.FileMode) (net.Listener, error) {
	path, err := Path(address)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, fmt.Errorf("make folder of socket: %w", err)
	}
	lock, err := hold(path + ".lock")
	if err != nil {
		return nil, err
	}
	l, err := listen(path, mode)
	if err != nil {
		lock.Close()
		return nil, err
	}
	return &listener{UnixListener: l, path: path, lock: lock}, nil
}

// hold takes the lock that tells one daemon from two: it ends with the
// process, however that ends.
func hold(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of socket: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another daemon holds %s, stop it first or use another --state: %w", path, errdefs.ErrAlreadyExists)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

func listen(path string, mode fs.FileMode) (*net.UnixListener, error) {
	if err := vacant(path); err != nil {
		return nil, err
	}
	// Made under another name and renamed: nobody can connect before the
	// permissions are right, and a client never finds the place empty.
	fresh := path + newSuffix
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove what was left of a socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(fresh, mode); err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		l.Close()
		os.Remove(fresh)
		return nil, fmt.Errorf("put socket into place: %w", err)
	}
	return l, nil
}

// vacant checks that no daemon listens there and that nothing but a socket lies there.
func vacant(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	if fi.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("%s exists and is no socket, move it away: %w", path, errdefs.ErrFailedPrecondition)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return nil // nobody answers: it is stale
	}
	c.Close()
	return fmt.Errorf("another daemon answers on %s, stop it first or use another --address: %w", path, errdefs.ErrAlreadyExists)
}

// listener removes its socket when it is closed, if it is still its own.
type listener struct {
	*net.UnixListener
	path string
	lock *os.File
	once sync.Once
	err  error
}

// Addr answers the place, not the name that the socket was made under.
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close ends listening. Idempotent.
func (l *listener) Close() error {
	l.once.Do(func() {
		// The lock is still held: whatever lies there is ours.
		_ = os.Remove(l.path)
		l.err = l.UnixListener.Close()
		l.lock.Close()
	})
	return l.err
}
