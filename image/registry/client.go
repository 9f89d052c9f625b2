package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/crid-project/crid/image/reference"
)

// Config says how registries are found.
type Config struct {
	// CertsDirs are directories in the manner of /etc/containerd/certs.d; the
	// first that has a folder for a host wins.
	CertsDirs []string
	// UserAgent is sent to registries; default "crid".
	UserAgent string
}

// Client loads from registries. It keeps nothing between pulls.
type Client struct{ cfg Config }

// New makes a client.
func New(cfg Config) *Client {
	if cfg.UserAgent == "" {
		cfg.UserAgent = "crid"
	}
	return &Client{cfg: cfg}
}

// Pull is the conversation about one reference. Close it when done.
type Pull struct {
	c        *Client
	ref      reference.Ref
	creds    *credentials
	resolver remotes.Resolver
	fetcher  remotes.Fetcher
	waited   int64
	progress func(int64)

	mu      sync.Mutex
	closers []func()
}

// Begin prepares to load a reference. progress is told of requests sent (1)
// and bytes received; it may be called from several goroutines.
func (c *Client) Begin(ctx context.Context, ref reference.Ref, a *Auth, progress func(int64)) (*Pull, error) {
	creds, err := parseAuth(a, ref.Host())
	if err != nil {
		return nil, err
	}
	if progress == nil {
		progress = func(int64) {}
	}
	ctx = quiet(ctx)
	p := &Pull{c: c, ref: ref, creds: creds, progress: progress}
	p.resolver = docker.NewResolver(docker.ResolverOptions{
		Hosts:   p.hosts(ctx),
		Headers: http.Header{"User-Agent": []string{c.cfg.UserAgent}},
	})
	if p.fetcher, err = p.resolver.Fetcher(ctx, ref.String()); err != nil {
		p.Close()
		return nil, fmt.Errorf("prepare to pull %s: %w", ref, classify(err))
	}
	return p, nil
}

// silence is where containerd's libraries log to: their errors reach us as
// errors, and their notes are not in our form.
var silence = logrus.NewEntry(&logrus.Logger{Out: io.Discard, Formatter: &logrus.TextFormatter{}, Hooks: logrus.LevelHooks{}, Level: logrus.PanicLevel})

func quiet(ctx context.Context) context.Context { return log.WithLogger(ctx, silence) }

func (p *Pull) onClose(fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closers = append(p.closers, fn)
}

// Close gives idle connections back. Idempotent.
func (p *Pull) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, fn := range p.closers {
		fn()
	}
	p.closers = nil
}

// Resolve asks what the reference's tag or digest is at the moment.
func (p *Pull) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	_, desc, err := p.resolver.Resolve(quiet(ctx), p.ref.String())
	if err != nil {
		return desc, fmt.Errorf("resolve %s: %w", p.ref, classify(err))
	}
	if err := reference.CheckDigest(desc.Digest); err != nil {
		return desc, fmt.Errorf("resolve %s: %w", p.ref, err)
	}
	if p.ref.Digest != "" && desc.Digest != p.ref.Digest {
		return desc, fmt.Errorf("resolve %s: the registry answers %s: %w", p.ref, desc.Digest, errdefs.ErrDataLoss)
	}
	return desc, nil
}

// Document loads a small blob (manifest, index, configuration) whole, of at
// most limit bytes, and verifies its digest.
func (p *Pull) Document(ctx context.Context, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	if desc.Size > limit {
		return nil, fmt.Errorf("load %s: %d bytes, more than %d: %w", desc.Digest, desc.Size, limit, errdefs.ErrInvalidArgument)
	}
	desc.URLs = nil
	r := p.Blob(ctx, desc)
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", desc.Digest, classify(err))
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("load %s: more than %d bytes: %w", desc.Digest, limit, errdefs.ErrInvalidArgument)
	}
	if got := desc.Digest.Algorithm().FromBytes(data); got != desc.Digest {
		return nil, mismatch(desc.Digest, got)
	}
	return data, nil
}

func mismatch(want, got digest.Digest) error {
	return fmt.Errorf("load %s: the registry sent something else (%s): %w", want, got, errdefs.ErrDataLoss)
}

// Blob opens a blob as a stream that resumes where a connection broke. The
// reader must check the digest.
func (p *Pull) Blob(ctx context.Context, desc ocispec.Descriptor) io.ReadCloser {
	desc.URLs = nil
	return &resuming{ctx: quiet(ctx), p: p, desc: desc}
}

// resuming reads a blob and asks for the rest when a connection breaks.
type resuming struct {
	ctx    context.Context
	p      *Pull
	desc   ocispec.Descriptor
	rc     io.ReadCloser
	offset int64
	failed int
}

// maxFailed is how often in a row a request may bring nothing.
const maxFailed = 5

func (r *resuming) Read(b []byte) (int, error) {
	for {
		if r.ctx.Err() != nil {
			return 0, context.Cause(r.ctx)
		}
		if r.rc == nil {
			if err := r.open(); err != nil {
				return 0, err
			}
		}
		n, err := r.rc.Read(b)
		r.offset += int64(n)
		if n > 0 {
			r.failed = 0
			r.p.progress(int64(n))
		}
		if err == nil || (err == io.EOF && (r.desc.Size < 0 || r.offset >= r.desc.Size)) {
			return n, err
		}
		if n > 0 && err == io.EOF {
			return n, nil // the next call resumes
		}
		if r.ctx.Err() != nil {
			return n, context.Cause(r.ctx)
		}
		if r.failed++; !transient(err) || r.failed > maxFailed {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return n, fmt.Errorf("read %s at byte %d of %d: %w", r.desc.Digest, r.offset, r.desc.Size, classify(err))
		}
		r.rc.Close()
		r.rc = nil
		if err := r.pause(); err != nil {
			return n, err
		}
		if n > 0 {
			return n, nil
		}
	}
}

// pause grows with failures, and counts as waiting.
func (r *resuming) pause() error {
	d := 20 * time.Millisecond << (2 * min(r.failed-1, 3))
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	}
}

func (r *resuming) open() error {
	rc, err := r.p.fetcher.Fetch(r.ctx, r.desc)
	if err != nil {
		return fmt.Errorf("load %s: %w", r.desc.Digest, classify(err))
	}
	if r.offset > 0 {
		s, ok := rc.(io.Seeker)
		if ok {
			_, err = s.Seek(r.offset, io.SeekStart)
		} else {
			_, err = io.CopyN(io.Discard, rc, r.offset)
		}
		if err != nil {
			rc.Close()
			return fmt.Errorf("resume %s at byte %d: %w", r.desc.Digest, r.offset, classify(err))
		}
	}
	r.rc = rc
	return nil
}

func (r *resuming) Close() error {
	if r.rc == nil {
		return nil
	}
	err := r.rc.Close()
	r.rc = nil
	return err
}

// secretQuery finds what presigned addresses carry.
var secretQuery = regexp.MustCompile(`\?[^\s"']+`)

// classified is an error with its type told and secrets taken out of its text.
type classified struct {
	text string
	kind error
	err  error
}

func (c *classified) Error() string { return c.text }

func (c *classified) Unwrap() []error { return []error{c.kind, c.err} }

// classify gives a registry's failure one of errdefs' types.
func classify(err error) error {
	var done *classified
	if err == nil || errors.As(err, &done) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	c := &classified{text: secretQuery.ReplaceAllString(err.Error(), "?…"), err: err, kind: errdefs.ErrUnavailable}
	var status remoteerrors.ErrUnexpectedStatus
	switch {
	case errors.Is(err, docker.ErrInvalidAuthorization):
		c.kind = errdefs.ErrUnauthenticated
	case errors.As(err, &status):
		switch status.StatusCode {
		case http.StatusUnauthorized:
			c.kind = errdefs.ErrUnauthenticated
		case http.StatusForbidden:
			c.kind = errdefs.ErrPermissionDenied
		case http.StatusNotFound:
			c.kind = errdefs.ErrNotFound
		case http.StatusTooManyRequests:
			c.text += " (the registry limits how often it may be asked; try later or give credentials)"
		}
	case errdefs.IsNotFound(err):
		c.kind = errdefs.ErrNotFound
	case errdefs.IsInvalidArgument(err):
		c.kind = errdefs.ErrInvalidArgument
	case errdefs.IsFailedPrecondition(err):
		c.kind = errdefs.ErrFailedPrecondition
	}
	return c
}
