package image

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// needRoot skips what only root can do: whiteouts are device nodes.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: layers hold owners, device nodes and trusted attributes")
	}
}

// openStore opens a store in a directory of the test's own.
func openStore(t testing.TB, dir string, change ...func(*Config)) *Store {
	t.Helper()
	cfg := Config{Root: filepath.Join(dir, "images"), Containers: filepath.Join(dir, "containers"),
		CertsDirs: []string{filepath.Join(dir, "certs.d")}, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	for _, c := range change {
		c(&cfg)
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

type file struct {
	name, body, link string
	kind             byte
	mode             int64
}

// layerOf makes a layer from entries.
func layerOf(t testing.TB, files ...file) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Typeflag: f.kind, Size: int64(len(f.body)), Mode: f.mode, Linkname: f.link, ModTime: time.Unix(1700000000, 0)}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(w, f.body)
	}
	w.Close()
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func imageOf(t testing.TB, ls ...v1.Layer) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(empty.Image, ls...)
	if err != nil {
		t.Fatal(err)
	}
	img, err = mutate.ConfigFile(img, func() *v1.ConfigFile {
		c, _ := img.ConfigFile()
		c = c.DeepCopy()
		c.Architecture, c.OS = "amd64", "linux"
		c.Config.Env = []string{"A=1"}
		return c
	}())
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// push sends an image to a registry by plain requests.
func push(t testing.TB, ref string, img v1.Image) {
	t.Helper()
	host, rest, _ := strings.Cut(ref, "/")
	repo, tag, _ := strings.Cut(rest, ":")
	base := "http://" + host + "/v2/" + repo
	ls, _ := img.Layers()
	for _, l := range ls {
		d, _ := l.Digest()
		rc, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		send(t, "POST", base+"/blobs/uploads/?digest="+d.String(), "", rc)
	}
	cfg, _ := img.RawConfigFile()
	cd, _ := img.ConfigName()
	send(t, "POST", base+"/blobs/uploads/?digest="+cd.String(), "", bytes.NewReader(cfg))
	m, _ := img.RawManifest()
	mt, _ := img.MediaType()
	send(t, "PUT", base+"/manifests/"+tag, string(mt), bytes.NewReader(m))
}

func send(t testing.TB, method, url, contentType string, body io.Reader) {
	t.Helper()
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
		t.Fatalf("%s %s: %s %s", method, url, resp.Status, b)
	}
}

func serve(t testing.TB) string {
	srv := httptest.NewServer(registry.New(registry.Logger(slogLog())))
	t.Cleanup(func() {
		srv.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return strings.TrimPrefix(srv.URL, "http://")
}

func TestPullRunRemove(t *testing.T) {
	needRoot(t)
	host := serve(t)
	img := imageOf(t,
		layerOf(t, file{name: "etc/", kind: tar.TypeDir}, file{name: "etc/passwd", body: "root:x:0:0::/:/bin/sh\n"}, file{name: "gone", body: "x"}),
		layerOf(t, file{name: ".wh.gone"}, file{name: "bin/", kind: tar.TypeDir}, file{name: "bin/sh", body: "#!", mode: 0o4755}))
	push(t, host+"/a/b:1", img)
	dir := t.TempDir()
	s := openStore(t, dir)
	got, err := s.Pull(context.Background(), PullRequest{Ref: host + "/a/b:1"})
	if err != nil {
		t.Fatal(err)
	}
	want, _ := img.ConfigName()
	if got.ID != want.String() || len(got.Tags) != 1 || got.Tags[0] != host+"/a/b:1" || len(got.Digests) != 1 {
		t.Fatalf("pulled %+v", got)
	}
	for _, ref := range []string{host + "/a/b:1", got.ID, got.ID[7:], got.ID[7:15], got.Digests[0]} {
		if r, err := s.Resolve(ref); err != nil || r.ID != got.ID {
			t.Errorf("Resolve(%s) = %v, %v", ref, r.ID, err)
		}
	}
	r, err := s.PrepareRootfs(context.Background(), "c1", got, RootfsOptions{})
	if err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(dir, "merged")
	mountAt(t, r, target)
	if b, err := os.ReadFile(filepath.Join(target, "etc/passwd")); err != nil || !strings.HasPrefix(string(b), "root:") {
		t.Errorf("passwd: %q %v", b, err)
	}
	if _, err := os.Lstat(filepath.Join(target, "gone")); !os.IsNotExist(err) {
		t.Errorf("a removed file is seen: %v", err)
	}
	if st, err := os.Stat(filepath.Join(target, "bin/sh")); err != nil || st.Mode()&os.ModeSetuid == 0 {
		t.Errorf("setuid bit lost: %v %v", st, err)
	}
	unmountAt(t, target)
	if err := s.Remove(context.Background(), got.ID); err != nil {
		t.Fatal(err)
	}
	if n := s.layers.Count(); n != 2 {
		t.Errorf("%d layers are left under a container, want 2", n)
	}
	s.Close()
	s = openStore(t, dir)
	if n := s.layers.Count(); n != 2 {
		t.Errorf("%d layers are left under a container after a restart, want 2", n)
	}
	if err := s.RemoveRootfs(context.Background(), "c1"); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveRootfs(context.Background(), "c1"); err != nil {
		t.Fatal(err)
	}
	assertEmpty(t, s, dir)
}
