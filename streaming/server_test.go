package streaming

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"github.com/crid-project/crid/container/stdio"
)

func TestListensOnLoopbackOnly(t *testing.T) {
	for address, ok := range map[string]bool{
		"": true, "127.0.0.1:0": true, "localhost:0": true, "[::1]:0": true,
		":0": false, "0.0.0.0:0": false, "[::]:0": false, "192.0.2.1:10010": false, "node.example:10010": false, "10010": false,
	} {
		s, err := New(Config{Address: address}, &fakeRuntime{})
		if ok {
			var unsupported *net.OpError
			if errors.As(err, &unsupported) && strings.HasPrefix(address, "[") {
				t.Logf("%s: %v (no IPv6 here)", address, err)
				continue
			}
			if err != nil {
				t.Errorf("%q: %v", address, err)
				continue
			}
			if host, port, _ := net.SplitHostPort(s.base.Host); port == "0" || host == "" {
				t.Errorf("%q: URL %s", address, s.URL())
			}
			s.Close()
		} else if !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: got %v, want InvalidArgument", address, err)
		}
	}
	s, err := New(Config{Address: "0.0.0.0:0", AllowRemote: true}, &fakeRuntime{})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

func TestBadRequestsGetNoURL(t *testing.T) {
	s := start(t, &fakeRuntime{})
	for name, call := range map[string]func() (string, error){
		"exec without container":     func() (string, error) { return s.Exec(message{cmd: []string{"x"}, out: true}) },
		"exec without command":       func() (string, error) { return s.Exec(message{id: "c", out: true}) },
		"exec without streams":       func() (string, error) { return s.Exec(message{id: "c", cmd: []string{"x"}}) },
		"exec with tty and stderr":   func() (string, error) { return s.Exec(message{id: "c", cmd: []string{"x"}, tty: true, err: true}) },
		"attach without container":   func() (string, error) { return s.Attach(message{out: true}) },
		"attach without streams":     func() (string, error) { return s.Attach(message{id: "c"}) },
		"attach with tty and stderr": func() (string, error) { return s.Attach(message{id: "c", tty: true, err: true}) },
		"forward without pod":        func() (string, error) { return s.PortForward(message{}) },
		"forward of port 0":          func() (string, error) { return s.PortForward(message{id: "p", ports: []int32{0}}) },
		"forward of port 65536":      func() (string, error) { return s.PortForward(message{id: "p", ports: []int32{80, 65536}}) },
		"forward of many ports":      func() (string, error) { return s.PortForward(message{id: "p", ports: make([]int32, 1000)}) },
	} {
		if u, err := call(); !errdefs.IsInvalidArgument(err) || u != "" {
			t.Errorf("%s: got %q, %v; want InvalidArgument", name, u, err)
		}
	}
}

// F94, CVE-2018-1002102: a URL works once, for its own verb, and never redirects.
func TestURLsWorkOnceAndForTheirVerb(t *testing.T) {
	s := start(t, &fakeRuntime{})
	transport := &http.Transport{DisableKeepAlives: true}
	get := func(method, u string) int {
		t.Helper()
		req, _ := http.NewRequest(method, u, nil)
		resp, err := transport.RoundTrip(req) // follows no redirects
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	m := message{id: "c1", cmd: []string{"x"}, out: true}
	u := mustURL(t)(s.Exec(m))
	if code := get("GET", u); code != http.StatusBadRequest {
		t.Errorf("a plain GET of a good URL: %d, want 400: it is no upgrade", code)
	}
	if code := get("GET", u); code != http.StatusNotFound {
		t.Errorf("the second use: %d, want 404", code)
	}
	if code := get("GET", strings.Replace(mustURL(t)(s.Exec(m)), "/exec/", "/attach/", 1)); code != http.StatusNotFound {
		t.Errorf("another verb: %d, want 404", code)
	}
	for _, path := range []string{"/", "/exec", "/exec/", "//exec//", "/exec/../exec/x", "/exec/x/y", "/%2e%2e/", "//evil.example/"} {
		if code := get("GET", s.URL()+path); code != http.StatusNotFound {
			t.Errorf("%s: %d, want 404", path, code)
		}
	}
	if code := get("PUT", mustURL(t)(s.Exec(m))); code != http.StatusMethodNotAllowed {
		t.Errorf("PUT: %d, want 405", code)
	}
}

func TestTokensExpireAfterAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens := newTokens()
		first, _ := tokens.issue(&call{id: "first"})
		time.Sleep(40 * time.Second)
		second, _ := tokens.issue(&call{id: "second"})
		time.Sleep(21 * time.Second)
		if c := tokens.redeem(first); c != nil {
			t.Error("a token of 61 s was good")
		}
		if c := tokens.redeem(second); c == nil || c.id != "second" {
			t.Error("a token of 21 s was not good")
		}
		if c := tokens.redeem(second); c != nil {
			t.Error("a token was good twice")
		}
	})
}

func TestTokensAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens := newTokens()
		seen := map[string]bool{}
		for range maxTokens {
			token, err := tokens.issue(&call{})
			if err != nil || seen[token] || len(token) < 22 {
				t.Fatalf("token %q, %v", token, err)
			}
			seen[token] = true
		}
		if _, err := tokens.issue(&call{}); !errdefs.IsResourceExhausted(err) {
			t.Errorf("got %v, want ResourceExhausted", err)
		}
		time.Sleep(tokenLife)
		if _, err := tokens.issue(&call{}); err != nil {
			t.Errorf("after a minute: %v", err)
		}
		if len(tokens.calls) != 1 || len(tokens.order) != 1 {
			t.Errorf("%d tokens kept", len(tokens.calls))
		}
	})
}

// F94: connections that say nothing take no place from one that speaks.
func TestFloodOfSilentConnections(t *testing.T) {
	s := start(t, &fakeRuntime{})
	var flood []net.Conn
	defer func() {
		for _, c := range flood {
			c.Close()
		}
	}()
	for range 3 * maxWaiting {
		c, err := net.Dial("tcp", s.base.Host)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte("GET / HT"))
		flood = append(flood, c)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(must(http.NewRequest(http.MethodGet, s.URL()+"/x", nil)))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if waiting, _ := s.lobby.counts(); waiting > maxWaiting {
		t.Errorf("%d connections kept", waiting)
	}
	_ = flood[0].SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.Copy(io.Discard, flood[0]); err != nil && !isReset(err) {
		t.Errorf("the oldest connection is still there: %v", err)
	}
}

func isReset(err error) bool {
	return strings.Contains(err.Error(), "reset") || strings.Contains(err.Error(), "broken pipe")
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestHugeHeadersAreRefused(t *testing.T) {
	s := start(t, &fakeRuntime{})
	c, err := net.Dial("tcp", s.base.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go fmt.Fprintf(c, "GET /exec/x HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("x", 1<<20))
	b := make([]byte, 12)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "HTTP/1.1 431" {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestASilentSessionEndsWhenTheNodeSaysSo(t *testing.T) {
	for configured, want := range map[time.Duration]time.Duration{0: idleTimeout, time.Minute: time.Minute} {
		s, err := New(Config{IdleTimeout: configured}, &fakeRuntime{})
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		if s.idle != want {
			t.Errorf("%s: %s", configured, s.idle)
		}
	}
}

// Who is cut off without a word believes that the command has ended well: kubectl reports success, with half of the output.
func TestAStopTellsTheClients(t *testing.T) {
	m := message{id: "c1", cmd: []string{"sleep"}, out: true}
	for name, client := range map[string]func(testing.TB, string, message, string, *stdio.Size) result{
		"spdy": spdyClient, "websocket v4": websocketClient(remotecommand.StreamProtocolV4Name), "websocket v5": websocketClient(remotecommand.StreamProtocolV5Name),
	} {
		for verb, begin := range map[string]func(*Server) (string, error){
			"exec": func(s *Server) (string, error) { return s.Exec(m) }, "attach": func(s *Server) (string, error) { return s.Attach(m) },
		} {
			t.Run(name+" "+verb, func(t *testing.T) {
				ctx, stop := context.WithCancel(context.Background())
				begun := make(chan struct{})
				session := func(ctx context.Context) error { close(begun); <-ctx.Done(); return ctx.Err() }
				s, err := New(Config{Log: slog.New(slog.DiscardHandler)}, &fakeRuntime{
					exec:   func(ctx context.Context, _ string, _ stdio.ExecRequest) (int, error) { return 0, session(ctx) },
					attach: func(ctx context.Context, _ string, _ stdio.AttachRequest) error { return session(ctx) },
				})
				if err != nil {
					t.Fatal(err)
				}
				served := make(chan error, 1)
				go func() { served <- s.Serve(ctx) }()
				u, err := begin(s)
				if err != nil {
					t.Fatal(err)
				}
				told := make(chan result, 1)
				go func() { told <- client(t, u, m, "", nil) }()
				<-begun
				stop()
				if r := <-told; r.status.Status != "Failure" || !strings.Contains(r.status.Message, "stopping") {
					t.Errorf("the client is told %+v", r.status)
				}
				if err := <-served; err != nil {
					t.Error(err)
				}
			})
		}
	}
}
