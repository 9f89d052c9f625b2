package shimclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	dialTimeout = 2 * time.Second
	// writeTimeout ends the connection to a shim that reads no more. The ttrpc
	// client writes under a lock and heeds no deadline there, so without this one
	// stopped shim would hold every caller for ever once its buffer is full.
	writeTimeout = 5 * time.Second
)

// client is one connection.
type client struct {
	*ttrpc.Client
	broken chan struct{} // closed when the connection is
}

// dial connects to a socket of a process of our own user.
func dial(ctx context.Context, path string) (*client, error) {
	if err := checkSocketPath(path); err != nil {
		return nil, err
	}
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if err := checkPeer(conn); err != nil {
		conn.Close()
		return nil, err
	}
	c := &client{broken: make(chan struct{})}
	c.Client = ttrpc.NewClient(impatientConn{conn}, ttrpc.WithOnClose(func() { close(c.broken) }))
	return c, nil
}

// checkPeer looks at the credentials of whoever listened. Only the user counts:
// the pid is that of the start command, which is long gone.
func checkPeer(conn net.Conn) error {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("read peer credentials of a %T: %w", conn, ErrUnreachable)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if credErr != nil {
		return fmt.Errorf("read peer credentials: %w", credErr)
	}
	if int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("socket is served by user %d: %w", cred.Uid, ErrUnreachable)
	}
	return nil
}

// impatientConn gives every write a deadline.
type impatientConn struct{ net.Conn }

func (c impatientConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(p)
	if err != nil {
		c.Conn.Close() // half a frame is out: nothing sensible can follow
	}
	return n, err
}

// call makes one RPC. The two versions of the task API differ in the service's
// name and in nothing on the wire.
func (c *client) call(ctx context.Context, version int, method string, req, resp proto.Message) error {
	service := "containerd.task.v3.Task"
	if version == 2 {
		service = "containerd.task.v2.Task"
	}
	return c.Call(ctx, service, method, req, resp)
}

// shimPid asks for the shim's own pid. It is 0 if the shim answers but does not
// tell, as some do before they have a container.
func (c *client) shimPid(ctx context.Context, ref Ref) (int, error) {
	var resp task.ConnectResponse
	err := c.call(ctx, ref.Version, "Connect", &task.ConnectRequest{ID: ref.ID}, &resp)
	if st, ok := status.FromError(err); err != nil && ok && st.Code() != codes.Unimplemented {
		return 0, nil
	}
	return int(resp.ShimPid), err
}

// link holds the connection of a Shim, of which there is at most one. Callers
// that need a new one wait for a single dial, each no longer than it likes.
type link struct {
	mu      sync.Mutex
	client  *client
	dialing chan struct{} // closed when the dial under way has ended
	closed  bool
}

func (l *link) put(c *client) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.client = c
}

func (l *link) get(ctx context.Context, dial func(context.Context) (*client, error)) (*client, error) {
	for {
		l.mu.Lock()
		if l.closed {
			l.mu.Unlock()
			return nil, ErrClosed
		}
		if l.client != nil {
			select {
			case <-l.client.broken:
				l.client = nil
			default:
				defer l.mu.Unlock()
				return l.client, nil
			}
		}
		if l.dialing == nil {
			break
		}
		wait := l.dialing
		l.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, errors.Join(ErrUnreachable, ctx.Err())
		}
	}
	l.dialing = make(chan struct{})
	l.mu.Unlock()

	dialCtx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	c, err := dial(dialCtx)

	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.dialing)
	l.dialing = nil
	if err != nil {
		return nil, err
	}
	if l.closed {
		c.Close()
		return nil, ErrClosed
	}
	l.client = c
	return c, nil
}

// drop forgets a broken connection.
func (l *link) drop(c *client) {
	l.mu.Lock()
	if l.client == c {
		l.client = nil
	}
	l.mu.Unlock()
	c.Close()
}

// close ends the connection for good.
func (l *link) close() {
	l.mu.Lock()
	c := l.client
	l.client, l.closed = nil, true
	l.mu.Unlock()
	if c != nil {
		c.Close()
	}
}
