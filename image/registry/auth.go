package registry

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
	"github.com/containerd/errdefs"
)

// Auth is what a caller may know about a registry account (CRI's AuthConfig).
type Auth struct {
	Username, Password string
	// Auth is base64 of "username:password"; used if Username is empty.
	Auth string
	// IdentityToken is an OAuth refresh token.
	IdentityToken string
	// RegistryToken is a bearer token, sent as it is.
	RegistryToken string
	// ServerAddress is the registry that the account is for; empty: the
	// registry of the reference.
	ServerAddress string
}

// credentials are checked credentials for exactly one host.
type credentials struct {
	host string
	// alias is the address that hosts.toml gives as the registry's own server.
	alias            string
	username, secret string
	bearer           string
}

// parseAuth binds an account to the host it is for: the reference's own
// registry, or the ServerAddress, which may also be a mirror of it.
func parseAuth(a *Auth, refHost string) (*credentials, error) {
	if a == nil || (*a == Auth{}) {
		return nil, nil
	}
	c := &credentials{host: hostName(refHost), username: a.Username, secret: a.Password, bearer: a.RegistryToken}
	if a.ServerAddress != "" {
		host := a.ServerAddress
		if u, err := url.Parse(host); err == nil && u.Host != "" {
			host = u.Host
		}
		host, _, _ = strings.Cut(host, "/")
		c.host = hostName(host)
	}
	switch {
	case a.RegistryToken != "":
	case a.Username != "":
	case a.IdentityToken != "":
		c.secret = a.IdentityToken
	case a.Auth != "":
		raw, err := base64.StdEncoding.DecodeString(strings.TrimRight(a.Auth, "\x00"))
		user, pass, ok := strings.Cut(strings.TrimRight(string(raw), "\x00"), ":")
		if err != nil || !ok {
			return nil, fmt.Errorf("read registry credentials: auth is not base64 of user:password: %w", errdefs.ErrInvalidArgument)
		}
		c.username, c.secret = user, pass
	default:
		return nil, nil
	}
	return c, nil
}

// hostName is a host as requests name it: Docker Hub's three names are one.
func hostName(host string) string {
	host = strings.ToLower(host)
	switch host {
	case "docker.io", "index.docker.io", "www.docker.io", "registry-1.docker.io":
		return "registry-1.docker.io"
	}
	if h, p, err := net.SplitHostPort(host); err == nil && p == "443" {
		return h
	}
	return host
}

func (c *credentials) forHost(host string) bool {
	return c != nil && (hostName(host) == c.host || (c.alias != "" && hostName(host) == c.alias))
}

// serverIs tells that the registry of host is served at another address, by
// its own hosts.toml. An account for the registry is an account there; mirrors
// and the catch-all "_default" do not count.
func (c *credentials) serverIs(host, address string) {
	if c != nil && c.host == hostName(host) {
		c.alias = hostName(address)
	}
}

// authorizer answers challenges of one registry host. It wraps containerd's
// and lets it see credentials only where they belong.
type authorizer struct {
	next  docker.Authorizer
	creds *credentials
	host  docker.RegistryHost
}

func newAuthorizer(host docker.RegistryHost, creds *credentials, client *http.Client) *authorizer {
	return &authorizer{host: host, creds: creds, next: docker.NewDockerAuthorizer(
		docker.WithAuthClient(client),
		docker.WithAuthCreds(func(h string) (string, string, error) {
			if creds.forHost(h) && hostName(h) == hostName(host.Host) {
				return creds.username, creds.secret, nil
			}
			return "", "", nil
		}))}
}

// Authorize adds what the host has asked for before.
func (a *authorizer) Authorize(ctx context.Context, req *http.Request) error {
	if hostName(req.URL.Host) != hostName(a.host.Host) {
		return nil
	}
	if a.creds.forHost(req.URL.Host) && a.creds.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+a.creds.bearer)
		return nil
	}
	return a.next.Authorize(ctx, req)
}

// AddResponses takes a challenge, unless it would send the credentials in the
// clear or the token given was the answer already.
func (a *authorizer) AddResponses(ctx context.Context, responses []*http.Response) error {
	last := responses[len(responses)-1]
	if hostName(last.Request.URL.Host) != hostName(a.host.Host) {
		return fmt.Errorf("answer challenge of %s, to which %s redirected: %w", last.Request.URL.Host, a.host.Host, docker.ErrInvalidAuthorization)
	}
	if a.creds.forHost(a.host.Host) && a.creds.bearer != "" {
		return fmt.Errorf("the registry token given was refused: %w", docker.ErrInvalidAuthorization)
	}
	n := 0
	for _, r := range responses {
		if r.StatusCode == http.StatusUnauthorized {
			n++
		}
	}
	if n > 2 {
		return fmt.Errorf("the registry goes on asking for credentials: %w", docker.ErrInvalidAuthorization)
	}
	for _, c := range auth.ParseAuthHeader(last.Header) {
		if c.Scheme == auth.BearerAuth {
			if err := a.checkRealm(c.Parameters["realm"]); err != nil {
				return err
			}
		}
	}
	return a.next.AddResponses(ctx, responses)
}

// checkRealm refuses a token server that a registry should not name. A
// registry may well keep its tokens on another host (Docker Hub does), but
// then over https.
func (a *authorizer) checkRealm(realm string) error {
	u, err := url.Parse(realm)
	if err != nil || u.Host == "" {
		return fmt.Errorf("token server %.200q is no URL: %w", realm, docker.ErrInvalidAuthorization)
	}
	switch {
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && a.host.Scheme == "http" && u.Hostname() == (&url.URL{Host: a.host.Host}).Hostname():
		return nil
	}
	return fmt.Errorf("token server %s is neither on https nor on the registry's own host: %w", u.Redacted(), docker.ErrInvalidAuthorization)
}
