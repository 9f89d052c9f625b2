package inroot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const (
	inside = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS
	// attempts bounds the retries of a lookup that a rename raced with; the
	// kernel answers EAGAIN then (openat2(2)).
	attempts = 32
)

// Root is an open root directory: what is looked up through it stays the same
// tree, even if the path it was opened by comes to mean another.
type Root struct {
	dir  *os.File
	path string
}

// OpenRoot opens the directory at path as a root. The path is the node's and is
// trusted. The caller closes it.
func OpenRoot(path string) (*Root, error) {
	fd, err := retryInterrupted(func() (int, error) {
		return unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, wrap("open root", path, err)
	}
	return &Root{dir: os.NewFile(uintptr(fd), path), path: path}, nil
}

// Close is idempotent in effect: a second call only says os.ErrClosed.
func (r *Root) Close() error { return r.dir.Close() }

// openat looks name up inside the root.
func (r *Root) openat(name string, flags int, mode uint32, resolve uint64) (*os.File, error) {
	if strings.ContainsRune(name, 0) {
		return nil, fmt.Errorf("open in root: name contains NUL: %w", errdefs.ErrInvalidArgument)
	}
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Mode: uint64(mode), Resolve: inside | resolve}
	// An absolute name is fine: with RESOLVE_IN_ROOT "/" is the root itself.
	if name == "" {
		name = "/"
	}
	for range attempts {
		fd, err := retryInterrupted(func() (int, error) { return unix.Openat2(int(r.dir.Fd()), name, &how) })
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), name), nil
		case errors.Is(err, unix.EAGAIN):
			continue
		default:
			return nil, wrap("open in root", name, err)
		}
	}
	return nil, fmt.Errorf("open in root %q: the tree changes faster than it can be walked: %w", name, errdefs.ErrUnavailable)
}

// Open opens a regular file for reading. Anything else (directory, FIFO,
// device, socket) is refused without opening it: an image can hold the node of
// any device, and opening some has effects.
func (r *Root) Open(name string) (*os.File, error) {
	at, err := r.Path(name)
	if err != nil {
		return nil, err
	}
	defer at.Close()
	st, err := at.Stat()
	if err != nil {
		return nil, fmt.Errorf("open in root %q: %w", name, err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("open in root %q: not a regular file but %s: %w", name, st.Mode().Type(), errdefs.ErrInvalidArgument)
	}
	// The descriptor names the file that was looked at, whatever the tree has
	// become since. O_NONBLOCK also against leases on it.
	fd, err := retryInterrupted(func() (int, error) {
		return unix.Open(fmt.Sprintf("/proc/self/fd/%d", at.Fd()), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, wrap("open in root", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// ReadFile reads a regular file of at most limit bytes; a larger one is an
// error, whatever size it claims to have.
func (r *Root) ReadFile(name string, limit int64) ([]byte, error) {
	f, err := r.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read in root %q: %w", name, err)
	}
	if int64(len(raw)) > limit {
		return nil, fmt.Errorf("read in root %q: larger than %d bytes: %w", name, limit, errdefs.ErrInvalidArgument)
	}
	return raw, nil
}

// Path returns an O_PATH descriptor of whatever name is, links followed inside
// the root. Through /proc/self/fd it can be bind-mounted from or onto without
// looking the name up a second time, when a link could have been swapped in.
func (r *Root) Path(name string) (*os.File, error) { return r.openat(name, unix.O_PATH, 0, 0) }

// Open opens the regular file at path inside root; see [Root.Open].
func Open(root, path string) (*os.File, error) {
	return with(root, func(r *Root) (*os.File, error) { return r.Open(path) })
}

// ReadFile reads the regular file at path inside root, at most limit bytes; see
// [Root.ReadFile].
func ReadFile(root, path string, limit int64) ([]byte, error) {
	return with(root, func(r *Root) ([]byte, error) { return r.ReadFile(path, limit) })
}

// Path returns an O_PATH descriptor; see [Root.Path].
func Path(root, path string) (*os.File, error) {
	return with(root, func(r *Root) (*os.File, error) { return r.Path(path) })
}

func with[T any](root string, do func(*Root) (T, error)) (T, error) {
	r, err := OpenRoot(root)
	if err != nil {
		var none T
		return none, err
	}
	defer r.Close()
	return do(r)
}

// wrap types what callers must tell apart.
func wrap(what, name string, err error) error {
	err = &os.PathError{Op: what, Path: name, Err: err}
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	case errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENXIO), errors.Is(err, syscall.ENAMETOOLONG):
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return err
}

func retryInterrupted(call func() (int, error)) (int, error) {
	for {
		fd, err := call()
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}
