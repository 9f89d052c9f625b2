package streaming

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxForwards bounds the connections that one client forwards at a time.
	maxForwards = 256
	// oneWay is how long a connection that the pod has closed for its part may stay silent from the client's.
	oneWay = time.Minute
)

// forwarder forwards the connections of one session. The library gives it no context, so it brings the session's.
type forwarder struct {
	ctx     context.Context
	runtime Runtime
	slots   chan struct{}
}

func newForwarder(ctx context.Context, runtime Runtime) *forwarder {
	return &forwarder{ctx: ctx, runtime: runtime, slots: make(chan struct{}, maxForwards)}
}

// PortForward implements portforward.PortForwarder: one connection to one port, until both sides have ended.
func (f *forwarder) PortForward(_ context.Context, pod, _ string, port int32, stream io.ReadWriteCloser) error {
	select {
	case f.slots <- struct{}{}:
	default:
		return fmt.Errorf("more than %d connections at a time", maxForwards)
	}
	defer func() { <-f.slots }()
	path, err := f.runtime.PodNetNS(pod)
	if err != nil {
		return err
	}
	conn, err := dialPod(f.ctx, path, port)
	if err != nil {
		return err
	}
	// An error would make the client give up all its forwarding, so what breaks one connection is not one: its stream is
	// reset, and that is what the client's own end sees.
	splice(f.ctx, conn, stream)
	return nil
}

var copyBuffers sync.Pool

// takeBuffer takes a buffer from the pool; the caller puts it back.
func takeBuffer() *[]byte {
	if b, ok := copyBuffers.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, 32<<10)
	return &b
}

// splice copies both ways between a pod's connection and a client's stream and closes both.
//
// Each side may end its sending while the other goes on: the client's EOF closes the pod's connection for writing, the
// pod's EOF closes the stream for writing. It ends when the pod has ended and the client has too, or is silent for oneWay;
// when either side fails; or with ctx.
func splice(ctx context.Context, conn net.Conn, stream io.ReadWriteCloser) {
	defer conn.Close()
	var up atomic.Int64 // bytes from the client
	client := make(chan error, 1)
	go func() {
		err := pump(conn, stream, &up)
		if half, ok := conn.(interface{ CloseWrite() error }); ok && err == nil {
			err = half.CloseWrite()
		}
		if err != nil {
			conn.Close() // the client has failed, or the pod takes no more: the other direction ends with it
		}
		client <- err
	}()
	pod := make(chan error, 1)
	go func() {
		err := pump(stream, conn, new(atomic.Int64))
		if err == nil {
			err = stream.Close() // half: the client may still send
		}
		pod <- err
	}()

	podEnded, clientEnded := false, false
	var fail error
	seen, silence := int64(0), time.NewTimer(oneWay)
	defer silence.Stop()
	for fail == nil && (!podEnded || !clientEnded) {
		select {
		case err := <-pod:
			podEnded, fail = true, err
			seen = up.Load()
			silence.Reset(oneWay)
		case err := <-client:
			clientEnded, fail = true, err
		case <-silence.C:
			if now := up.Load(); podEnded && now == seen {
				fail = errors.New("silent")
			} else {
				seen = now
				silence.Reset(oneWay)
			}
		case <-ctx.Done():
			fail = context.Cause(ctx)
		}
	}
	conn.Close()
	if fail != nil {
		reset(stream)
	}
	// With the connection closed and the stream reset, neither can wait any more.
	if !podEnded {
		<-pod //nolint:errcheck // the first failure is what ended it
	}
	if !clientEnded {
		<-client //nolint:errcheck // as above
	}
}

// reset ends both directions of a stream; Close of a SPDY stream ends ours only.
func reset(stream io.Closer) {
	if r, ok := stream.(interface{ Reset() error }); ok {
		_ = r.Reset()
		return
	}
	_ = stream.Close()
}

// pump copies until EOF, counting.
func pump(to io.Writer, from io.Reader, n *atomic.Int64) error {
	buf := takeBuffer()
	defer copyBuffers.Put(buf)
	for {
		r, err := from.Read(*buf)
		if r > 0 {
			n.Add(int64(r))
			if _, werr := to.Write((*buf)[:r]); werr != nil {
				return werr
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
