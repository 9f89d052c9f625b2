//go:build e2e

package registry

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	indexType    = "application/vnd.oci.image.index.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// object is a JSON object.
type object map[string]any

// document is a manifest or an index.
type document struct {
	media string
	body  []byte
}

// shelf is a registry that holds whatever it is given, true or not. A plan may answer requests itself.
type shelf struct {
	mu    sync.Mutex
	blobs map[string][]byte
	docs  map[string]document // by "tag" or digest, of every repository
	asked map[string]int      // "GET blobs/sha256:...": how often
	plan  func(http.ResponseWriter, *http.Request) bool
	addr  string
}

func newShelf() *shelf {
	return &shelf{blobs: map[string][]byte{}, docs: map[string]document{}, asked: map[string]int{}}
}

// start serves until the test ends.
func (s *shelf) start(t *testing.T) string {
	t.Helper()
	if s.addr == "" {
		server := httptest.NewServer(s)
		t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
		s.addr = strings.TrimPrefix(server.URL, "http://")
	}
	return s.addr
}

func sum(b []byte) string {
	d := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(d[:])
}

// blob puts bytes on the shelf and describes them.
func (s *shelf) blob(media string, b []byte) object {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs[sum(b)] = b
	return object{"mediaType": media, "digest": sum(b), "size": len(b)}
}

// put puts a document on the shelf under a tag, and describes it.
func (s *shelf) put(tag, media string, v any) object {
	body, ok := v.([]byte)
	if !ok {
		var err error
		if body, err = json.Marshal(v); err != nil {
			panic(err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.docs[tag], s.docs[sum(body)] = document{media, body}, document{media, body}
	return object{"mediaType": media, "digest": sum(body), "size": len(body)}
}

// layer is a layer's blob and its diff id.
type layer struct {
	blob []byte
	diff string
}

// pack makes a layer of files.
func pack(files map[string][]byte) layer {
	var raw bytes.Buffer
	w := tar.NewWriter(&raw)
	for name, body := range files {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(body))}); err != nil {
			panic(err)
		}
		_, _ = w.Write(body)
	}
	_ = w.Close()
	return squeeze(raw.Bytes())
}

func squeeze(raw []byte) layer {
	var out bytes.Buffer
	z, _ := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	_, _ = z.Write(raw)
	_ = z.Close()
	return layer{out.Bytes(), sum(raw)}
}

// noise is a layer with one file that does not compress, another each time.
func noise(n int) layer {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return pack(map[string][]byte{"noise": b})
}

// config is an image's configuration.
func config(layers ...layer) object {
	diffs := []string{}
	for _, l := range layers {
		diffs = append(diffs, l.diff)
	}
	return object{"architecture": runtime.GOARCH, "os": "linux", "config": object{"Cmd": []string{"/none"}},
		"rootfs": object{"type": "layers", "diff_ids": diffs}, "history": []object{}, "created": "2024-01-01T00:00:00Z"}
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// manifest is one of an image of layers, all of which it puts on the shelf.
func (s *shelf) manifest(layers ...layer) object {
	list := []object{}
	for _, l := range layers {
		list = append(list, s.blob(layerType, l.blob))
	}
	return object{"schemaVersion": 2, "mediaType": manifestType, "config": s.blob(configType, encode(config(layers...))), "layers": list}
}

// image puts a whole image on the shelf.
func (s *shelf) image(tag string, layers ...layer) object {
	return s.put(tag, manifestType, s.manifest(layers...))
}

func (s *shelf) count(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for k, v := range s.asked {
		if strings.Contains(k, what) {
			n += v
		}
	}
	return n
}

func (s *shelf) setPlan(plan func(http.ResponseWriter, *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plan = plan
}

// setPlanNext adds a plan that is asked before those that are there.
func (s *shelf) setPlanNext(plan func(http.ResponseWriter, *http.Request) bool) {
	last := s.plan
	s.setPlan(func(w http.ResponseWriter, r *http.Request) bool { return plan(w, r) || last != nil && last(w, r) })
}

// listen serves for ever, and writes its address to a file.
func (s *shelf) listen(file string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".part", []byte(l.Addr().String()), 0o600); err != nil {
		return err
	}
	if err := os.Rename(file+".part", file); err != nil {
		return err
	}
	return (&http.Server{Handler: s, ReadHeaderTimeout: time.Minute}).Serve(l)
}

func (s *shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	plan := s.plan
	s.asked[r.Method+" "+r.URL.Path]++
	s.mu.Unlock()
	if plan != nil && plan(w, r) {
		return
	}
	s.truth(w, r)
}

// truth answers as a registry should.
func (s *shelf) truth(w http.ResponseWriter, r *http.Request) {
	media, body, ok := s.find(r.URL.Path)
	switch {
	case r.URL.Path == "/v2/":
	case !ok:
		http.NotFound(w, r)
	default:
		w.Header().Set("Content-Type", media)
		w.Header().Set("Docker-Content-Digest", sum(body))
		code := http.StatusOK
		if from, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(r.Header.Get("Range"), "bytes="), "-")); err == nil && from < len(body) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(body)-1, len(body)))
			body, code = body[from:], http.StatusPartialContent
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(code)
		if r.Method != http.MethodHead {
			_, _ = w.Write(body) // the client may have gone
		}
	}
}

// find is what lies under a path.
func (s *shelf) find(path string) (media string, body []byte, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := path[strings.LastIndexByte(path, '/')+1:]
	if strings.Contains(path, "/blobs/") {
		body, ok = s.blobs[name]
		return "application/octet-stream", body, ok
	}
	d, ok := s.docs[name]
	return d.media, d.body, ok
}

// isBlob tells whether a request is for the content of a layer.
func (l layer) wanted(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, sum(l.blob))
}
