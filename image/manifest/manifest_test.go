package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	hex  = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	cfg  = `"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:` + hex + `","size":2}`
	gzip = "application/vnd.oci.image.layer.v1.tar+gzip"
)

func layer(mediaType, extra string) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":"sha256:%s","size":3%s}`, mediaType, hex, extra)
}

func TestParse(t *testing.T) {
	for what, c := range map[string]struct {
		header, body string
		ok           bool
	}{
		"OCI":                  {ocispec.MediaTypeImageManifest, `{"schemaVersion":2,` + cfg + `,"layers":[` + layer(gzip, "") + `]}`, true},
		"no layers":            {"", `{"schemaVersion":2,` + cfg + `,"layers":[]}`, true},
		"type with parameters": {ocispec.MediaTypeImageManifest + "; charset=utf-8", `{"schemaVersion":2,` + cfg + `,"layers":[]}`, true},
		"generic header":       {"application/octet-stream", `{"schemaVersion":2,` + cfg + `,"layers":[]}`, true},
		"index":                {ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[]}`, true},
		"both":                 {"", `{"schemaVersion":2,"manifests":[],"layers":[]}`, false},
		"index with a config":  {"", `{"schemaVersion":2,"manifests":[],` + cfg + `}`, false},
		"neither":              {"", `{"schemaVersion":2}`, false},
		"header says index":    {ocispec.MediaTypeImageIndex, `{"schemaVersion":2,` + cfg + `,"layers":[]}`, false},
		"header says manifest": {ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"manifests":[]}`, false},
		"body says otherwise":  {ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",` + cfg + `,"layers":[]}`, false},
		"unknown type":         {"", `{"schemaVersion":2,"mediaType":"application/x",` + cfg + `,"layers":[]}`, false},
		"schema 1":             {"", `{"schemaVersion":1,"fsLayers":[]}`, false},
		"schema 1 by header":   {"application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion":2,` + cfg + `,"layers":[]}`, false},
		"foreign urls":         {"", `{"schemaVersion":2,` + cfg + `,"layers":[` + layer(gzip, `,"urls":["http://x"]`) + `]}`, false},
		"foreign type":         {"", `{"schemaVersion":2,` + cfg + `,"layers":[` + layer("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "") + `]}`, false},
		"unknown layer":        {"", `{"schemaVersion":2,` + cfg + `,"layers":[` + layer("text/html", "") + `]}`, false},
		"digest is a path":     {"", `{"schemaVersion":2,` + cfg + `,"layers":[{"mediaType":"` + gzip + `","digest":"sha256:../../x","size":1}]}`, false},
		"negative size":        {"", `{"schemaVersion":2,` + cfg + `,"layers":[{"mediaType":"` + gzip + `","digest":"sha256:` + hex + `","size":-1}]}`, false},
		"config too big":       {"", strings.Replace(`{"schemaVersion":2,`+cfg+`,"layers":[]}`, `"size":2`, `"size":9000000`, 1), false},
		"artifact":             {"", `{"schemaVersion":2,"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json","digest":"sha256:` + hex + `","size":2},"layers":[]}`, false},
		"two values":           {"", `{"schemaVersion":2,` + cfg + `,"layers":[]}{}`, false},
		"null":                 {"", `null`, false},
		"5,000 layers":         {"", `{"schemaVersion":2,` + cfg + `,"layers":[` + strings.TrimSuffix(strings.Repeat(layer(gzip, "")+",", 5000), ",") + `]}`, false},
	} {
		doc, err := Parse([]byte(c.body), c.header)
		if (err == nil) != c.ok || (err != nil && !errors.Is(err, errdefs.ErrInvalidArgument)) {
			t.Errorf("%s: %+v, %v", what, doc, err)
		}
	}
}

func TestOwnPlatformIsFoundWhereverItStands(t *testing.T) {
	d := func(os, arch string) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(os + arch), Platform: &ocispec.Platform{OS: os, Architecture: arch}}
	}
	m := platforms.Only(ocispec.Platform{OS: "linux", Architecture: "amd64"})
	idx := ocispec.Index{Manifests: []ocispec.Descriptor{d("unknown", "unknown"), d("linux", "arm64"), d("windows", "amd64"), d("linux", "386"), d("linux", "amd64")}}
	got, err := Choose(idx, m)
	if err != nil || got[0].Platform.Architecture != "amd64" || got[0].Platform.OS != "linux" {
		t.Errorf("%+v, %v", got, err)
	}
	idx.Manifests = idx.Manifests[:3]
	if got, err := Choose(idx, m); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("%+v, %v", got, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,`+cfg+`,"layers":[`+layer(gzip, "")+`]}`), ocispec.MediaTypeImageManifest)
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"platform":{"os":"linux"}}]}`), "")
	f.Fuzz(func(t *testing.T, data []byte, mediaType string) {
		doc, err := Parse(data, mediaType)
		if err != nil {
			return
		}
		if doc.Kind == KindIndex {
			_, _ = Choose(doc.Index, platforms.Default())
			return
		}
		for _, l := range doc.Manifest.Layers {
			if strings.ContainsAny(l.Digest.String(), "/.") || len(l.URLs) > 0 || l.Size < 0 {
				t.Fatalf("taken: %+v", l)
			}
		}
	})
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{"rootfs":{"type":"layers","diff_ids":["sha256:`+hex+`"]},"config":{"User":"0"}}`), 1)
	f.Fuzz(func(t *testing.T, data []byte, n int) {
		c, err := ParseConfig(data, n)
		if err == nil && (len(c.RootFS.DiffIDs) != n || bytes.Contains([]byte(ChainID(c.RootFS.DiffIDs)), []byte("/"))) {
			t.Fatal(c)
		}
	})
}
