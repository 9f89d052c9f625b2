package streaming

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	goruntime "runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/websocket"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/crid-project/crid/container/stdio"
)

// The process's first thread cannot end, so it must never be the one that stays in a namespace; cmd/crid does the same.
func init() { goruntime.LockOSThread() }

func TestMain(m *testing.M) {
	klog.SetSlogLogger(slog.New(slog.DiscardHandler)) // the library tells every failing session
	goleak.VerifyTestMain(settled{m})
}

// settled lets the HTTP server finish: it keeps a refused connection for half a second, so that the refusal arrives.
type settled struct{ *testing.M }

func (s settled) Run() int {
	defer time.Sleep(600 * time.Millisecond)
	return s.M.Run()
}

// fakeRuntime does what the tests say.
type fakeRuntime struct {
	exec   func(ctx context.Context, id string, req stdio.ExecRequest) (int, error)
	attach func(ctx context.Context, id string, req stdio.AttachRequest) error
	netns  func(pod string) (string, error)
}

func (f *fakeRuntime) Exec(ctx context.Context, id string, req stdio.ExecRequest) (int, error) {
	return f.exec(ctx, id, req)
}
func (f *fakeRuntime) Attach(ctx context.Context, id string, req stdio.AttachRequest) error {
	return f.attach(ctx, id, req)
}
func (f *fakeRuntime) PodNetNS(pod string) (string, error) {
	if f.netns == nil {
		return "", nil
	}
	return f.netns(pod)
}

// message is every CRI request by its getters.
type message struct {
	id                string
	cmd               []string
	in, out, err, tty bool
	ports             []int32
}

func (m message) GetContainerId() string  { return m.id }
func (m message) GetPodSandboxId() string { return m.id }
func (m message) GetCmd() []string        { return m.cmd }
func (m message) GetStdin() bool          { return m.in }
func (m message) GetStdout() bool         { return m.out }
func (m message) GetStderr() bool         { return m.err }
func (m message) GetTty() bool            { return m.tty }
func (m message) GetPort() []int32        { return m.ports }

// start serves runtime on loopback until the test ends.
func start(t testing.TB, runtime Runtime, options ...func(*Server)) *Server {
	t.Helper()
	s, err := New(Config{Log: slog.New(slog.DiscardHandler)}, runtime)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range options {
		o(s)
	}
	serve(t, s)
	return s
}

// impatient lets clients have little time to make their streams.
func impatient(s *Server) { s.creation = 50 * time.Millisecond }

func serve(t testing.TB, s *Server) {
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

func mustURL(t testing.TB) func(u string, err error) string {
	return func(u string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
}

// result is what a client saw of a session.
type result struct {
	out, err string
	status   status
}

// a client speaks one protocol: it opens the streams of m, sends input and returns when the server ended the session.
type client struct {
	name string
	run  func(t testing.TB, u string, m message, input string, size *stdio.Size) result
}

var clients = []client{{"spdy v4", spdyClient}, {"websocket v5", websocketClient("v5.channel.k8s.io")}, {"websocket v4", websocketClient("v4.channel.k8s.io")}}

// upgrade sends a request and returns the connection after the server switched protocols.
func upgrade(u string, header http.Header) (net.Conn, error) {
	parsed, err := url.Parse(u)
	if err != nil {
		return nil, err
	}
	conn, err := net.Dial("tcp", parsed.Host)
	if err != nil {
		return nil, err
	}
	method := http.MethodPost
	if header.Get("Sec-Websocket-Key") != "" {
		method = http.MethodGet
	}
	req, _ := http.NewRequest(method, u, nil)
	req.Header = header
	if err := req.Write(conn); err != nil {
		conn.Close()
		return nil, err
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		conn.Close()
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		conn.Close()
		return nil, fmt.Errorf("status %s", resp.Status)
	}
	return &buffered{conn, r}, nil
}

type buffered struct {
	net.Conn
	r *bufio.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

func spdyDial(u, protocol string) (net.Conn, httpstream.Connection, error) {
	conn, err := upgrade(u, http.Header{
		httpstream.HeaderConnection:      {httpstream.HeaderUpgrade},
		httpstream.HeaderUpgrade:         {spdy.HeaderSpdy31},
		httpstream.HeaderProtocolVersion: {protocol},
	})
	if err != nil {
		return nil, nil, err
	}
	s, err := spdy.NewClientConnection(conn)
	return conn, s, err
}

// spdyStreams opens the streams of exec and attach.
func spdyStreams(t testing.TB, s httpstream.Connection, m message) map[string]httpstream.Stream {
	t.Helper()
	streams := map[string]httpstream.Stream{}
	for name, wanted := range map[string]bool{"error": true, "stdin": m.in, "stdout": m.out, "stderr": m.err, "resize": m.tty} {
		if !wanted {
			continue
		}
		stream, err := s.CreateStream(http.Header{remotecommand.StreamType: {name}})
		if err != nil {
			t.Error(err)
			continue
		}
		streams[name] = stream
	}
	return streams
}

func spdyClient(t testing.TB, u string, m message, input string, size *stdio.Size) (res result) {
	_, s, err := spdyDial(u, remotecommand.StreamProtocolV4Name)
	if err != nil {
		t.Error(err)
		return res
	}
	defer s.Close()
	streams := spdyStreams(t, s, m)
	if size != nil {
		_ = json.NewEncoder(streams["resize"]).Encode(remotecommand.TerminalSize{Width: size.Width, Height: size.Height})
	}
	if m.in {
		go func() {
			_, _ = io.Copy(streams["stdin"], strings.NewReader(input))
			streams["stdin"].Close()
		}()
	}
	var wg sync.WaitGroup
	read := func(name string, to *string) {
		if streams[name] == nil {
			return
		}
		wg.Go(func() {
			b, _ := io.ReadAll(streams[name])
			*to = string(b)
		})
	}
	read("stdout", &res.out)
	read("stderr", &res.err)
	b, _ := io.ReadAll(streams["error"])
	wg.Wait()
	if err := json.Unmarshal(b, &res.status); err != nil {
		t.Errorf("status %q: %v", b, err)
	}
	return res
}

func websocketDial(u string, protocols ...string) (*websocket.Conn, error) {
	cfg, err := websocket.NewConfig("ws"+strings.TrimPrefix(u, "http"), "http://localhost")
	if err != nil {
		return nil, err
	}
	cfg.Protocol = protocols
	return cfg.DialContext(context.Background())
}

func websocketClient(protocol string) func(testing.TB, string, message, string, *stdio.Size) result {
	return func(t testing.TB, u string, m message, input string, size *stdio.Size) (res result) {
		ws, err := websocketDial(u, protocol)
		if err != nil {
			t.Error(err)
			return res
		}
		defer ws.Close()
		send := func(p ...byte) { _ = websocket.Message.Send(ws, p) }
		if size != nil {
			b, _ := json.Marshal(remotecommand.TerminalSize{Width: size.Width, Height: size.Height})
			send(append([]byte{remotecommand.StreamResize}, b...)...)
		}
		if m.in {
			go func() {
				for p := []byte(input); len(p) > 0; {
					n := min(len(p), 8192)
					send(append([]byte{remotecommand.StreamStdIn}, p[:n]...)...)
					p = p[n:]
				}
				if protocol == remotecommand.StreamProtocolV5Name {
					send(remotecommand.StreamClose, remotecommand.StreamStdIn)
				}
			}()
		}
		var statusText []byte
		for {
			var p []byte
			if err := websocket.Message.Receive(ws, &p); err != nil {
				break
			}
			switch p[0] {
			case remotecommand.StreamStdOut:
				res.out += string(p[1:])
			case remotecommand.StreamStdErr:
				res.err += string(p[1:])
			case remotecommand.StreamErr:
				statusText = append(statusText, p[1:]...)
			}
		}
		if err := json.Unmarshal(statusText, &res.status); err != nil {
			t.Errorf("status %q: %v", statusText, err)
		}
		return res
	}
}

// eventually waits for what follows in the background.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: still not after 10 s", what)
		}
	}
}

var errTest = errors.New("no such thing")
