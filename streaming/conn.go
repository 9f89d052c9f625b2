package streaming

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxWaiting bounds connections that have not yet shown a token. One more costs the oldest its place: a kubelet, which
	// sends its request at once, gets through any flood.
	maxWaiting = 256
	// maxSessions bounds connections that have.
	maxSessions = 1000
	// lookAround is how often sessions are looked over for clients that left without anybody reading from them.
	lookAround = 5 * time.Second
)

// errClientGone is why a session's context ends when its connection does.
var errClientGone = errors.New("client closed the connection")

// lobby is a listener that bounds what it has accepted and knows all of it, because the HTTP server forgets connections
// that were upgraded.
type lobby struct {
	net.Listener

	mu       sync.Mutex
	closed   bool
	waiting  *list.List // of *guest, oldest first
	sessions map[*guest]struct{}
	look     *time.Timer // nil while there are no sessions: an idle node has no timers
}

func newLobby(l net.Listener) *lobby {
	return &lobby{Listener: l, waiting: list.New(), sessions: make(map[*guest]struct{})}
}

// Accept implements net.Listener.
func (l *lobby) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	g := &guest{Conn: c, lobby: l}
	g.ctx, g.leave = context.WithCancelCause(context.Background())
	var evicted *guest
	l.mu.Lock()
	closed := l.closed
	if !closed {
		if l.waiting.Len() >= maxWaiting {
			if evicted, _ = l.waiting.Remove(l.waiting.Front()).(*guest); evicted != nil {
				evicted.place = nil
			}
		}
		g.place = l.waiting.PushBack(g)
	}
	l.mu.Unlock()
	if evicted != nil {
		evicted.Close()
	}
	if closed {
		g.Close()
		return nil, net.ErrClosed
	}
	return g, nil
}

// admit turns a waiting connection into a session; false if there are too many.
func (l *lobby) admit(g *guest) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || g.place == nil || len(l.sessions) >= maxSessions {
		return false
	}
	l.waiting.Remove(g.place)
	g.place = nil
	l.sessions[g] = struct{}{}
	if l.look == nil {
		l.look = time.AfterFunc(lookAround, l.lookOver)
	}
	return true
}

func (l *lobby) forget(g *guest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if g.place != nil {
		l.waiting.Remove(g.place)
		g.place = nil
	}
	delete(l.sessions, g)
	if len(l.sessions) == 0 && l.look != nil {
		l.look.Stop()
		l.look = nil
	}
}

// lookOver ends the sessions whose client has closed its side. Usually a Read tells, but when a process does not take its
// input nobody reads from the connection any more, and the process would outlive its client.
func (l *lobby) lookOver() {
	var gone []*guest
	l.mu.Lock()
	for g := range l.sessions {
		if g.hungUp() {
			gone = append(gone, g)
		}
	}
	if l.look != nil {
		l.look.Reset(lookAround)
	}
	l.mu.Unlock()
	for _, g := range gone {
		g.Close()
	}
}

// errStopping is why a session's context ends when the server stops.
var errStopping = errors.New("crid is stopping; the session ends, try again")

// dismiss closes the listener and the connections that wait, and asks the
// sessions to end: they have time to tell their clients why.
func (l *lobby) dismiss() {
	l.Listener.Close()
	waiting := l.shut()
	l.mu.Lock()
	for g := range l.sessions {
		g.leave(errStopping)
	}
	l.mu.Unlock()
	for _, g := range waiting {
		g.Close()
	}
}

// shut lets nobody in any more, and answers who waits.
func (l *lobby) shut() []*guest {
	var all []*guest
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for e := l.waiting.Front(); e != nil; e = e.Next() {
		if g, ok := e.Value.(*guest); ok {
			all = append(all, g)
		}
	}
	return all
}

// clear closes the listener and every connection.
func (l *lobby) clear() {
	l.Listener.Close()
	all := l.shut()
	l.mu.Lock()
	for g := range l.sessions {
		all = append(all, g)
	}
	l.mu.Unlock()
	for _, g := range all {
		g.Close()
	}
}

// counts returns how many connections wait and how many are sessions.
func (l *lobby) counts() (waiting, sessions int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiting.Len(), len(l.sessions)
}

// guest is one accepted connection. Its context ends when the connection fails or closes, which the HTTP server does not
// tell of an upgraded one.
type guest struct {
	net.Conn
	lobby *lobby
	place *list.Element // in lobby.waiting; guarded by lobby.mu
	ctx   context.Context
	leave context.CancelCauseFunc

	upgraded atomic.Bool // taken over from the HTTP server, which no longer closes it
}

// guestOf finds the guest behind what the HTTP server was given.
func guestOf(c net.Conn) *guest {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	g, _ := c.(*guest)
	return g
}

// Read implements net.Conn. A deadline is no reason to leave: the HTTP server uses them to stop its own reads.
func (g *guest) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		g.leave(errClientGone)
	}
	if errors.Is(err, net.ErrClosed) {
		err = io.EOF // closed by us at a session's end: the libraries would log anything else as a fault
	}
	return n, err
}

// Write implements net.Conn.
func (g *guest) Write(p []byte) (int, error) {
	n, err := g.Conn.Write(p)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		g.leave(errClientGone)
	}
	return n, err
}

// Close implements net.Conn.
func (g *guest) Close() error {
	g.leave(errClientGone)
	g.lobby.forget(g)
	return g.Conn.Close()
}

// hungUp asks the kernel whether the other side has closed, read or unread.
func (g *guest) hungUp() bool {
	tcp, ok := g.Conn.(*net.TCPConn)
	if !ok {
		return false
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		gone = err == nil && info.State != unix.BPF_TCP_ESTABLISHED
	})
	return err != nil || gone
}
