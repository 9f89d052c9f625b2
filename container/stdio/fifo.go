package stdio

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// ErrStdinClosed says that nobody reads the standard input any more: it was closed (stdin once), or the process ended.
var ErrStdinClosed = errors.New("stdin is closed")

// nullDevice stands for an output nobody wants: the shim refuses an empty path beside a filled one.
const nullDevice = "/dev/null"

// newExecID returns a name for an exec that no other exec has had.
func newExecID() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails: documented
	return hex.EncodeToString(b[:])
}

// mkfifo makes a named pipe that only root may open. An existing pipe is fine, anything else at that place is not.
func mkfifo(path string) error {
	err := unix.Mkfifo(path, 0o600)
	if err == nil || !errors.Is(err, unix.EEXIST) {
		if err != nil {
			return &fs.PathError{Op: "mkfifo", Path: path, Err: err}
		}
		return nil
	}
	st, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if st.Mode().Type() != fs.ModeNamedPipe {
		return fmt.Errorf("make fifo %s: a file that is no fifo is in the way", path)
	}
	return nil
}

// openReader opens the read end of a fifo at once, writer or no writer. The file is non-blocking and known to the
// runtime's poller: Close and SetReadDeadline end a Read. Until the first writer has come, Read returns EOF.
func openReader(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
}

// openWriter opens the write end of a fifo. The shim opens its read end a moment after it has answered, so ENXIO (no
// reader) is tried again until patience ends, and is ErrStdinClosed from then on. Holding a read end ourselves would
// avoid that, but then the last bytes could be lost: closed by us before the shim had opened.
func openWriter(ctx context.Context, path string, patience time.Duration) (*os.File, error) {
	deadline := time.Now().Add(patience)
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		switch {
		case err == nil:
			return f, nil
		case errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("open stdin: %w: %w", ErrStdinClosed, err)
		case !errors.Is(err, unix.ENXIO):
			return nil, err
		case time.Now().After(deadline):
			return nil, fmt.Errorf("open stdin %s: nobody reads it: %w", path, ErrStdinClosed)
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, context.Cause(ctx)
		case <-t.C:
		}
	}
}

// pipes are the named pipes of one exec, in a directory of its own, as the shim and we see them.
type pipes struct {
	dir                   string   // own directory, removed by remove
	stdin, stdout, stderr string   // what the shim is told; "" and /dev/null are no pipes
	out, err              *os.File // our read ends; nil where there is no pipe
}

// makePipes makes dir/id and in it the pipes that req needs, with the read ends open. On an error nothing is left.
func makePipes(dir, id string, req *ExecRequest) (_ *pipes, err error) {
	p := &pipes{dir: filepath.Join(dir, id)}
	if err := os.Mkdir(p.dir, 0o700); errors.Is(err, fs.ErrNotExist) {
		err = os.MkdirAll(p.dir, 0o700)
		if err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.close()
			p.remove()
		}
	}()
	if req.Stdin != nil {
		p.stdin = filepath.Join(p.dir, "stdin")
		if err := mkfifo(p.stdin); err != nil {
			return nil, err
		}
	}
	// A terminal's output must be a pipe even when unwanted: the shim's console copier opens nothing else.
	if p.stdout, p.out, err = p.output("stdout", req.Stdout != nil || req.TTY); err != nil {
		return nil, err
	}
	if req.TTY {
		return p, nil
	}
	if p.stderr, p.err, err = p.output("stderr", req.Stderr != nil); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *pipes) output(name string, wanted bool) (string, *os.File, error) {
	if !wanted {
		return nullDevice, nil, nil
	}
	path := filepath.Join(p.dir, name)
	if err := mkfifo(path); err != nil {
		return "", nil, err
	}
	f, err := openReader(path)
	return path, f, err
}

// close closes our ends: readers that still wait come back. Idempotent.
func (p *pipes) close() {
	for _, f := range []*os.File{p.out, p.err} {
		if f != nil {
			f.Close()
		}
	}
}

// remove removes the directory. Idempotent.
func (p *pipes) remove() {
	_ = os.RemoveAll(p.dir) // its own files only; a restart sweeps what a failing disk leaves
}
