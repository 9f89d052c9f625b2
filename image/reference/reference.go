package reference

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	dist "github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// maxLength bounds a reference: repository names end at 255 bytes, tags at
// 128, digests (sha512) at 135, and a host name at 253.
const maxLength = 1024

// Ref is a reference in full form. Exactly one of Tag and Digest is set.
type Ref struct {
	// Name is host and repository: "docker.io/library/busybox".
	Name string
	// Tag is the tag; "latest" where the user named neither tag nor digest.
	Tag string
	// Digest is the manifest's or index's digest.
	Digest digest.Digest
}

// Parse reads a reference. Short names get docker.io (and library/), a missing
// tag is "latest", and where a tag and a digest are both given the digest
// decides and the tag is dropped, as containerd's CRI does. An error wraps
// errdefs.ErrInvalidArgument.
func Parse(s string) (Ref, error) {
	if len(s) == 0 || len(s) > maxLength {
		return Ref{}, fmt.Errorf("read image reference of %d bytes (1 to %d are possible): %w", len(s), maxLength, errdefs.ErrInvalidArgument)
	}
	named, err := dist.ParseDockerRef(s)
	if err != nil {
		return Ref{}, fmt.Errorf("read image reference %q: %w: %w", s, err, errdefs.ErrInvalidArgument)
	}
	r := Ref{Name: named.Name()}
	if d, ok := named.(dist.Digested); ok {
		r.Digest = d.Digest()
		return r, CheckDigest(r.Digest)
	}
	t, ok := named.(dist.Tagged)
	if !ok {
		return Ref{}, fmt.Errorf("read image reference %q: neither tag nor digest: %w", s, errdefs.ErrInvalidArgument)
	}
	r.Tag = t.Tag()
	return r, nil
}

// String is the reference in full: "docker.io/library/busybox:latest".
func (r Ref) String() string {
	if r.Digest != "" {
		return r.Name + "@" + r.Digest.String()
	}
	return r.Name + ":" + r.Tag
}

// Host is the registry's name, with its port if one was given: "docker.io".
func (r Ref) Host() string {
	host, _, _ := strings.Cut(r.Name, "/")
	return host
}

// WithDigest is the same repository at a digest.
func (r Ref) WithDigest(d digest.Digest) Ref { return Ref{Name: r.Name, Digest: d} }

// CheckDigest refuses every digest that is not exactly sha256 or sha512 with
// as many lower-case hex digits as that needs. A digest that has passed may
// become part of a file name. An error wraps errdefs.ErrInvalidArgument.
func CheckDigest(d digest.Digest) error {
	algo, hex, ok := strings.Cut(string(d), ":")
	want := map[string]int{"sha256": 64, "sha512": 128}[algo]
	if !ok || want == 0 || len(hex) != want || !IsHex(hex) {
		return fmt.Errorf("check digest %.160q: not sha256 or sha512 in lower-case hex: %w", string(d), errdefs.ErrInvalidArgument)
	}
	return nil
}

// IsHex tells whether s has lower-case hex digits only, and at least one.
func IsHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(s) > 0
}
