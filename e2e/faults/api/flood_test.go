//go:build e2e

package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/faults/watch"
	"github.com/crid-project/crid/e2e/story"
)

// Thousands of connections to the CRI socket that say nothing, half a greeting, or nonsense: others are served meanwhile, and afterwards nothing is left.
func TestF94AFloodOfConnections(t *testing.T) {
	s := story.Begin(t)
	n := min(watch.Times(1000, 10_000), files(t)/2)
	for what, say := range map[string]string{"silent": "", "half a greeting": "PRI * HTTP/2.0\r\n\r\nSM", "nonsense": "GET / HTTP/1.1\r\n\r\n"} {
		w := watch.Others(s)
		var open []net.Conn
		for range n {
			c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(t.Context(), "unix", s.Home.Socket())
			if err != nil {
				t.Logf("%s: after %d connections: %v", what, len(open), err)
				break
			}
			_, _ = io.WriteString(c, say)
			open = append(open, c)
		}
		if len(open) < 100 {
			t.Errorf("%s: only %d connections", what, len(open))
		}
		id, err := s.RunPod(t.Context(), s.Home.Pod("flooded"), "")
		if err != nil {
			t.Errorf("%s: a pod meanwhile: %v", what, err)
		} else if err := s.RemovePodFully(t.Context(), id); err != nil {
			t.Error(err)
		}
		w.End(t)
		for _, c := range open {
			c.Close()
		}
	}
}

// files is how many files this process may open.
func files(t *testing.T) int {
	t.Helper()
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		t.Fatal(err)
	}
	return int(min(r.Cur, 1<<20))
}

// session asks for the address of an exec.
func session(c *story.Container, stdin bool) *url.URL {
	c.Pod.T.Helper()
	r, err := c.Pod.Runtime.Exec(c.Pod.T.Context(), &runtimeapi.ExecRequest{ContainerId: c.ID, Cmd: []string{"cat"}, Stdin: stdin, Stdout: true, Stderr: true})
	if err != nil {
		c.Pod.T.Fatal(err)
	}
	u, err := url.Parse(r.GetUrl())
	if err != nil {
		c.Pod.T.Fatal(err)
	}
	return u
}

// upgrade begins a session by hand and gives its first line and the connection.
func upgrade(ctx context.Context, u *url.URL, protocol string) (string, net.Conn, error) {
	c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return "", nil, err
	}
	head := "POST " + u.RequestURI() + " HTTP/1.1\r\nHost: " + u.Host + "\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\nContent-Length: 0\r\n\r\n"
	if protocol == "websocket" {
		head = "GET " + u.RequestURI() + " HTTP/1.1\r\nHost: " + u.Host + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, head); err != nil {
		return "", c, err
	}
	line, err := bufio.NewReaderSize(c, 16).ReadString('\n')
	return strings.TrimSpace(line), c, err
}

// The streaming port: it is on loopback only, an address works once, and clients that say nothing or speak slowly keep nobody else out.
func TestF94TheStreamingPort(t *testing.T) {
	s := story.Begin(t)
	watch.Others(s)
	c := s.Pod("streams").Go(story.Sleeper("c"))
	u := session(c, false)
	if ip := net.ParseIP(u.Hostname()); ip == nil || !ip.IsLoopback() {
		t.Errorf("it is on %s", u.Host)
	}
	line, conn, err := upgrade(t.Context(), u, "spdy")
	if err != nil || !strings.Contains(line, "101") {
		t.Errorf("an exec: %q (%v)", line, err)
	}
	again, second, err := upgrade(t.Context(), u, "spdy")
	if err != nil || strings.Contains(again, "101") {
		t.Errorf("the same address again: %q (%v)", again, err)
	}
	conn.Close()
	second.Close()
	for _, path := range []string{"/", "/exec/", "/exec/" + strings.Repeat("0", 64), "/attach/" + strings.TrimPrefix(u.Path, "/exec/"), "/exec/../../etc/passwd", "/debug/pprof/"} {
		r, err := http.Get("http://" + u.Host + path)
		if err != nil {
			t.Error(err)
			continue
		}
		r.Body.Close()
		if r.StatusCode < 400 {
			t.Errorf("GET %s: %s", path, r.Status)
		}
	}
	n := min(watch.Times(500, 5000), files(t)/2)
	var open []net.Conn
	for i := range n {
		c, err := (&net.Dialer{Timeout: time.Second}).DialContext(t.Context(), "tcp", u.Host)
		if err != nil {
			break
		}
		if i%2 == 0 {
			_, _ = io.WriteString(c, "POST /exec/x HTTP/1.1\r\nHost: x\r\nX-Slow: ") // and never ends
		}
		open = append(open, c)
	}
	t.Logf("%d connections that say little", len(open))
	s.Eventually("an exec comes through", 40*time.Second, func() bool {
		line, conn, err := upgrade(t.Context(), session(c, false), "spdy")
		if conn != nil {
			conn.Close()
		}
		return err == nil && strings.Contains(line, "101")
	})
	for _, c := range open {
		c.Close()
	}
}

// Clients of exec that vanish at any moment, or speak garbage, in either protocol: nothing stays of them.
func TestF95ClientsThatVanish(t *testing.T) {
	s := story.Begin(t)
	watch.Others(s)
	c := s.Pod("vanish").Go(story.Sleeper("c"))
	end := func(protocol string) error {
		line, conn, err := upgrade(t.Context(), session(c, true), protocol)
		if err != nil || !strings.Contains(line, "101") {
			return fmt.Errorf("%s: %q: %w", protocol, line, err)
		}
		garbage := make([]byte, rand.IntN(300))
		for i := range garbage {
			garbage[i] = byte(rand.Uint32())
		}
		switch rand.IntN(4) {
		case 0: // at once
		case 1:
			_, _ = conn.Write(garbage)
		case 2: // a moment later
			time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
		case 3: // streams are announced and never come
			_, _ = conn.Write([]byte{0x80, 3, 0, 1, 0, 0, 0, 0x0a, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		}
		if tcp, ok := conn.(*net.TCPConn); ok && rand.IntN(2) == 0 {
			_ = tcp.SetLinger(0) // a reset, as from a client that was killed
		}
		return conn.Close()
	}
	threads := 0
	for round := range watch.Times(3, 20) {
		for _, err := range story.AtOnce(10, func(int) error {
			for range watch.Times(3, 5) {
				for _, p := range []string{"spdy", "websocket"} {
					if err := end(p); err != nil {
						return err
					}
				}
			}
			return nil
		}) {
			if err != nil {
				t.Error(err)
			}
		}
		now := watch.Field(t, s.Pid(), "Threads")
		if round == 0 {
			threads = now
		} else if now > threads+64 { // a slow disk makes some; one for each client would be hundreds
			t.Errorf("round %d: %d threads, %d after the first", round, now, threads)
		}
	}
	s.Eventually("no process of theirs is left", 40*time.Second, func() bool { return c.Sh("pgrep -x cat | wc -l") == "0" })
}
