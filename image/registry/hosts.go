package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/errdefs"
	"github.com/pelletier/go-toml/v2"
)

// maxHostsFile bounds a hosts.toml, in bytes.
const maxHostsFile = 1 << 20

// hostDir answers the directory that configures a host: the first of the
// certs.d directories that has one, where its own name (with or without the
// port, as containerd writes them) comes before "_default".
func (c *Client) hostDir(host string) (string, error) {
	if strings.ContainsAny(host, "/\x00") || host == "" || host[0] == '.' {
		return "", fmt.Errorf("look for registry %q: %w", host, errdefs.ErrInvalidArgument)
	}
	for _, root := range c.cfg.CertsDirs {
		dir, err := config.HostDirFromRoot(root)(host)
		if err == nil {
			return dir, checkHostsFile(filepath.Join(dir, "hosts.toml"))
		}
		if !errdefs.IsNotFound(err) {
			return "", fmt.Errorf("look for registry %s in %s: %w", host, root, err)
		}
	}
	return "", errdefs.ErrNotFound
}

// hostEntry is what hosts.toml may say of one host.
type hostEntry struct {
	Capabilities []string       `toml:"capabilities"`
	CA           any            `toml:"ca"`
	Client       any            `toml:"client"`
	SkipVerify   *bool          `toml:"skip_verify"`
	Header       map[string]any `toml:"header"`
	OverridePath bool           `toml:"override_path"`
	DialTimeout  string         `toml:"dial_timeout"`
}

// hostsFile is a hosts.toml as containerd documents it.
type hostsFile struct {
	hostEntry
	Server string               `toml:"server"`
	Host   map[string]hostEntry `toml:"host"`
}

// checkHostsFile refuses a file that containerd's reader would silently pass
// over: one that does not parse would otherwise mean "no mirrors, no CA".
func checkHostsFile(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read registry configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxHostsFile+1))
	if err != nil {
		return fmt.Errorf("read registry configuration %s: %w", path, err)
	}
	if len(data) > maxHostsFile {
		return fmt.Errorf("read registry configuration %s: more than %d bytes: %w", path, maxHostsFile, errdefs.ErrInvalidArgument)
	}
	var h hostsFile
	if err := toml.Unmarshal(data, &h); err != nil {
		return fmt.Errorf("read registry configuration %s: %s: %w", path, tomlError(err), errdefs.ErrInvalidArgument)
	}
	if err := h.check(); err != nil {
		return fmt.Errorf("read registry configuration %s: %w: %w", path, err, errdefs.ErrInvalidArgument)
	}
	return nil
}

// tomlError adds where the mistake is.
func tomlError(err error) string {
	var d *toml.DecodeError
	if errors.As(err, &d) {
		row, col := d.Position()
		return fmt.Sprintf("line %d, column %d: %s", row, col, d.Error())
	}
	return err.Error()
}

func (h hostsFile) check() error {
	if err := h.hostEntry.check(h.Server); err != nil {
		return err
	}
	for name, e := range h.Host {
		if name == "" {
			return errors.New("a [host.\"\"] without a name")
		}
		if err := e.check(name); err != nil {
			return fmt.Errorf("host %q: %w", name, err)
		}
	}
	return nil
}

func (e hostEntry) check(server string) error {
	for _, c := range e.Capabilities {
		if !slices.Contains([]string{"pull", "resolve", "push", "referrers"}, strings.ToLower(c)) {
			return fmt.Errorf("unknown capability %q", c)
		}
	}
	if server == "" {
		return nil
	}
	if scheme, _, ok := strings.Cut(server, "://"); ok && scheme != "http" && scheme != "https" {
		return fmt.Errorf("%q is no http or https address", server)
	}
	if !strings.HasPrefix(server, "http") {
		server = "https://" + server
	}
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return fmt.Errorf("%q is no http or https address", server)
	}
	return nil
}

// hosts answers a function, not for concurrent use, that makes the list of hosts to ask for one pull, in order, each behind the
// guard and with credentials only where they belong.
func (p *Pull) hosts(ctx context.Context) docker.RegistryHosts {
	configured := config.ConfigureHosts(ctx, config.HostOptions{HostDir: p.c.hostDir, UpdateClient: p.tune})
	var known []docker.RegistryHost
	return func(host string) ([]docker.RegistryHost, error) {
		// A pull asks for its own registry only, once to resolve and once to
		// fetch; both share connections and tokens.
		if known != nil {
			return known, nil
		}
		all, err := configured(host)
		if err != nil {
			return nil, err
		}
		if dir, err := p.c.hostDir(host); err == nil && filepath.Base(dir) != "_default" && len(all) > 0 {
			p.creds.serverIs(host, all[len(all)-1].Host)
		}
		var out []docker.RegistryHost
		for _, h := range all {
			if h.Capabilities.Has(docker.HostCapabilityPull) {
				out = append(out, h)
			}
		}
		if len(out) == 0 {
			return nil, fmt.Errorf("no host of registry %s may be pulled from; see its hosts.toml: %w", host, errdefs.ErrFailedPrecondition)
		}
		for i := range out {
			p.guard(&out[i], i == len(out)-1)
		}
		known = out
		return out, nil
	}
}

// Explain lists the hosts that a pull of a reference on host would ask, in
// order, and what for. No header or credential is shown.
func (c *Client) Explain(ctx context.Context, host, repository string) ([]string, error) {
	dir, err := c.hostDir(host)
	if err != nil && !errdefs.IsNotFound(err) {
		return nil, err
	}
	hosts, err := config.ConfigureHosts(quiet(ctx), config.HostOptions{HostDir: c.hostDir})(host)
	if err != nil {
		return nil, err
	}
	var out []string
	if dir != "" {
		out = append(out, "configured by "+dir)
	} else {
		out = append(out, "not configured in "+strings.Join(c.cfg.CertsDirs, ", "))
	}
	for _, h := range hosts {
		u := url.URL{Scheme: h.Scheme, Host: h.Host, Path: strings.TrimSuffix(h.Path, "/") + "/" + repository}
		var may []string
		if h.Capabilities.Has(docker.HostCapabilityResolve) && h.Capabilities.Has(docker.HostCapabilityPull) {
			may = append(may, "tags")
		}
		if h.Capabilities.Has(docker.HostCapabilityPull) {
			may = append(may, "digests")
		}
		if len(may) == 0 {
			may = []string{"nothing (no pull capability)"}
		}
		out = append(out, u.Redacted()+" for "+strings.Join(may, " and "))
	}
	return out, nil
}
