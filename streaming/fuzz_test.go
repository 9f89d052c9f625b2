package streaming

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/websocket"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"github.com/crid-project/crid/container/stdio"
)

// greedy takes everything a client may send until its connection ends.
func greedy() *fakeRuntime {
	return &fakeRuntime{
		exec: func(ctx context.Context, _ string, req stdio.ExecRequest) (int, error) {
			go func() {
				for range req.Resize {
				}
			}()
			_, _ = io.Copy(req.Stdout, req.Stdin)
			<-ctx.Done()
			return 0, ctx.Err()
		},
		netns: func(string) (string, error) { return "", errTest }, // dials nothing
	}
}

// mustEnd waits until the server has no session left: whatever it was sent, it may neither crash nor hang.
func mustEnd(t *testing.T, s *Server) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, n := s.lobby.counts(); n == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the session never ended")
		}
	}
}

// FuzzV5Messages sends messages of channels that may not exist, close signals, and sizes that are none.
func FuzzV5Messages(f *testing.F) {
	f.Add([]byte("\x06\x00hello\x02\xff\x00"))
	f.Add([]byte("\x17\x04{\"Width\":80,\"Height\":24}\x02\x04{\x00\x02\xff\xff\x01\xff\x03\xff\x00\x00"))
	f.Add([]byte("\x02\xff\x04\x05\x04null"))
	s := start(f, greedy(), impatient)
	f.Fuzz(func(t *testing.T, data []byte) {
		u := mustURL(t)(s.Exec(message{id: "c1", cmd: []string{"x"}, in: true, out: true, tty: true}))
		ws, err := websocketDial(u, remotecommand.StreamProtocolV5Name)
		if err != nil {
			t.Fatal(err)
		}
		defer ws.Close()
		go func() { _, _ = io.Copy(io.Discard, ws) }()
		for len(data) > 0 { // a length and a message, again and again
			n := min(int(data[0]), len(data)-1)
			if websocket.Message.Send(ws, data[1:1+n]) != nil {
				break
			}
			data = data[1+n:]
		}
		ws.Close()
		mustEnd(t, s)
	})
}

// FuzzSPDYBytes sends bytes where SPDY frames should be, to exec and to port-forward.
func FuzzSPDYBytes(f *testing.F) {
	f.Add(true, []byte("\x80\x03\x00\x01\x00\x00\x00\x0a\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00"))
	f.Add(false, []byte("\x00\x00\x00\x01\x01\x00\x00\x05hello"))
	f.Add(false, []byte("\x80\x03\x00\x06\x00\x00\x00\x04\x00\x00\x00\x01\x80\x03\x00\x07\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add(true, []byte("\x80\x03\x00\x04\x00\xff\xff\xff\x7f\xff\xff\xff"))
	s := start(f, greedy(), impatient)
	f.Fuzz(func(t *testing.T, exec bool, data []byte) {
		var u string
		protocol := portforward.ProtocolV1Name
		if exec {
			u, protocol = mustURL(t)(s.Exec(message{id: "c1", cmd: []string{"x"}, in: true, out: true})), remotecommand.StreamProtocolV4Name
		} else {
			u = mustURL(t)(s.PortForward(message{id: "p1"}))
		}
		conn, err := upgrade(u, http.Header{"Connection": {"Upgrade"}, "Upgrade": {"SPDY/3.1"}, "X-Stream-Protocol-Version": {protocol}})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = conn.Write(data)
		_ = conn.(*buffered).Conn.(*net.TCPConn).CloseWrite()
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.Copy(io.Discard, conn)
		conn.Close()
		mustEnd(t, s)
	})
}
