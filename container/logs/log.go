package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Options say how a log is written.
type Options struct {
	// MaxLine splits longer lines into parts, in bytes; 0: [DefaultMaxLine].
	MaxLine int
	// TTY is true if the output comes from a terminal: one stream, and the
	// carriage return that a terminal puts before each line end is left out of
	// the file (not of what clients see).
	TTY bool
	// Patience is how long an attached client may hold up the container before
	// it is cut off; 0: 5 s.
	Patience time.Duration
	// Buffers keep what is on its way to the file if the process is killed; nil:
	// that is lost. Owner is whose it is there, a name of at most 128 bytes that
	// nobody else ever has; with an empty one nothing is kept.
	Buffers *Buffers
	Owner   string
}

// Log is one container's log. All methods can be called at once.
type Log struct {
	path     string
	opts     Options
	sizes    sizes
	counters counters

	// writing is a lock that can be waited for with a deadline: a write to a
	// hung disk must not hang Reopen and Close with it.
	writing chan struct{}
	file    *os.File // nil: output is discarded
	fd      int      // its descriptor
	st      unix.Stat_t
	missing int // entries dropped since the last success
	lost    int // their bytes
	reason  error
	torn    bool // the file ends in the middle of an entry

	mu       sync.Mutex
	tails    map[*Tail]struct{}
	followed bool
	closed   bool
	clients  map[*Subscription]struct{}
	// recovered are the beginnings of lines that an earlier process had read.
	recovered map[Stream]*buffer
}

// patience of Reopen and Close with a write that is under way.
const writePatience = 10 * time.Second

// Open opens the log at path, an absolute path whose directory is made if
// missing, and appends to it. Only a regular file will do; a symlink, a fifo or
// a directory in its place is [errdefs.ErrFailedPrecondition]. With an empty
// path there is no file: output is seen by attached clients or by nobody.
//
// What an earlier process of the same owner had read and not written when it was
// killed is in the file before Open returns, but for beginnings of lines: these
// come once their streams are followed.
func Open(path string, opts Options) (*Log, error) {
	if opts.MaxLine <= 0 {
		opts.MaxLine = DefaultMaxLine
	}
	if opts.Patience <= 0 {
		opts.Patience = 5 * time.Second
	}
	l := &Log{
		path: path, opts: opts, sizes: sizesFor(opts.MaxLine), writing: make(chan struct{}, 1),
		tails: map[*Tail]struct{}{}, clients: map[*Subscription]struct{}{}, recovered: map[Stream]*buffer{},
	}
	if path == "" {
		return l, nil
	}
	f, fd, err := openFile(path)
	if err != nil {
		return nil, fmt.Errorf("open container log: %w", err)
	}
	l.file, l.fd, l.torn = f, fd, endsTorn(f)
	l.recover()
	return l, nil
}

// openFile opens for appending what is, or is to become, a regular file. The
// descriptor is the file's.
func openFile(path string) (*os.File, int, error) {
	if !filepath.IsAbs(path) {
		return nil, 0, fmt.Errorf("path %q is not absolute: %w", path, errdefs.ErrInvalidArgument)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, 0, err
	}
	// O_NONBLOCK: a fifo in its place must be refused, not waited for.
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_APPEND|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o640)
	switch {
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.EISDIR), errors.Is(err, unix.ENXIO):
		return nil, 0, fmt.Errorf("%s is not a regular file: %w", path, errdefs.ErrFailedPrecondition)
	case err != nil:
		return nil, 0, &os.PathError{Op: "open", Path: path, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return nil, 0, fmt.Errorf("%s is not a regular file: %w", path, errdefs.ErrFailedPrecondition)
	}
	return os.NewFile(uintptr(fd), path), fd, nil
}

// endsTorn is true if the file ends in the middle of an entry: a crash on a
// full disk. The next entry then begins a line of its own.
func endsTorn(f *os.File) bool {
	fi, err := f.Stat()
	if err != nil || fi.Size() == 0 {
		return false
	}
	var last [1]byte
	_, err = f.ReadAt(last[:], fi.Size()-1)
	return err == nil && last[0] != '\n'
}

// Path is where the log is, empty for none.
func (l *Log) Path() string { return l.path }

// lock waits for the write under way, at most for d.
func (l *Log) lock(d time.Duration) error {
	select {
	case l.writing <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case l.writing <- struct{}{}:
		return nil
	case <-timer.C:
		return fmt.Errorf("a write to %s has been hanging for %v: %w", l.path, d, errdefs.ErrUnavailable)
	}
}

func (l *Log) unlock() { <-l.writing }

// Reopen makes the log go on in a new file at its path, after the old one was
// renamed (CRI's ReopenContainerLog). No entry is lost or torn: each is in the
// old file or in the new one. On an error the old file stays in use.
func (l *Log) Reopen() error {
	if l.path == "" {
		return nil
	}
	next, fd, err := openFile(l.path)
	if err != nil {
		return fmt.Errorf("reopen container log: %w", err)
	}
	if err := l.lock(writePatience); err != nil {
		next.Close()
		return fmt.Errorf("reopen container log: %w", err)
	}
	old := l.file
	if old == nil { // closed
		l.unlock()
		next.Close()
		return fmt.Errorf("reopen container log: it is closed: %w", errdefs.ErrFailedPrecondition)
	}
	l.file, l.fd, l.torn = next, fd, endsTorn(next)
	l.unlock()
	_ = old.Close() // nothing is buffered: what was written was checked then
	return nil
}

// Close ends all tails (what they have of a line is written as a part), the
// clients, and closes the file. Idempotent.
func (l *Log) Close() error {
	l.mu.Lock()
	l.closed = true
	var tails []*Tail
	for t := range l.tails {
		tails = append(tails, t)
	}
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), writePatience)
	defer cancel()
	var errs []error
	for _, t := range tails {
		errs = append(errs, t.stop(ctx))
	}
	l.endClients()
	if err := l.lock(writePatience); err != nil {
		return errors.Join(append(errs, err)...)
	}
	file := l.file
	l.file = nil
	l.unlock()
	l.mu.Lock()
	for _, b := range l.recovered {
		l.opts.Buffers.giveBack(b)
	}
	clear(l.recovered)
	l.mu.Unlock()
	if file != nil {
		_ = file.Close()
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close container log: %w", err)
	}
	return nil
}

// put writes the entries of what a buffer holds, of which the first clean bytes
// are known to have no line end in them.
func (l *Log) put(s *splitter, b *buffer, o *batch, clean int) {
	for {
		pos, end := b.held()
		o.begin(s.stream, time.Unix(0, b.when))
		n := s.split(o, b.data[pos:end], clean)
		l.append(o, b, pos+n)
		if !o.full() {
			return
		}
		clean = 0
	}
}

// putRest writes what there is of a line, as a part.
func (l *Log) putRest(s *splitter, b *buffer, o *batch) {
	text := b.text()
	if len(text) == 0 {
		return
	}
	b.when = time.Now().UnixNano()
	o.begin(s.stream, time.Unix(0, b.when))
	s.rest(o, text)
	_, end := b.held()
	l.append(o, b, end)
}

// append writes a batch of whole entries, which are those of a buffer's data up
// to next. An error is not returned: there is nobody to whom it would be of use.
// It is counted, and told in the log.
func (l *Log) append(o *batch, b *buffer, next int) {
	if o.entries == 0 {
		return
	}
	l.writing <- struct{}{}
	defer l.unlock()
	if b != nil {
		defer b.wrote(next)
	}
	if l.file == nil {
		return
	}
	if l.missing > 0 || l.torn {
		if !l.mark(o.prefix) {
			l.drop(o.entries, len(o.out), l.reason)
			return
		}
	}
	if b != nil && b.mem != nil && unix.Fstat(l.fd, &l.st) == nil {
		b.beginWrite(l.st.Dev, l.st.Ino, l.st.Size, o.rest)
	}
	l.finish(l.file, o, 0)
}

// finish writes what comes in a batch after the first n bytes.
func (l *Log) finish(f *os.File, o *batch, n int) {
	was := bytes.Count(o.out[:n], []byte{'\n'}) // as entries hold none, these were written before
	more, err := f.Write(o.out[n:])
	if err == nil {
		l.wrote(o.entries-was, o.parts, more)
		return
	}
	n += more
	whole := bytes.LastIndexByte(o.out[:n], '\n') + 1
	made := bytes.Count(o.out[:whole], []byte{'\n'})
	l.wrote(made-was, 0, more-(n-whole))
	if f == l.file {
		l.takeBack(n - whole)
	}
	l.drop(o.entries-made, len(o.out)-whole, err)
}

// mark tells in the log itself that entries are missing here.
func (l *Log) mark(prefix []byte) bool {
	var text []byte
	if l.torn {
		text = append(text, '\n')
	}
	if l.missing > 0 {
		text = append(text, prefix...)
		text = fmt.Appendf(text, "F [crid: %d log entries (%d bytes) were dropped here: %v]\n", l.missing, l.lost, l.reason)
	}
	n, err := l.file.Write(text)
	if err != nil {
		l.takeBack(n)
		l.reason = plain(err)
		return false
	}
	l.missing, l.lost, l.reason, l.torn = 0, 0, nil, false
	return true
}

// takeBack removes the last n bytes of the file, a torn entry.
func (l *Log) takeBack(n int) {
	if n == 0 {
		return
	}
	fi, err := l.file.Stat()
	if err == nil {
		err = l.file.Truncate(fi.Size() - int64(n))
	}
	if err != nil {
		l.torn = true
	}
}

func (l *Log) drop(entries, bytes int, err error) {
	l.missing += entries
	l.lost += bytes
	l.reason = plain(err)
	l.dropped(entries, bytes)
}

// plain leaves the path out of an error: the container's reader has the log.
func plain(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
