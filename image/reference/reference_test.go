package reference

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

const hex64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestParseWritesNamesInFull(t *testing.T) {
	for in, want := range map[string]string{
		"busybox":                                   "docker.io/library/busybox:latest",
		"busybox:1.37":                              "docker.io/library/busybox:1.37",
		"user/app":                                  "docker.io/user/app:latest",
		"index.docker.io/library/busybox":           "docker.io/library/busybox:latest",
		"localhost/app:1":                           "localhost/app:1",
		"127.0.0.1:5000/a/b:c":                      "127.0.0.1:5000/a/b:c",
		"registry.k8s.io/pause@sha256:" + hex64:     "registry.k8s.io/pause@sha256:" + hex64,
		"registry.k8s.io/pause:3.9@sha256:" + hex64: "registry.k8s.io/pause@sha256:" + hex64,
	} {
		r, err := Parse(in)
		if err != nil || r.String() != want {
			t.Errorf("Parse(%q) = %q, %v; want %q", in, r, err, want)
		}
	}
}

func TestParseRefusesWhatCouldBecomeAPath(t *testing.T) {
	for _, in := range []string{
		"", " ", "../../etc/passwd", "a//b", "/a", "a/UPPER", "a:b:c", "a@sha256:short", "a@sha256:" + strings.Repeat("G", 64),
		"a@md5:" + strings.Repeat("a", 32), "a\x00b", "a:" + strings.Repeat("t", 129), strings.Repeat("a/", 600) + "a", "sha256:" + hex64 + "/..",
	} {
		if r, err := Parse(in); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("Parse(%q) = %q, %v; want an invalid argument", in, r, err)
		}
	}
}

func TestCheckDigestIsStrict(t *testing.T) {
	for d, ok := range map[string]bool{
		"sha256:" + hex64:                  true,
		"sha512:" + hex64 + hex64:          true,
		"sha256:" + hex64 + "0":            false,
		"sha256:../../" + hex64[:58]:       false,
		"sha256:" + strings.ToUpper(hex64): false,
		"sha384:" + hex64 + hex64[:32]:     false,
		"":                                 false,
		"sha256":                           false,
		"multi+sha256:" + hex64:            false,
	} {
		if err := CheckDigest(digest.Digest(d)); (err == nil) != ok {
			t.Errorf("CheckDigest(%q) = %v", d, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"busybox", "a.b:5000/c:d", "x@sha256:" + hex64} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse(s)
		if err != nil {
			return
		}
		again, err := Parse(r.String())
		if err != nil || again != r {
			t.Fatalf("%q reads as %q, which reads as %q, %v", s, r, again, err)
		}
		if strings.Contains(r.String(), "..") && strings.Contains(r.String(), "/../") {
			t.Fatalf("%q holds a parent directory", r)
		}
	})
}
