package holder

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/shimclient/pidfd"
)

// patience bounds each conversation. An answer takes microseconds.
const patience = time.Second

// errHung is a holder that has a connection's end but does not answer.
var errHung = errors.New("the holder does not answer")

// errAbsent is no holder at all.
var errAbsent = errors.New("no holder runs")

// conn is a connection to a holder.
type conn struct {
	sock    *net.UnixConn
	pid     int           // as the kernel says
	turn    chan struct{} // one conversation at a time
	seq     uint32        // by who has the turn
	answers chan answer
	gone    chan struct{} // closed when the connection has ended
}

// socketName is the socket of holders of one version.
func socketName(v int) string { return "holder-" + strconv.Itoa(v) + ".sock" }

// atDir calls fn with a path by which the entry name of dir can be named however
// long dir is: a socket's path may have 107 bytes.
func atDir(dir, name string, fn func(path string) error) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	return fn("/proc/self/fd/" + strconv.Itoa(fd) + "/" + name)
}

// dial connects to a holder and has it greet. With errHung the answer's pid
// says who hangs.
func dial(ctx context.Context, dir, name string) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var sock net.Conn
	err := atDir(dir, name, func(path string) error {
		var err error
		sock, err = (&net.Dialer{}).DialContext(ctx, "unixpacket", path)
		return err
	})
	switch {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOENT):
		return nil, errAbsent
	case errors.Is(err, unix.EAGAIN), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return nil, errHung // its queue is full
	case err != nil:
		return nil, fmt.Errorf("connect to the holder: %w", err)
	}
	c := &conn{sock: sock.(*net.UnixConn), turn: make(chan struct{}, 1), answers: make(chan answer, 1), gone: make(chan struct{})} //nolint:forcetypeassert // unixpacket
	who, err := c.peer()
	if err != nil || who.Uid != 0 && who.Uid != uint32(os.Geteuid()) { //nolint:gosec // a uid is never negative here
		_ = c.sock.Close()
		return nil, fmt.Errorf("connect to the holder: somebody else listens at %s: %w", filepath.Join(dir, name), errors.Join(errForeign, err))
	}
	c.pid = int(who.Pid)
	go c.listen()
	if _, err := c.call(ctx, request{op: opHello}, nil); err != nil {
		c.close()
		return c, err
	}
	return c, nil
}

func (c *conn) peer() (who *unix.Ucred, err error) {
	raw, err := c.sock.SyscallConn()
	if err != nil {
		return nil, err
	}
	cerr := raw.Control(func(fd uintptr) { who, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return who, errors.Join(cerr, err)
}

// listen passes answers on until the connection ends. It holds a buffer of
// its own: there is one such goroutine.
func (c *conn) listen() {
	defer close(c.gone)
	b := make([]byte, answerMax)
	for {
		n, err := c.sock.Read(b)
		if err != nil || n == 0 {
			return
		}
		a, err := decode(b[:n])
		if err != nil {
			return
		}
		select {
		case <-c.answers: // nobody waits for that one any more
		default:
		}
		c.answers <- a
	}
}

// call has one conversation, within patience. After errHung the connection is of no
// use any more.
func (c *conn) call(ctx context.Context, q request, pipes []int) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return answer{}, errHung
	}
	c.seq++
	q.seq = c.seq
	var rights []byte
	if len(pipes) > 0 {
		rights = unix.UnixRights(pipes...)
	}
	deadline, _ := ctx.Deadline()
	_ = c.sock.SetWriteDeadline(deadline)
	if _, _, err := c.sock.WriteMsgUnix(q.encode(), rights, nil); err != nil {
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return answer{}, errHung
		case errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
			return answer{}, errAbsent // it ended after it had let us in
		}
		return answer{}, fmt.Errorf("ask the holder: %w", err)
	}
	for {
		select {
		case a := <-c.answers:
			if a.seq != q.seq {
				continue
			}
			if q.op > opEnd && a.version != version {
				return a, errForeign
			}
			if a.err != 0 {
				return a, a.err
			}
			return a, nil
		case <-c.gone:
			return answer{}, errAbsent
		case <-ctx.Done():
			return answer{}, errHung
		}
	}
}

// list answers what is held.
func (c *conn) list(ctx context.Context) (map[string]bool, error) {
	held := map[string]bool{}
	for from := uint32(0); ; {
		a, err := c.call(ctx, request{op: opList, from: from}, nil)
		if err != nil {
			return nil, err
		}
		for _, id := range a.list {
			held[id] = true
		}
		if a.next <= from {
			return held, nil
		}
		from = a.next
	}
}

// close ends the connection and waits for its goroutine.
func (c *conn) close() {
	_ = c.sock.Close()
	<-c.gone
}

// end has the holder end and waits for that, by SIGKILL if it does not listen.
func (c *conn) end(ctx context.Context) error {
	proc, known := c.process()
	_, err := c.call(ctx, request{op: opEnd}, nil)
	c.close()
	if err == nil || errors.Is(err, errAbsent) {
		return nil
	}
	if !known {
		return err
	}
	return kill(ctx, proc)
}

// process is who is at the other end, if that is a holder still.
func (c *conn) process() (pidfd.Process, bool) {
	p, err := pidfd.Identify(c.pid)
	if err != nil {
		return p, false
	}
	comm, err := os.ReadFile("/proc/" + strconv.Itoa(c.pid) + "/comm")
	return p, err == nil && strings.TrimSpace(string(comm)) == "crid-holder"
}

func kill(ctx context.Context, p pidfd.Process) error {
	h, err := pidfd.Open(p)
	if err != nil {
		return nil // it is gone
	}
	defer h.Close()
	if err := h.Signal(unix.SIGKILL); err != nil && !errors.Is(err, pidfd.ErrGone) {
		return fmt.Errorf("kill a holder that hangs: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for wait := time.Millisecond; !h.Exited(); wait *= 2 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("kill a holder that hangs: process %d does not die: %w", p.Pid, errHung)
		case <-time.After(wait):
		}
	}
	return nil
}
