package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
)

const (
	maxRedirects = 10
	// maxToken bounds the answer of a token server, in bytes.
	maxToken = 1 << 20
	// maxWait bounds all waiting for 429 and 503 in one pull.
	maxWait = 30 * time.Second
	// maxOneWait bounds one such wait, however long a server asks for.
	maxOneWait = 10 * time.Second
	// connections are kept per host, one for each layer loaded at a time.
	connections = 16
)

// tune sets up a transport before anything wraps it.
func (p *Pull) tune(client *http.Client) error {
	if t, ok := client.Transport.(*http.Transport); ok {
		t.MaxIdleConns, t.MaxIdleConnsPerHost = connections, connections
		p.onClose(t.CloseIdleConnections)
	}
	return nil
}

// guard puts a host's client behind our rules.
func (p *Pull) guard(h *docker.RegistryHost, last bool) {
	client := *h.Client
	host := *h
	tokens := client
	tokens.Transport = &tokenTransport{next: client.Transport, host: host}
	tokens.CheckRedirect = checkRedirect(nil)
	h.Authorizer = newAuthorizer(host, p.creds, &tokens)
	client.Transport = &transport{next: client.Transport, pull: p, last: last}
	client.CheckRedirect = checkRedirect(host.Header)
	h.Client = &client
}

// checkRedirect follows at most ten redirects, never from https to http, never
// to link-local addresses (where clouds keep their secrets), and takes nothing
// secret along to another host.
func checkRedirect(configured http.Header) func(*http.Request, []*http.Request) error {
	return func(req *http.Request, via []*http.Request) error {
		first, prev := via[0], via[len(via)-1]
		switch {
		case len(via) >= maxRedirects:
			return fmt.Errorf("stopped after %d redirects", maxRedirects)
		case req.URL.Scheme != "https" && req.URL.Scheme != "http":
			return fmt.Errorf("redirect to a %.20q address refused", req.URL.Scheme)
		case prev.URL.Scheme == "https" && req.URL.Scheme != "https":
			return errors.New("redirect from https to http refused")
		}
		if ip, err := netip.ParseAddr(req.URL.Hostname()); err == nil && (ip.Unmap().IsLinkLocalUnicast() || ip.IsUnspecified() || ip.IsMulticast()) {
			return fmt.Errorf("redirect to %s refused", ip)
		}
		if req.URL.Host != first.URL.Host || req.URL.Scheme != first.URL.Scheme {
			for k := range req.Header {
				switch k {
				case "Accept", "Accept-Encoding", "Range", "User-Agent":
				default:
					req.Header.Del(k)
				}
			}
			for k := range configured {
				req.Header.Del(k)
				delete(req.Header, k)
			}
		}
		return nil
	}
}

// tokenTransport is what token servers are asked through.
type tokenTransport struct {
	next http.RoundTripper
	host docker.RegistryHost
}

// RoundTrip adds the host's configured headers at the host itself only, and
// bounds the answer.
func (t *tokenTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host == t.host.Host && req.URL.Scheme == t.host.Scheme && len(t.host.Header) > 0 {
		req = req.Clone(req.Context())
		for k, v := range t.host.Header {
			if _, set := req.Header[k]; !set {
				req.Header[k] = v
			}
		}
	}
	resp, err := t.next.RoundTrip(req)
	if err == nil {
		resp.Body = bounded{io.LimitReader(resp.Body, maxToken), resp.Body}
	}
	return resp, err
}

type bounded struct {
	io.Reader
	io.Closer
}

// transport is what registries are asked through.
type transport struct {
	next http.RoundTripper
	pull *Pull
	last bool
}

// RoundTrip waits and asks again where a registry is busy, and sees to it that
// a resumed answer begins where it was asked to.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	for try := 0; ; try++ {
		t.pull.progress(1)
		resp, err := t.next.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		if wait, again := t.busy(resp, try); again {
			resp.Body.Close()
			if err := t.sleep(req.Context(), wait); err != nil {
				return nil, err
			}
			continue
		}
		return t.ranged(req, resp)
	}
}

// busy tells how long to wait before the next try. A host that has another
// after it is waited for once, briefly.
func (t *transport) busy(resp *http.Response, try int) (time.Duration, bool) {
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return 0, false
	}
	wait := min(250*time.Millisecond<<min(try, 5), maxOneWait)
	if s, err := strconv.ParseInt(resp.Header.Get("Retry-After"), 10, 64); err == nil && s >= 0 {
		wait = maxOneWait
		if s < int64(maxOneWait/time.Second) {
			wait = max(time.Duration(s)*time.Second, 100*time.Millisecond)
		}
	} else if at, err := http.ParseTime(resp.Header.Get("Retry-After")); err == nil {
		wait = min(max(time.Until(at), 100*time.Millisecond), maxOneWait)
	}
	if !t.last {
		if try > 0 {
			return 0, false
		}
		wait = min(wait, time.Second)
	}
	return wait, t.pull.spend(wait)
}

func (t *transport) sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ranged repairs answers to a Range request: one that begins elsewhere, or
// that the server cannot give, is asked for in full (the caller discards what
// it has).
func (t *transport) ranged(req *http.Request, resp *http.Response) (*http.Response, error) {
	rng := req.Header.Get("Range")
	if rng == "" || (resp.StatusCode != http.StatusPartialContent && resp.StatusCode != http.StatusRequestedRangeNotSatisfiable) {
		return resp, nil
	}
	from := strings.TrimSuffix(strings.TrimPrefix(rng, "bytes="), "-")
	if resp.StatusCode == http.StatusPartialContent && strings.HasPrefix(resp.Header.Get("Content-Range"), "bytes "+from+"-") {
		return resp, nil
	}
	resp.Body.Close()
	req = req.Clone(req.Context())
	req.Header.Del("Range")
	resp, err := t.next.RoundTrip(req)
	if err == nil && resp.StatusCode == http.StatusPartialContent {
		resp.Body.Close()
		return nil, errors.New("the registry answers with parts that were not asked for")
	}
	return resp, err
}

// spend takes a wait from the pull's budget; false when there is too little left.
func (p *Pull) spend(d time.Duration) bool {
	return atomic.AddInt64(&p.waited, int64(d)) <= int64(maxWait)
}

// transient tells whether an error of a body read is worth a new request.
func transient(err error) bool {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return true
	}
	var op *net.OpError
	var ne net.Error
	if errors.As(err, &op) || (errors.As(err, &ne) && ne.Timeout()) {
		return true
	}
	text := err.Error() // HTTP/2's errors have no exported type
	return strings.Contains(text, "GOAWAY") || strings.Contains(text, "stream error")
}
