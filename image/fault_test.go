package image

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// faulty is a registry behind a plan: handle may answer a request itself.
type faulty struct {
	host   string
	srv    *httptest.Server
	inner  http.Handler
	mu     sync.Mutex
	handle func(w http.ResponseWriter, r *http.Request, next http.Handler) bool
	blobs  sync.Map // digest to *atomic.Int32: how often it was asked for
}

func newFaulty(t testing.TB) *faulty {
	f := &faulty{inner: registry.New(registry.Logger(slogLog()))}
	f.srv = httptest.NewServer(f)
	f.host = strings.TrimPrefix(f.srv.URL, "http://")
	t.Cleanup(func() {
		f.srv.CloseClientConnections()
		f.srv.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return f
}

func (f *faulty) plan(fn func(w http.ResponseWriter, r *http.Request, next http.Handler) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.handle = fn
}

func (f *faulty) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
		n, _ := f.blobs.LoadOrStore(filepath.Base(r.URL.Path), &atomic.Int32{})
		n.(*atomic.Int32).Add(1)
	}
	f.mu.Lock()
	h := f.handle
	f.mu.Unlock()
	if h != nil && h(w, r, f.inner) {
		return
	}
	f.inner.ServeHTTP(w, r)
}

// whole answers what the registry would send.
func whole(r *http.Request, next http.Handler) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	r = r.Clone(r.Context())
	r.Header.Del("Range")
	next.ServeHTTP(rec, r)
	return rec
}

// noise is content that does not compress.
func noise(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return string(b)
}

func isBig(r *http.Request, l v1.Layer) bool {
	d, _ := l.Digest()
	return r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, d.String())
}

func TestBrokenConnectionsAreResumed(t *testing.T) {
	needRoot(t)
	for _, how := range []string{"range", "range ignored", "range wrong", "range refused"} {
		t.Run(how, func(t *testing.T) {
			f := newFaulty(t)
			l := layerOf(t, file{name: "f", body: noise(1 << 20)})
			push(t, f.host+"/a:1", imageOf(t, l))
			var asked []string
			f.plan(func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
				if !isBig(r, l) {
					return false
				}
				rng := r.Header.Get("Range")
				asked = append(asked, rng)
				body := whole(r, next).Body.Bytes()
				from, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(rng, "bytes="), "-"))
				if rng != "" {
					switch how {
					case "range refused":
						w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
						return true
					case "range wrong":
						w.Header().Set("Content-Range", fmt.Sprintf("bytes 7-%d/%d", len(body)-1, len(body)))
						w.WriteHeader(http.StatusPartialContent)
						_, _ = w.Write(body[7:])
						return true
					case "range":
						w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(body)-1, len(body)))
						w.Header().Set("Content-Length", strconv.Itoa(len(body)-from))
						w.WriteHeader(http.StatusPartialContent)
						cut(w, body[from:], len(asked) < 5)
						return true
					}
				}
				w.Header().Set("Content-Length", strconv.Itoa(len(body)))
				cut(w, body, len(asked) < 2)
				return true
			})
			s := openStore(t, t.TempDir())
			if _, err := s.Pull(within(t, 20*time.Second), PullRequest{Ref: f.host + "/a:1"}); err != nil {
				t.Fatalf("%v (asked for %q)", err, asked)
			}
			if len(asked) < 2 || asked[1] == "" {
				t.Errorf("asked for %q: nothing was resumed", asked)
			}
		})
	}
}

// cut sends a body, or a part of it before it breaks the connection.
func cut(w http.ResponseWriter, body []byte, broken bool) {
	if !broken {
		_, _ = w.Write(body)
		return
	}
	_, _ = w.Write(body[:len(body)/5])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestBadContentIsRefusedAndLeavesNothing(t *testing.T) {
	needRoot(t)
	l := layerOf(t, file{name: "f", body: noise(100_000)})
	img := imageOf(t, l)
	cfgName, _ := img.ConfigName()
	answer := func(change func([]byte) []byte) func(http.ResponseWriter, *http.Request, http.Handler) bool {
		return func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
			if !isBig(r, l) {
				return false
			}
			_, _ = w.Write(change(whole(r, next).Body.Bytes()))
			return true
		}
	}
	document := func(body func() []byte) func(http.ResponseWriter, *http.Request, http.Handler) bool {
		return func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			if !strings.Contains(r.URL.Path, "/manifests/") {
				return false
			}
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			_, _ = w.Write(body())
			return true
		}
	}
	for what, plan := range map[string]func(http.ResponseWriter, *http.Request, http.Handler) bool{
		"bytes changed": answer(func(b []byte) []byte { b[len(b)/2] ^= 1; return b }),
		"shorter":       answer(func(b []byte) []byte { return b[:len(b)/2] }),
		"longer":        answer(func(b []byte) []byte { return append(b, 'x') }),
		"other config": func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
			if !strings.HasSuffix(r.URL.Path, cfgName.String()) {
				return false
			}
			_, _ = w.Write([]byte(`{}`))
			return true
		},
		"both manifest and index": document(func() []byte { return []byte(`{"schemaVersion":2,"manifests":[],"layers":[],"config":{}}`) }),
		"schema 1":                document(func() []byte { return []byte(`{"schemaVersion":1,"fsLayers":[]}`) }),
		"manifest of 5 MiB":       document(func() []byte { return bytes.Repeat([]byte(" "), 5<<20) }),
		"no JSON":                 document(func() []byte { return []byte("<html>") }),
		"other manifest for digest": func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
			if !strings.Contains(r.URL.Path, "/manifests/sha256:") || r.Method != http.MethodGet {
				return false
			}
			_, _ = w.Write([]byte(`{"schemaVersion":2,"config":{},"layers":[]}`))
			return true
		},
	} {
		t.Run(what, func(t *testing.T) {
			f := newFaulty(t)
			push(t, f.host+"/a:1", img)
			f.plan(plan)
			dir := t.TempDir()
			s := openStore(t, dir)
			_, err := s.Pull(within(t, 20*time.Second), PullRequest{Ref: f.host + "/a:1"})
			if err == nil {
				t.Fatal("pulled")
			}
			t.Log(err)
			assertEmpty(t, s, dir)
		})
	}
}

func TestDiffIDsAreChecked(t *testing.T) {
	needRoot(t)
	f := newFaulty(t)
	img := imageOf(t, layerOf(t, file{name: "f", body: "1"}))
	push(t, f.host+"/a:1", lying{img})
	dir := t.TempDir()
	s := openStore(t, dir)
	if _, err := s.Pull(within(t, 10*time.Second), PullRequest{Ref: f.host + "/a:1"}); !errdefs.IsDataLoss(err) {
		t.Fatalf("pulled: %v", err)
	}
	assertEmpty(t, s, dir)
}

func TestGzipBombEndsAtItsLimit(t *testing.T) {
	needRoot(t)
	f := newFaulty(t)
	l := layerOf(t, file{name: "zeros", body: strings.Repeat("\x00", 8<<20)})
	push(t, f.host+"/a:1", imageOf(t, l))
	dir := t.TempDir()
	s := openStore(t, dir, func(c *Config) { c.MaxLayerBytes = 4 << 20 })
	if _, err := s.Pull(within(t, 10*time.Second), PullRequest{Ref: f.host + "/a:1"}); !errdefs.IsResourceExhausted(err) {
		t.Fatalf("pulled: %v", err)
	}
	assertEmpty(t, s, dir)
}

func TestStallEndsByMissingProgress(t *testing.T) {
	needRoot(t)
	f := newFaulty(t)
	l := layerOf(t, file{name: "f", body: noise(1 << 20)})
	push(t, f.host+"/a:1", imageOf(t, l))
	f.plan(func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
		if !isBig(r, l) {
			return false
		}
		_, _ = w.Write(whole(r, next).Body.Bytes()[:1000])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	})
	dir := t.TempDir()
	s := openStore(t, dir, func(c *Config) { c.ProgressTimeout = 300 * time.Millisecond })
	begin := time.Now()
	_, err := s.Pull(within(t, 20*time.Second), PullRequest{Ref: f.host + "/a:1"})
	if !errors.Is(err, ErrNoProgress) || time.Since(begin) > 5*time.Second {
		t.Fatalf("after %v: %v", time.Since(begin), err)
	}
	assertEmpty(t, s, dir)
	// A caller who goes takes the pull along.
	s = openStore(t, t.TempDir())
	_, err = s.Pull(within(t, 200*time.Millisecond), PullRequest{Ref: f.host + "/a:1"})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
}

func TestBusyRegistryIsAskedAgainButNotForEver(t *testing.T) {
	needRoot(t)
	f := newFaulty(t)
	push(t, f.host+"/a:1", imageOf(t, layerOf(t, file{name: "f", body: "1"})))
	var n atomic.Int32
	f.plan(func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
		if n.Add(1) > 2 {
			return false
		}
		w.Header().Set("Retry-After", "garbage")
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	s := openStore(t, t.TempDir())
	if _, err := s.Pull(within(t, 20*time.Second), PullRequest{Ref: f.host + "/a:1"}); err != nil {
		t.Fatal(err)
	}
}

func TestThirtyTwoPullsLoadEachLayerOnce(t *testing.T) {
	needRoot(t)
	f := newFaulty(t)
	var ls []v1.Layer
	for i := range 5 {
		ls = append(ls, layerOf(t, file{name: fmt.Sprint("f", i), body: noise(50_000)}))
	}
	push(t, f.host+"/a:1", imageOf(t, ls...))
	push(t, f.host+"/a:2", imageOf(t, append([]v1.Layer{layerOf(t, file{name: "base", body: "b"})}, ls...)...))
	release := make(chan struct{})
	f.plan(func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
		if isBig(r, ls[4]) {
			<-release
		}
		return false
	})
	s := openStore(t, t.TempDir())
	var wg sync.WaitGroup
	var failed atomic.Int32
	for i := range 32 {
		wg.Go(func() {
			ctx := within(t, 20*time.Second)
			if i%4 == 3 { // every fourth gives up; the others must not notice
				c, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
				defer cancel()
				ctx = c
			}
			_, err := s.Pull(ctx, PullRequest{Ref: f.host + "/a:" + fmt.Sprint(1+i%2)})
			if err != nil && i%4 != 3 {
				t.Error(err)
			}
			if err != nil {
				failed.Add(1)
			}
		})
	}
	time.AfterFunc(300*time.Millisecond, func() { close(release) })
	wg.Wait()
	for _, l := range ls {
		d, _ := l.Digest()
		n, ok := f.blobs.Load(d.String())
		if !ok || n.(*atomic.Int32).Load() != 1 {
			t.Errorf("layer %s was not loaded exactly once", d)
		}
	}
	if failed.Load() != 8 {
		t.Errorf("%d callers failed, 8 had no patience", failed.Load())
	}
	if n := s.layers.Count(); n != 6 {
		t.Errorf("%d layers, want 6: the shared ones are kept once", n)
	}
}

// lying is an image whose configuration names another diff id.
type lying struct{ v1.Image }

func (l lying) RawConfigFile() ([]byte, error) {
	c, _ := l.Image.ConfigFile()
	raw, err := l.Image.RawConfigFile()
	d := c.RootFS.DiffIDs[0].String()
	return bytes.ReplaceAll(raw, []byte(d), []byte("sha256:"+strings.Repeat("0", 64))), err
}

func (l lying) ConfigName() (v1.Hash, error) {
	raw, _ := l.RawConfigFile()
	h, _, err := v1.SHA256(bytes.NewReader(raw))
	return h, err
}

func (l lying) RawManifest() ([]byte, error) {
	raw, err := l.Image.RawManifest()
	old, _ := l.Image.ConfigName()
	now, _ := l.ConfigName()
	return bytes.ReplaceAll(raw, []byte(old.String()), []byte(now.String())), err
}
