package streaming

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// dialTimeout bounds connecting to a port inside a pod: a loopback address answers at once or not at all.
const dialTimeout = 5 * time.Second

// dialPod connects to a port on the loopback of the network namespace at path, or of the node if path is empty: 127.0.0.1
// first, then ::1.
func dialPod(ctx context.Context, path string, port int32) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if path == "" {
		return dialLoopback(ctx, port)
	}
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	// A goroutine of its own: if its thread cannot return home, both end.
	go func() {
		conn, err := dialInside(ctx, path, port)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

// dialInside dials from within the namespace. The socket stays there for its life; the thread is there for the dial only.
func dialInside(ctx context.Context, path string, port int32) (_ net.Conn, err error) {
	target, err := os.OpenFile(path, os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("enter the pod's network: %w", err)
	}
	defer target.Close()
	runtime.LockOSThread()
	home, err := os.OpenFile("/proc/thread-self/ns/net", os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("find the node's network: %w", err)
	}
	defer home.Close()
	if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("enter the pod's network %s: %w", path, err)
	}
	defer func() {
		// A thread that stays locked is ended by the runtime together with this goroutine, rather than reused elsewhere.
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return dialLoopback(ctx, port)
}

// dialLoopback dials both addresses in order. They are literals, so that the dial neither resolves nor leaves its thread.
func dialLoopback(ctx context.Context, port int32) (net.Conn, error) {
	var d net.Dialer
	p := strconv.Itoa(int(port))
	conn, err4 := d.DialContext(ctx, "tcp4", net.JoinHostPort("127.0.0.1", p))
	if err4 == nil {
		return conn, nil
	}
	conn, err6 := d.DialContext(ctx, "tcp6", net.JoinHostPort("::1", p))
	if err6 == nil {
		return conn, nil
	}
	return nil, fmt.Errorf("nothing in the pod answers on localhost port %d: %w", port, errors.Join(err4, err6))
}
