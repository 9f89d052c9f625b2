package registry

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"

	"github.com/crid-project/crid/image/reference"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const doc = `{"schemaVersion":2,"manifests":[]}`

var docDesc = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromString(doc), Size: int64(len(doc))}

// server answers one document and remembers who asked with what.
type server struct {
	*httptest.Server
	host string
	mu   sync.Mutex
	seen []*http.Request
}

func start(t *testing.T, tls bool, h func(w http.ResponseWriter, r *http.Request) bool) *server {
	s := &server{}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.seen = append(s.seen, r)
		s.mu.Unlock()
		if h != nil && h(w, r) {
			return
		}
		w.Header().Set("Content-Type", docDesc.MediaType)
		w.Header().Set("Docker-Content-Digest", docDesc.Digest.String())
		w.Header().Set("Content-Length", fmt.Sprint(len(doc)))
		_, _ = w.Write([]byte(doc))
	})
	if tls {
		s.Server = httptest.NewTLSServer(handler)
	} else {
		s.Server = httptest.NewServer(handler)
	}
	s.host = strings.TrimPrefix(strings.TrimPrefix(s.URL, "http://"), "https://")
	t.Cleanup(s.Close)
	return s
}

// secrets are all values of headers that must not travel.
func (s *server) secrets() (out []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.seen {
		for _, k := range []string{"Authorization", "X-Secret", "Cookie"} {
			out = append(out, r.Header.Values(k)...)
		}
	}
	return out
}

func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.seen)
}

func hostsToml(t *testing.T, root, host, text string) {
	t.Helper()
	dir := filepath.Join(root, host)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// load resolves and loads through one pull.
func load(t *testing.T, dirs []string, ref string, a *Auth) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r, err := reference.Parse(ref)
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(Config{CertsDirs: dirs}).Begin(ctx, r, a, nil)
	if err != nil {
		return err
	}
	defer p.Close()
	d, err := p.Resolve(ctx)
	if err != nil {
		return err
	}
	_, err = p.Document(ctx, d, 1<<20)
	return err
}

func TestMirrorThenServer(t *testing.T) {
	mirror := start(t, false, func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusNotFound); return true })
	up := start(t, false, nil)
	dir := t.TempDir()
	hostsToml(t, dir, "example.com", fmt.Sprintf("server = %q\n[host.%q]\ncapabilities = [\"pull\",\"resolve\"]\n[host.%q.header]\nX-Secret = \"mirror\"\n", up.URL, mirror.URL, mirror.URL))
	if err := load(t, []string{dir}, "example.com/a:1", nil); err != nil {
		t.Fatal(err)
	}
	if mirror.count() == 0 || up.count() == 0 {
		t.Errorf("asked mirror %d and server %d times", mirror.count(), up.count())
	}
	if len(mirror.secrets()) == 0 || len(up.secrets()) != 0 {
		t.Errorf("configured headers: mirror got %q, server %q", mirror.secrets(), up.secrets())
	}
}

func TestMirrorWithoutResolveIsAskedForDigestsOnly(t *testing.T) {
	mirror, up := start(t, false, nil), start(t, false, nil)
	dir := t.TempDir()
	hostsToml(t, dir, "example.com", fmt.Sprintf("server = %q\n[host.%q]\ncapabilities = [\"pull\"]\n", up.URL, mirror.URL))
	if err := load(t, []string{dir}, "example.com/a:1", nil); err != nil {
		t.Fatal(err)
	}
	for _, r := range mirror.seen {
		if strings.HasSuffix(r.URL.Path, "/manifests/1") {
			t.Errorf("the mirror was asked what the tag is: %s", r.URL)
		}
	}
	if mirror.count() == 0 {
		t.Error("the mirror was not asked for content")
	}
}

func TestBrokenHostsFileIsAnErrorThatNamesIt(t *testing.T) {
	for what, text := range map[string]string{
		"syntax":     "server = \n",
		"type":       "[host.\"https://m\"]\ncapabilities = \"pull\"\n",
		"capability": "[host.\"https://m\"]\ncapabilities = [\"pul\"]\n",
		"address":    "server = \"ftp://x\"\n",
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			hostsToml(t, dir, "example.com", text)
			err := load(t, []string{dir}, "example.com/a:1", nil)
			if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "example.com", "hosts.toml")) {
				t.Errorf("error is %v", err)
			}
		})
	}
}

func TestFirstDirectoryWithTheHostWins(t *testing.T) {
	one, two := start(t, false, nil), start(t, false, nil)
	a, b := t.TempDir(), t.TempDir()
	hostsToml(t, b, "example.com", fmt.Sprintf("server = %q\n", two.URL))
	hostsToml(t, b, "_default", fmt.Sprintf("server = %q\n", one.URL))
	if err := load(t, []string{filepath.Join(a, "missing"), a, b}, "example.com/a:1", nil); err != nil || one.count() != 0 {
		t.Errorf("%v; _default was asked %d times", err, one.count())
	}
	if err := load(t, []string{a, b}, "other.example/a:1", nil); err != nil || one.count() == 0 {
		t.Errorf("%v; _default was asked %d times", err, one.count())
	}
}

func TestCertificates(t *testing.T) {
	s := start(t, true, nil)
	dir := t.TempDir()
	hostsToml(t, dir, "example.com", fmt.Sprintf("server = %q\n", s.URL))
	if err := load(t, []string{dir}, "example.com/a:1", nil); err == nil {
		t.Error("a certificate that nobody vouches for was taken")
	}
	hostsToml(t, dir, "example.com", fmt.Sprintf("server = %q\nskip_verify = true\n", s.URL))
	if err := load(t, []string{dir}, "example.com/a:1", nil); err != nil {
		t.Error(err)
	}
	pemFile := filepath.Join(dir, "ca.pem")
	_ = os.WriteFile(pemFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o644)
	hostsToml(t, dir, "example.com", fmt.Sprintf("server = %q\nca = %q\n", s.URL, pemFile))
	if err := load(t, []string{dir}, "example.com/a:1", nil); err != nil {
		t.Error(err)
	}
}

// basic asks for a password.
func basic(w http.ResponseWriter, r *http.Request) bool {
	if u, p, ok := r.BasicAuth(); ok && u == "me" && p == "pw" {
		return false
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
	w.WriteHeader(http.StatusUnauthorized)
	return true
}

func TestCredentialsOfEveryForm(t *testing.T) {
	s := start(t, false, basic)
	for what, a := range map[string]*Auth{
		"password":      {Username: "me", Password: "pw"},
		"auth":          {Auth: base64.StdEncoding.EncodeToString([]byte("me:pw"))},
		"server itself": {Username: "me", Password: "pw", ServerAddress: "http://" + s.host + "/v2/"},
	} {
		if err := load(t, nil, s.host+"/a:1", a); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	dir := t.TempDir()
	hostsToml(t, dir, "example.com", fmt.Sprintf("server = %q\n", s.URL))
	hostsToml(t, dir, "_default", fmt.Sprintf("server = %q\n", s.URL))
	if err := load(t, []string{dir}, "example.com/a:1", &Auth{Username: "me", Password: "pw"}); err != nil {
		t.Errorf("the registry's own server: %v", err)
	}
	if err := load(t, []string{dir}, "elsewhere.example/a:1", &Auth{Username: "me", Password: "pw"}); !errdefs.IsUnauthorized(err) {
		t.Errorf("the catch-all server got another registry's account: %v", err)
	}
	for what, a := range map[string]*Auth{
		"none":         nil,
		"wrong":        {Username: "me", Password: "no"},
		"other server": {Username: "me", Password: "pw", ServerAddress: "other.example"},
		"bad base64":   {Auth: "%%%"},
	} {
		err := load(t, nil, s.host+"/a:1", a)
		if !errdefs.IsUnauthorized(err) && !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%s: %v", what, err)
		}
	}
	bearer := start(t, false, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "Bearer tok" {
			return false
		}
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	if err := load(t, nil, bearer.host+"/a:1", &Auth{RegistryToken: "tok"}); err != nil {
		t.Error(err)
	}
}

func TestCredentialsStayWithTheirHost(t *testing.T) {
	thief := start(t, false, basic)
	for what, h := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"redirect": func(w http.ResponseWriter, r *http.Request) bool {
			if basic(w, r) {
				return true
			}
			if r.Method == http.MethodGet {
				http.Redirect(w, r, thief.URL+"/x", http.StatusTemporaryRedirect)
				return true
			}
			return false
		},
		"realm elsewhere in the clear": func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://localhost:`+thief.host[strings.LastIndex(thief.host, ":")+1:]+`/token",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		},
	} {
		t.Run(what, func(t *testing.T) {
			s := start(t, false, h)
			dir := t.TempDir()
			hostsToml(t, dir, "example.com", fmt.Sprintf("server = %q\n[header]\nX-Secret = \"s\"\n", s.URL))
			for _, ref := range []string{s.host + "/a:1", "example.com/a:1"} {
				err := load(t, []string{dir}, ref, &Auth{Username: "me", Password: "pw", ServerAddress: s.host})
				t.Log(err)
			}
			if got := thief.secrets(); len(got) != 0 {
				t.Errorf("another host was given %q", got)
			}
			for _, r := range thief.seen {
				if strings.Contains(r.URL.String(), "token") {
					t.Errorf("another host was asked for a token: %s", r.URL)
				}
			}
		})
	}
	// A mirror is another host too.
	up := start(t, false, basic)
	dir := t.TempDir()
	hostsToml(t, dir, up.host, fmt.Sprintf("server = %q\n[host.%q]\n", up.URL, thief.URL))
	hostsToml(t, dir, strings.Replace(up.host, ":", "_", 1)+"_", fmt.Sprintf("server = %q\n[host.%q]\n", up.URL, thief.URL))
	if err := load(t, []string{dir}, up.host+"/a:1", &Auth{Username: "me", Password: "pw"}); err != nil {
		t.Error(err)
	}
	if got := thief.secrets(); len(got) != 0 {
		t.Errorf("a mirror was given %q", got)
	}
}

func TestRedirectsThatAreRefused(t *testing.T) {
	var n int
	for what, to := range map[string]string{"loop": "", "link-local": "http://169.254.169.254/latest", "file": "file:///etc/passwd"} {
		n = 0
		s := start(t, false, nil)
		h := s.Config.Handler
		s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n++
			if r.Method == http.MethodHead {
				h.ServeHTTP(w, r)
				return
			}
			if to == "" {
				http.Redirect(w, r, s.URL+r.URL.Path+"x", http.StatusFound)
				return
			}
			http.Redirect(w, r, to, http.StatusFound)
		})
		begin := time.Now()
		if err := load(t, nil, s.host+"/a:1", nil); err == nil || time.Since(begin) > 5*time.Second {
			t.Errorf("%s: %v after %v", what, err, time.Since(begin))
		}
		if n > 80 {
			t.Errorf("%s: asked %d times", what, n)
		}
	}
}

func TestExplainShowsNoSecrets(t *testing.T) {
	dir := t.TempDir()
	hostsToml(t, dir, "docker.io", "server = \"https://user:hunter2@up.example\"\n[host.\"https://m.example/v2/x\"]\ncapabilities=[\"pull\"]\n[host.\"https://m.example/v2/x\".header]\nAuthorization=\"Basic c2VjcmV0\"\n")
	lines, err := New(Config{CertsDirs: []string{dir}}).Explain(context.Background(), "docker.io", "library/busybox")
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(lines, "\n")
	t.Log(all)
	if strings.Contains(all, "hunter2") || strings.Contains(all, "c2Vj") || !strings.Contains(all, "m.example") || len(lines) != 3 {
		t.Errorf("explained as\n%s", all)
	}
}
