package streaming

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

const (
	// idleTimeout is the default of Config.IdleTimeout, and the kubelet's own.
	idleTimeout = 4 * time.Hour
	// creationTimeout is how long a client may take to open its streams after the upgrade.
	creationTimeout = 30 * time.Second
	// requestTimeout is how long a client may take to send its request.
	requestTimeout = 10 * time.Second
	// maxHeader bounds a request's header, in bytes.
	maxHeader = 32 << 10
	// stopTimeout bounds the wait for sessions to end when the server stops.
	stopTimeout = 5 * time.Second
	// farewell is how much of it they have to tell their clients.
	farewell = time.Second
)

// Config says where and how to serve.
type Config struct {
	// Address is host:port to listen on; port 0 takes a free one. Empty means 127.0.0.1:0. The host must be a loopback
	// address unless AllowRemote is set.
	Address string
	// AllowRemote permits an address that other machines reach. Whoever catches a URL within its minute can then use it.
	AllowRemote bool
	// IdleTimeout ends a session over which no byte has come or gone for so long; 0 is 4 hours.
	IdleTimeout time.Duration
	// TLS, if set, serves HTTPS with this configuration.
	TLS *tls.Config
	// Log takes what is worth telling; nil means slog.Default.
	Log *slog.Logger
}

// Server hands out streaming URLs and serves them.
type Server struct {
	runtime        Runtime
	tokens         *tokens
	lobby          *lobby
	http           *http.Server
	tls            bool
	base           url.URL
	log            *slog.Logger
	active         sync.WaitGroup
	idle, creation time.Duration
}

// New listens, so that URLs can be given out at once; Serve answers. An address that is not loopback is refused with
// errdefs.ErrInvalidArgument, see Config.AllowRemote.
func New(cfg Config, runtime Runtime) (*Server, error) {
	if cfg.Address == "" {
		cfg.Address = "127.0.0.1:0"
	}
	if err := checkAddress(cfg.Address); err != nil && !cfg.AllowRemote {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("listen for streaming: %w (is [streaming] address right and free?)", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.IdleTimeout <= 0 {
		cfg.IdleTimeout = idleTimeout
	}
	s := &Server{
		runtime:  runtime,
		tokens:   newTokens(),
		lobby:    newLobby(listener),
		tls:      cfg.TLS != nil,
		base:     url.URL{Scheme: "http", Host: listener.Addr().String()},
		log:      cfg.Log,
		idle:     cfg.IdleTimeout,
		creation: creationTimeout,
	}
	if s.tls {
		s.base.Scheme = "https"
	}
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		TLSConfig:         cfg.TLS,
		ReadHeaderTimeout: requestTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      requestTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, guestKey{}, guestOf(c))
		},
	}
	s.http.ConnState = func(c net.Conn, state http.ConnState) {
		if g := guestOf(c); g != nil && state == http.StateHijacked {
			g.upgraded.Store(true)
		}
	}
	s.http.SetKeepAlivesEnabled(false)
	s.http.Protocols = new(http.Protocols) // an HTTP/2 connection cannot be upgraded
	s.http.Protocols.SetHTTP1(true)
	return s, nil
}

type guestKey struct{}

// checkAddress accepts loopback addresses and localhost.
func checkAddress(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("streaming address %q: %w: %w", address, err, errdefs.ErrInvalidArgument)
	}
	if ip, err := netip.ParseAddr(host); host == "localhost" || err == nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("streaming address %q is not a loopback address; streaming URLs are secrets, use 127.0.0.1:0 unless remote access is meant: %w", address, errdefs.ErrInvalidArgument)
}

// URL returns the base of the URLs that are given out, such as http://127.0.0.1:34567.
func (s *Server) URL() string { return s.base.String() }

// Serve answers until ctx ends; then it ends the sessions, gives them a moment to tell their clients so, closes every connection, and returns
// nil. A client that is cut off without a word takes that for the end of its command: kubectl would report success.
// To be called once.
func (s *Server) Serve(ctx context.Context) error {
	stopped := context.AfterFunc(ctx, s.lobby.dismiss)
	defer s.lobby.clear()
	defer stopped()
	var err error
	if s.tls {
		err = s.http.ServeTLS(s.lobby, "", "")
	} else {
		err = s.http.Serve(s.lobby)
	}
	if ctx.Err() == nil {
		return fmt.Errorf("serve streaming: %w", err)
	}
	ended := make(chan struct{})
	go func() { s.active.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(farewell):
	}
	s.lobby.clear()
	s.http.Close()
	select {
	case <-ended:
	case <-time.After(stopTimeout):
		s.log.Warn("streaming sessions outlive the server; they end with their processes")
	}
	return nil
}

// Close stops listening, for a server that was never served. Idempotent.
func (s *Server) Close() { s.lobby.clear() }

// Exec returns a URL for one exec in a container. The caller has checked that the container exists and runs.
func (s *Server) Exec(m ExecMessage) (string, error) {
	c := &call{verb: "exec", id: m.GetContainerId(), cmd: append([]string(nil), m.GetCmd()...)}
	if err := c.setStreams(m); err != nil {
		return "", err
	}
	if len(c.cmd) == 0 {
		return "", fmt.Errorf("exec: cmd is empty: %w", errdefs.ErrInvalidArgument)
	}
	return s.issue(c)
}

// Attach returns a URL for one attach to a container. The caller has checked that the container exists and runs.
func (s *Server) Attach(m AttachMessage) (string, error) {
	c := &call{verb: "attach", id: m.GetContainerId()}
	if err := c.setStreams(m); err != nil {
		return "", err
	}
	return s.issue(c)
}

// PortForward returns a URL for one port-forward connection to a pod. The ports are needed by the old WebSocket protocol
// only; otherwise the client names them as it goes.
func (s *Server) PortForward(m PortForwardMessage) (string, error) {
	c := &call{verb: "portforward", id: m.GetPodSandboxId(), ports: append([]int32(nil), m.GetPort()...)}
	if c.id == "" {
		return "", fmt.Errorf("portforward: pod_sandbox_id is empty: %w", errdefs.ErrInvalidArgument)
	}
	if len(c.ports) > maxForwards {
		return "", fmt.Errorf("portforward: %d ports, more than %d: %w", len(c.ports), maxForwards, errdefs.ErrInvalidArgument)
	}
	for _, port := range c.ports {
		if port < 1 || port > 65535 {
			return "", fmt.Errorf("portforward: port %d is not between 1 and 65535: %w", port, errdefs.ErrInvalidArgument)
		}
	}
	return s.issue(c)
}

func (s *Server) issue(c *call) (string, error) {
	token, err := s.tokens.issue(c)
	if err != nil {
		return "", err
	}
	return s.base.String() + "/" + c.verb + "/" + token, nil
}

// serve answers one request. The path is taken apart by hand: a multiplexer would answer some paths with a redirect.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	verb, token, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		http.Error(w, "use GET or POST", http.StatusMethodNotAllowed)
		return
	}
	c := s.tokens.redeem(token)
	g, _ := r.Context().Value(guestKey{}).(*guest)
	switch {
	case c == nil || c.verb != verb || g == nil:
		http.Error(w, "no such stream: a URL works once, within a minute", http.StatusNotFound)
		return
	case !s.lobby.admit(g):
		http.Error(w, "too many streams", http.StatusServiceUnavailable)
		return
	}
	s.active.Add(1)
	defer s.active.Done()
	// The connection's own context: the request's does not end when an upgraded connection does.
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	defer context.AfterFunc(g.ctx, func() { cancel(context.Cause(g.ctx)) })()
	defer func() {
		// The library leaves some upgraded connections open, such as one whose client never made its streams.
		if g.upgraded.Load() {
			g.Close()
		}
	}()
	s.session(w, r.WithContext(ctx), c)
}
