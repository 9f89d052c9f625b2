package streaming

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/websocket"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"github.com/crid-project/crid/container/stdio"
)

func TestExecOverEveryProtocol(t *testing.T) {
	runtime := &fakeRuntime{exec: func(ctx context.Context, id string, req stdio.ExecRequest) (int, error) {
		if id != "c1" {
			return 0, fmt.Errorf("container %q", id)
		}
		if req.Stdout != nil {
			fmt.Fprint(req.Stdout, "to stdout ")
		}
		if req.Stderr != nil {
			fmt.Fprint(req.Stderr, "to stderr")
		}
		if req.TTY {
			size := <-req.Resize
			fmt.Fprintf(req.Stdout, "%dx%d ", size.Width, size.Height)
		}
		if req.Stdin != nil && req.Cmd[0] == "cat" {
			if _, err := io.Copy(req.Stdout, req.Stdin); err != nil {
				return 0, err
			}
		}
		switch req.Cmd[0] {
		case "fail":
			return 0, errTest
		case "seven":
			return 7, nil
		}
		return 0, nil
	}}
	s := start(t, runtime)
	big := strings.Repeat("0123456789abcdef", 20000)
	for _, c := range []struct {
		name  string
		m     message
		input string
		size  *stdio.Size
		want  result
	}{
		{name: "both outputs", m: message{cmd: []string{"x"}, out: true, err: true}, want: result{out: "to stdout ", err: "to stderr"}},
		{name: "stderr only", m: message{cmd: []string{"x"}, err: true}, want: result{err: "to stderr"}},
		{name: "stdin to its end", m: message{cmd: []string{"cat"}, in: true, out: true}, input: big, want: result{out: "to stdout " + big}},
		{name: "empty stdin", m: message{cmd: []string{"cat"}, in: true, out: true}, want: result{out: "to stdout "}},
		{name: "terminal", m: message{cmd: []string{"x"}, in: true, out: true, tty: true}, size: &stdio.Size{Width: 132, Height: 43}, want: result{out: "to stdout 132x43 "}},
		{name: "exit code", m: message{cmd: []string{"seven"}, out: true}, want: result{out: "to stdout ", status: status{Reason: "NonZeroExitCode"}}},
		{name: "failure", m: message{cmd: []string{"fail"}, out: true}, want: result{out: "to stdout ", status: status{Reason: "InternalError"}}},
	} {
		for _, client := range clients {
			t.Run(c.name+"/"+client.name, func(t *testing.T) {
				if client.name == "websocket v4" && c.m.cmd[0] == "cat" {
					t.Skip("v4 over a websocket has no end of stdin")
				}
				c.m.id = "c1"
				got := client.run(t, mustURL(t)(s.Exec(c.m)), c.m, c.input, c.size)
				if got.out != c.want.out || got.err != c.want.err || got.status.Reason != c.want.status.Reason {
					t.Errorf("got %d bytes %.40q, %q, %+v", len(got.out), got.out, got.err, got.status)
				}
				if got.status.Reason == "NonZeroExitCode" && got.status.Details.Causes[0].Message != "7" {
					t.Errorf("got causes %+v", got.status.Details.Causes)
				}
				if got.status.Reason == "InternalError" && !strings.Contains(got.status.Message, errTest.Error()) {
					t.Errorf("got message %q", got.status.Message)
				}
			})
		}
	}
}

func TestAttachOverEveryProtocol(t *testing.T) {
	s := start(t, &fakeRuntime{attach: func(ctx context.Context, id string, req stdio.AttachRequest) error {
		_, err := io.CopyN(req.Stdout, req.Stdin, 5)
		return err
	}})
	m := message{id: "c1", in: true, out: true, err: true}
	for _, client := range clients {
		t.Run(client.name, func(t *testing.T) {
			got := client.run(t, mustURL(t)(s.Attach(m)), m, "hello", nil)
			if got.out != "hello" || got.status.Status != "Success" {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// F95, CVE-2025-64329: kill -9 of the client ends the process, also when nobody reads its input or writes output.
func TestVanishedClientEndsTheSession(t *testing.T) {
	ended := make(chan error, 1)
	s := start(t, &fakeRuntime{exec: func(ctx context.Context, id string, req stdio.ExecRequest) (int, error) {
		fmt.Fprint(req.Stdout, "on")
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return 0, ctx.Err()
	}})
	m := message{id: "c1", cmd: []string{"sleep"}, in: true, out: true}
	for name, vanish := range map[string]func(t *testing.T, u string){
		"spdy": func(t *testing.T, u string) {
			conn, client, err := spdyDial(u, remotecommand.StreamProtocolV4Name)
			if err != nil {
				t.Fatal(err)
			}
			streams := spdyStreams(t, client, m)
			_, _ = io.ReadFull(streams["stdout"], make([]byte, 2))
			conn.Close()
			client.Close()
		},
		"websocket": func(t *testing.T, u string) {
			ws, err := websocketDial(u, remotecommand.StreamProtocolV5Name)
			if err != nil {
				t.Fatal(err)
			}
			var p []byte
			for len(p) < 3 {
				if err := websocket.Message.Receive(ws, &p); err != nil {
					t.Fatal(err)
				}
			}
			ws.Close()
		},
		"websocket whose input nobody reads": func(t *testing.T, u string) {
			ws, err := websocketDial(u, remotecommand.StreamProtocolV5Name)
			if err != nil {
				t.Fatal(err)
			}
			for range 4 {
				if err := websocket.Message.Send(ws, make([]byte, 32<<10)); err != nil {
					t.Fatal(err)
				}
			}
			ws.Close()
			time.Sleep(50 * time.Millisecond)
			s.lobby.lookOver() // what the timer does every 5 s
		},
	} {
		t.Run(name, func(t *testing.T) {
			vanish(t, mustURL(t)(s.Exec(m)))
			select {
			case cause := <-ended:
				if !errors.Is(cause, errClientGone) && !errors.Is(cause, context.Canceled) {
					t.Errorf("ended because of %v", cause)
				}
			case <-time.After(5 * time.Second):
				t.Error("the session goes on without its client")
			}
		})
	}
}

func TestVanishedClientsLeaveNothingBehind(t *testing.T) {
	n := 1000
	if testing.Short() {
		n = 100
	}
	var running atomic.Int64
	s := start(t, &fakeRuntime{exec: func(ctx context.Context, id string, req stdio.ExecRequest) (int, error) {
		running.Add(1)
		defer running.Add(-1)
		<-ctx.Done()
		return 0, ctx.Err()
	}})
	m := message{id: "c1", cmd: []string{"sh"}, in: true, out: true, tty: true}
	routines := runtime.NumGoroutine()
	slots := make(chan struct{}, 8)
	var wg sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			u, err := s.Exec(m)
			if err != nil {
				t.Error(err)
				return
			}
			if i%2 == 0 {
				conn, client, err := spdyDial(u, remotecommand.StreamProtocolV4Name)
				if err != nil {
					t.Error(err)
					return
				}
				streams := spdyStreams(t, client, m)
				for range 20 {
					_, _ = streams["resize"].Write([]byte(`{"Width":1,"Height":2}`))
				}
				conn.Close()
				client.Close()
				return
			}
			ws, err := websocketDial(u, remotecommand.StreamProtocolV5Name)
			if err != nil {
				t.Error(err)
				return
			}
			for range 20 {
				_ = websocket.Message.Send(ws, []byte("\x04{\"Width\":1,\"Height\":2}"))
			}
			ws.Close()
		})
	}
	wg.Wait()
	eventually(t, "sessions ended", func() bool { s.lobby.lookOver(); return running.Load() == 0 })
	eventually(t, "goroutines as before", func() bool { return runtime.NumGoroutine() <= routines })
	if waiting, sessions := s.lobby.counts(); waiting != 0 || sessions != 0 {
		t.Errorf("%d connections wait, %d sessions", waiting, sessions)
	}
}

// A client that upgrades and never makes its streams is let go, not kept for the idle time.
func TestClientWithoutStreamsIsLetGo(t *testing.T) {
	s := start(t, &fakeRuntime{}, impatient)
	conn, client, err := spdyDial(mustURL(t)(s.Exec(message{id: "c1", cmd: []string{"x"}, out: true})), remotecommand.StreamProtocolV4Name)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	select {
	case <-client.CloseChan():
	case <-time.After(5 * time.Second):
		t.Error("still connected")
	}
	eventually(t, "session forgotten", func() bool { _, n := s.lobby.counts(); return n == 0 })
}

// Not HTTP's business any more after the upgrade: bytes that are no frames.
func TestGarbageAfterTheUpgradeEndsTheSession(t *testing.T) {
	s := start(t, &fakeRuntime{exec: func(ctx context.Context, _ string, _ stdio.ExecRequest) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	}}, impatient)
	for name, header := range map[string]http.Header{
		"spdy": {"Connection": {"Upgrade"}, "Upgrade": {"SPDY/3.1"}, "X-Stream-Protocol-Version": {"v4.channel.k8s.io"}},
		"websocket": {"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"},
			"Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}, "Sec-Websocket-Protocol": {"v5.channel.k8s.io"}},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := upgrade(mustURL(t)(s.Exec(message{id: "c1", cmd: []string{"x"}, out: true})), header)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			for range 100 {
				if _, err := conn.Write([]byte(strings.Repeat("\xff\x00garbage", 100))); err != nil {
					break
				}
			}
			_ = conn.(*buffered).Conn.(*net.TCPConn).CloseWrite()
			_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, context.DeadlineExceeded) {
				t.Error("still connected")
			}
			eventually(t, "session forgotten", func() bool { _, n := s.lobby.counts(); return n == 0 })
		})
	}
}
