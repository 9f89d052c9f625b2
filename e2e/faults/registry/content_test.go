//go:build e2e

package registry

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/crid-project/crid/e2e/faults/watch"
)

// told are the codes for content that is not what it should be.
var told = []codes.Code{codes.InvalidArgument, codes.DataLoss, codes.ResourceExhausted, codes.FailedPrecondition, codes.NotFound, codes.Unavailable}

// answer has a layer's request answered by a function.
func answer(l layer, how func(http.ResponseWriter)) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !l.wanted(r) {
			return false
		}
		how(w)
		return true
	}
}

// A layer that is not what its descriptor says, in every way: it is refused in time, costs little memory, and nothing of it stays.
func TestF97LayersThatLie(t *testing.T) {
	t.Parallel()
	b := begin(t)
	watch.Others(b.Story)
	l := noise(300_000)
	body := l.blob
	zeros := bytes.Repeat([]byte{0}, 1<<20)
	var bomb bytes.Buffer
	z, _ := gzip.NewWriterLevel(&bomb, gzip.BestCompression)
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "zeros", Mode: 0o644, Size: 512 << 20}); err != nil {
		t.Fatal(err)
	}
	for range 512 {
		_, _ = w.Write(zeros)
	}
	_, _ = w.Close(), z.Close()
	for what, how := range map[string]func(http.ResponseWriter){
		"truncated":             func(w http.ResponseWriter) { _, _ = w.Write(body[:len(body)/2]) },
		"one byte longer":       func(w http.ResponseWriter) { _, _ = w.Write(append(slices.Clone(body), 'x')) },
		"another layer's bytes": func(w http.ResponseWriter) { _, _ = w.Write(noise(300_000).blob) },
		"one bit wrong": func(w http.ResponseWriter) {
			wrong := slices.Clone(body)
			wrong[len(wrong)/2] ^= 4
			_, _ = w.Write(wrong)
		},
		"a length that lies": func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", strconv.Itoa(len(body)/2))
			_, _ = w.Write(body)
		},
		"without an end": func(w http.ResponseWriter) {
			_, err := w.Write(body)
			for start := time.Now(); err == nil && time.Since(start) < time.Minute; {
				_, err = w.Write(zeros)
			}
		},
		"an HTML page": func(w http.ResponseWriter) { _, _ = w.Write([]byte("<html>log in</html>")) },
		"nothing":      func(http.ResponseWriter) {},
	} {
		s := newShelf()
		s.image("1", l)
		s.setPlan(answer(l, how))
		b.serve("liar.example", s)
		b.fresh()
		before := b.hwm()
		err := b.mustFail(what, "liar.example/a:1", 15*time.Second)
		b.WantCode(what, err, told...)
		if grown := b.hwm() - before; grown > 96<<10 {
			t.Errorf("%s: the daemon needed %d MiB more", what, grown>>10)
		}
		b.nothingLeft(what)
	}
	// A bomb is what its descriptor says, and half a gigabyte when unpacked.
	s, big := newShelf(), layer{bomb.Bytes(), sum(nil)}
	s.image("1", big)
	b.serve("bomb.example", s)
	b.fresh()
	before := b.hwm()
	err := b.mustFail("a bomb", "bomb.example/a:1", 30*time.Second)
	b.WantCode("a bomb", err, codes.ResourceExhausted)
	if grown := b.hwm() - before; grown > 96<<10 {
		t.Errorf("a bomb: the daemon needed %d MiB more", grown>>10)
	}
	b.nothingLeft("a bomb")
}

// A layer that has its digest and is nothing that can be unpacked: that is told as damage, not as a riddle.
func TestF97LayersThatCannotBeUnpacked(t *testing.T) {
	t.Parallel()
	b := begin(t)
	whole := noise(100_000)
	plain := bytes.Repeat([]byte("text "), 1000)
	for what, l := range map[string]layer{
		"half a gzip":           {whole.blob[:len(whole.blob)/2], whole.diff},
		"a gzip with a bad sum": {append(slices.Clone(whole.blob[:len(whole.blob)-8]), 1, 2, 3, 4, 5, 6, 7, 8), whole.diff},
		"a gzip of no tar":      squeeze(plain),
		"half a tar":            squeeze(bytes.Repeat([]byte{'a'}, 700)),
		"neither gzip nor tar":  {plain, sum(plain)},
		"zstd's first bytes":    {append([]byte{0x28, 0xb5, 0x2f, 0xfd}, plain...), sum(plain)},
		"nothing":               {nil, sum(nil)},
	} {
		s := newShelf()
		s.image("1", l)
		b.serve("spoiled.example", s)
		_, err := b.Pull(t.Context(), "spoiled.example/a:1")
		if what == "nothing" && err == nil { // no bytes are an empty archive to some
			b.remove("spoiled.example/a:1")
			continue
		}
		b.WantCode(what, err, codes.DataLoss, codes.InvalidArgument)
		b.nothingLeft(what)
		t.Logf("%s: %v", what, err)
	}
}

// nested is an index of an index of an index, so many deep, with an image at the bottom.
func nested(s *shelf, depth int) {
	d := s.image("bottom", noise(1000))
	for range depth {
		d = s.put("1", indexType, object{"schemaVersion": 2, "mediaType": indexType, "manifests": []object{d}})
	}
}

// Documents that are too large, too deep, or hold too much.
func TestF97DocumentsWithoutMeasure(t *testing.T) {
	t.Parallel()
	b := begin(t)
	watch.Others(b.Story)
	pad := strings.Repeat("x", 64<<20)
	for what, fill := range map[string]func(*shelf){
		"a manifest of 64 MiB": func(s *shelf) {
			m := s.manifest(noise(1000))
			m["annotations"] = object{"pad": pad}
			s.put("1", manifestType, m)
		},
		"a configuration of 64 MiB": func(s *shelf) {
			m, l := s.manifest(noise(1000)), noise(1000)
			c := config(l)
			c["author"] = pad
			m["config"] = s.blob(configType, encode(c))
			s.put("1", manifestType, m)
		},
		"a configuration of 64 MiB that says it is small": func(s *shelf) {
			m, l := s.manifest(noise(1000)), noise(1000)
			c := config(l)
			c["author"] = pad
			d := s.blob(configType, encode(c))
			d["size"] = 1000
			m["config"] = d
			s.put("1", manifestType, m)
		},
		"5000 layers": func(s *shelf) {
			l := noise(100)
			many := make([]layer, 5000)
			for i := range many {
				many[i] = l
			}
			s.image("1", many...)
		},
		"an index 100 deep":          func(s *shelf) { nested(s, 100) },
		"an index that names itself": func(s *shelf) { loop(s) },
		"a configuration of many gaps": func(s *shelf) {
			m := s.manifest(noise(100))
			m["config"] = s.blob(configType, bytes.Repeat([]byte("["), 4<<20))
			s.put("1", manifestType, m)
		},
	} {
		s := newShelf()
		fill(s)
		b.serve("vast.example", s)
		b.fresh()
		before := b.hwm()
		err := b.mustFail(what, "vast.example/a:1", 15*time.Second)
		b.WantCode(what, err, told...)
		if grown := b.hwm() - before; grown > 96<<10 {
			t.Errorf("%s: the daemon needed %d MiB more", what, grown>>10)
		}
		b.nothingLeft(what)
	}
}

// loop makes an index whose only entry has a digest under which the index itself is served.
func loop(s *shelf) {
	inner := object{"mediaType": indexType, "digest": "sha256:" + strings.Repeat("1", 64), "size": 300}
	body := encode(object{"schemaVersion": 2, "mediaType": indexType, "manifests": []object{inner}})
	s.put("1", indexType, body)
	s.docs["sha256:"+strings.Repeat("1", 64)] = document{indexType, body}
}

// 128 layers are an image like any other.
func TestF97AnImageOf128Layers(t *testing.T) {
	t.Parallel()
	b := begin(t)
	s := newShelf()
	var layers []layer
	for i := range 128 {
		layers = append(layers, pack(map[string][]byte{fmt.Sprintf("file-%d", i): []byte("x")}))
	}
	s.image("1", layers...)
	b.serve("many.example", s)
	if _, err := b.Pull(t.Context(), "many.example/a:1"); err != nil {
		t.Fatal(err)
	}
	b.usable("128 layers", "many.example/a:1")
	b.remove("many.example/a:1")
	b.nothingLeft("128 layers")
}

// A connection that breaks at each tenth of a layer, a registry that knows no ranges, gives wrong ones, refuses them or says that the content
// has changed: in the end it is the right layer, or none.
func TestF98ConnectionsThatBreakAndRanges(t *testing.T) {
	t.Parallel()
	b := begin(t)
	l := noise(500_000)
	size := len(l.blob)
	for _, how := range []string{"ranges", "ranges ignored", "wrong ranges", "ranges refused", "content changes"} {
		s, cuts := newShelf(), 0
		s.image("1", l)
		s.setPlan(func(w http.ResponseWriter, r *http.Request) bool {
			if !l.wanted(r) {
				return false
			}
			body, from := l.blob, 0
			if rng := r.Header.Get("Range"); rng != "" {
				from, _ = strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(rng, "bytes="), "-"))
			}
			w.Header().Set("ETag", `"one"`)
			switch {
			case from == 0 || how == "ranges ignored":
				from = 0
			case how == "ranges refused":
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return true
			case how == "wrong ranges":
				from = max(0, from-7)
			case how == "content changes":
				w.Header().Set("ETag", `"two"`)
				body = slices.Clone(body)
				for i := range body {
					body[i] ^= 0x55
				}
			}
			w.Header().Set("Content-Length", strconv.Itoa(size-from))
			if from > 0 {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, size-1, size))
				w.WriteHeader(http.StatusPartialContent)
			}
			if cuts++; cuts < 10 {
				_, _ = w.Write(body[from:max(from, min(size, cuts*size/10))])
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}
			_, _ = w.Write(body[from:])
			return true
		})
		b.serve("broken.example", s)
		_, err := b.Pull(t.Context(), "broken.example/a:1")
		switch {
		case how == "content changes" && err == nil:
			t.Error("a layer of two contents is taken")
		case how != "content changes" && err != nil:
			t.Errorf("%s: %v", how, err)
		case err == nil:
			b.usable(how, "broken.example/a:1")
			b.remove("broken.example/a:1")
		}
		if cuts < 2 {
			t.Errorf("%s: cut %d times: the test tests nothing", how, cuts)
		}
		b.nothingLeft(how)
	}
}

// Manifests that mean something else to another reader, or that nobody can use.
func TestF102ManifestsThatAreRefused(t *testing.T) {
	t.Parallel()
	b := begin(t)
	l := noise(1000)
	with := func(change func(*shelf, object)) func(*shelf) {
		return func(s *shelf) {
			m := s.manifest(l)
			change(s, m)
			media, _ := m["mediaType"].(string)
			s.put("1", media, m)
		}
	}
	cases := map[string]func(*shelf){
		"a layer from elsewhere": with(func(_ *shelf, m object) {
			d := m["layers"].([]object)[0]
			d["urls"], d["mediaType"] = []string{"http://169.254.169.254/x"}, "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
			d["digest"] = "sha256:" + strings.Repeat("2", 64)
		}),
		"index and manifest at once":        with(func(_ *shelf, m object) { m["manifests"] = []object{} }),
		"manifest that says it is an index": with(func(_ *shelf, m object) { m["mediaType"] = indexType }),
		"schema 1": func(s *shelf) {
			s.put("1", "application/vnd.docker.distribution.manifest.v1+prettyjws", object{"schemaVersion": 1, "fsLayers": []object{}, "history": []object{}})
		},
		"an unknown media type":   func(s *shelf) { s.put("1", "application/vnd.example+json", object{"hello": "world"}) },
		"a layer of unknown type": with(func(_ *shelf, m object) { m["layers"].([]object)[0]["mediaType"] = "application/x-squashfs" }),
		"another diff id": func(s *shelf) {
			m, c := s.manifest(l), config(l)
			c["rootfs"] = object{"type": "layers", "diff_ids": []string{sum([]byte("other"))}}
			m["config"] = s.blob(configType, encode(c))
			s.put("1", manifestType, m)
		},
		"fewer diff ids than layers": func(s *shelf) {
			m := s.manifest(l)
			m["config"] = s.blob(configType, encode(config()))
			s.put("1", manifestType, m)
		},
		"a digest that is a path": with(func(_ *shelf, m object) { m["config"].(object)["digest"] = "sha256:../../../../etc/passwd" }),
		"a negative size":         with(func(_ *shelf, m object) { m["layers"].([]object)[0]["size"] = -1 << 40 }),
		"no such platform": func(s *shelf) {
			d := s.image("other", l)
			d["platform"] = object{"architecture": "s390x", "os": "plan9"}
			s.put("1", indexType, object{"schemaVersion": 2, "mediaType": indexType, "manifests": []object{d}})
		},
		"an empty index": func(s *shelf) {
			s.put("1", indexType, object{"schemaVersion": 2, "mediaType": indexType, "manifests": []object{}})
		},
	}
	for _, what := range slices.Sorted(maps.Keys(cases)) {
		s := newShelf()
		cases[what](s)
		b.serve("odd.example", s)
		err := b.mustFail(what, "odd.example/a:1", 10*time.Second)
		b.WantCode(what, err, told...)
		b.nothingLeft(what)
	}
}

// No layers, the same layer twice: odd, and images all the same.
func TestF102OddImagesThatWork(t *testing.T) {
	t.Parallel()
	b := begin(t)
	twice, empty := noise(1000), squeeze(make([]byte, 1024))
	for what, layers := range map[string][]layer{"no layers": {}, "one twice": {twice, empty, twice}, "an empty one": {empty}} {
		s := newShelf()
		s.image("1", layers...)
		b.serve("odd.example", s)
		if _, err := b.Pull(t.Context(), "odd.example/a:1"); err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		b.usable(what, "odd.example/a:1")
		b.remove("odd.example/a:1")
		b.nothingLeft(what)
	}
}
