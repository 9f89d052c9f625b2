package kit

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/crid-project/crid/e2e/project"
)

// programs are what `make images` has built.
func programs(t *testing.T) *Programs {
	t.Helper()
	dir, err := project.BuildDir()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Open(t.Context(), filepath.Join(dir, "images"))
	if err != nil {
		t.Skipf("needs the programs of the test images (make images): %v", err)
	}
	return p
}

func TestTheSameProgramsGiveTheSameDigests(t *testing.T) {
	p := programs(t)
	digests := func() map[string]string {
		images, err := p.Catalogue(false)
		if err != nil {
			t.Fatal(err)
		}
		m := map[string]string{}
		for _, i := range images {
			d, err := i.Digest()
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range i.Names {
				if m[n] != "" {
					t.Errorf("%s is there twice", n)
				}
				m[n] = d.String()
			}
		}
		return m
	}
	one, two := digests(), digests()
	for n := range one {
		if one[n] != two[n] {
			t.Errorf("%s is %s and then %s", n, one[n], two[n])
		}
	}
	if len(one) < 30 {
		t.Errorf("only %d names", len(one))
	}
}

func TestTheRegistryServesWhatTheNamesSay(t *testing.T) {
	images, err := programs(t).Catalogue(false)
	if err != nil {
		t.Fatal(err)
	}
	i, err := Find(images, Busybox)
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	r, err := Serve(t.Context(), "127.0.0.1:0", []Image{i}, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { asked++; next.ServeHTTP(w, req) })
	})
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.Get("http://" + r.Addr + "/v2/e2e-test-images/busybox/manifests/1.29-2")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	digest, e := i.Digest()
	if err := errors.Join(err, e); err != nil {
		t.Fatal(err)
	}
	if sum(body) != digest || res.Header.Get("Content-Type") != string(types.DockerManifestList) {
		t.Errorf("got %s of %s, not %s", sum(body), res.Header.Get("Content-Type"), digest)
	}
	if asked != 1 {
		t.Errorf("the wrap saw %d requests, not the client's one", asked)
	}
	for range 2 {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestHostsSendPullsNowhereElse(t *testing.T) {
	dir := t.TempDir()
	if err := WriteHosts(dir, "127.0.0.1:5"); err != nil {
		t.Fatal(err)
	}
	for _, h := range Hosts {
		text, err := os.ReadFile(filepath.Join(dir, h, "hosts.toml"))
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), "http://127.0.0.1:5"); n != 2 {
			t.Errorf("%s: the registry is named %d times: as server, or the real host is asked after it, and as host", h, n)
		}
	}
	if err := WriteHosts(dir, "127.0.0.1:5", "../outside"); err == nil {
		t.Error("a host that is a path is accepted")
	}
}

func TestLayersMakeTheFoldersAboveTheirFiles(t *testing.T) {
	for _, media := range []types.MediaType{types.DockerLayer, types.OCILayerZStd, types.OCIUncompressedLayer} {
		l, err := newLayer(media, func(t *tree) { t.text("a/b/c", "text"); t.text("a/b/d", "") })
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		in := tar.NewReader(bytes.NewReader(l.raw))
		for {
			h, err := in.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, h.Name)
			if !h.ModTime.Equal(epoch) {
				t.Errorf("%s has a time of its own: %s", h.Name, h.ModTime)
			}
		}
		if fmt.Sprint(names) != "[a/ a/b/ a/b/c a/b/d]" {
			t.Errorf("%s: %v", media, names)
		}
		if compressed := media != types.OCIUncompressedLayer; compressed == bytes.Equal(l.blob, l.raw) {
			t.Errorf("%s: compressed is %v", media, !compressed)
		}
	}
}

func TestACritestOfAnotherReleaseIsNotPatched(t *testing.T) {
	images, err := programs(t).Catalogue(false)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	for content, fine := range map[string]bool{"x" + pinned + "y": true, "nothing": false, pinned + pinned: false} {
		if err := os.WriteFile(in, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := PatchDigest(in, out, images); (err == nil) != fine {
			t.Errorf("%.20s...: %v", content, err)
		}
		if got, _ := os.ReadFile(out); fine && (len(got) != len(content) || bytes.Contains(got, []byte(pinned))) {
			t.Errorf("patched to %q", got)
		}
	}
}
