package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/failpoint"
	"github.com/crid-project/crid/image/manifest"
	"github.com/crid-project/crid/image/reference"
	"github.com/crid-project/crid/image/registry"
)

// Auth is a registry account; see [registry.Auth].
type Auth = registry.Auth

// PullRequest says what to pull.
type PullRequest struct {
	// Ref is a tag, digest or short name.
	Ref string
	// Auth is the account to use; nil: none.
	Auth *Auth
}

// ErrNoProgress ends a pull in which nothing arrived for Config.ProgressTimeout.
var ErrNoProgress = fmt.Errorf("no progress: %w", errdefs.ErrUnavailable)

// Pull loads an image and answers it complete, with the tag (and digest) that
// it was asked by. It asks the registry even if the image is here, because a
// tag may have moved, but loads only what is missing. Callers that ask for the
// same reference with the same account at the same time share one pull, which
// is given up when the last of them leaves.
func (s *Store) Pull(ctx context.Context, req PullRequest) (Image, error) {
	ref, err := reference.Parse(req.Ref)
	if err != nil {
		return Image{}, fmt.Errorf("pull image: %w", err)
	}
	img, err := s.flights.do(ctx, s.ctx, &s.wg, pullKey(ref, req.Auth), func(ctx context.Context) (Image, error) {
		return s.pull(ctx, ref, req.Auth)
	})
	if err != nil {
		return Image{}, fmt.Errorf("pull image %s: %w", ref, err)
	}
	return img, nil
}

// diskFull says what to do about the one failure that only the node's owner can end.
func (s *Store) diskFull(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("the disk with %s is full (or out of inodes); remove images or make room: %w: %w", s.cfg.Root, err, errdefs.ErrResourceExhausted)
	}
	return err
}

// pullKey tells pulls apart by account too: what one account may load is not
// handed to another.
func pullKey(ref reference.Ref, a *Auth) string {
	if a == nil {
		return ref.String()
	}
	secret, _ := json.Marshal(a)
	sum := sha256.Sum256(secret)
	return ref.String() + " " + hex.EncodeToString(sum[:])
}

// pull is one pull under way.
type pull struct {
	s     *Store
	ref   reference.Ref
	conn  *registry.Pull
	bytes atomic.Int64 // over the network
}

func (s *Store) pull(ctx context.Context, ref reference.Ref, a *Auth) (img Image, err error) {
	begin := time.Now()
	p := &pull{s: s, ref: ref}
	s.cfg.Observer.PullStarted(ref.String())
	defer func() { s.cfg.Observer.PullFinished(ref.String(), time.Since(begin), p.bytes.Load(), errorClass(err)) }()
	ctx, dog := watch(ctx, s.cfg.ProgressTimeout)
	defer dog.stop()
	p.conn, err = s.registry.Begin(ctx, ref, a, func(n int64) {
		p.bytes.Add(n)
		dog.count(n)
	})
	if err != nil {
		return Image{}, err
	}
	defer p.conn.Close()
	img, err = p.run(ctx, dog)
	if err != nil && ctx.Err() != nil {
		return Image{}, context.Cause(ctx)
	}
	return img, s.diskFull(err)
}

func (p *pull) run(ctx context.Context, dog *watchdog) (Image, error) {
	top, err := p.conn.Resolve(ctx)
	if err == nil {
		err = failpoint.At("i1")
	}
	if err != nil {
		return Image{}, err
	}
	dog.kick()
	names := p.names(top.Digest)
	if en, ok := p.s.known(top.Digest); ok {
		if img, ok := p.s.rename(ctx, en, names, nil); ok {
			return img, nil
		}
	}
	desc, raw, m, err := p.manifest(ctx, top, dog)
	if err != nil {
		return Image{}, err
	}
	c := complete{manifest: raw, names: names, tops: []digest.Digest{top.Digest, desc.Digest}}
	if c.config, err = p.conn.Document(ctx, m.Config, manifest.MaxConfig); err != nil {
		return Image{}, err
	}
	dog.kick()
	cfg, err := manifest.ParseConfig(c.config, len(m.Layers))
	if err == nil {
		err = failpoint.At("i2")
	}
	if err != nil {
		return Image{}, err
	}
	begin := time.Now()
	got, err := p.s.fetchLayers(ctx, m.Layers, cfg.RootFS.DiffIDs, p.conn, dog)
	if err != nil {
		return Image{}, err
	}
	fetched := time.Now()
	dog.hold()
	ls, err := p.s.commit(ctx, got)
	if err != nil {
		return Image{}, err
	}
	committed := time.Now()
	img, err := p.s.add(ctx, c, ls)
	if err == nil {
		p.s.log.Info("image pulled", "image", img.ID, "ref", p.ref.String(), "bytes", p.bytes.Load(),
			"load", fetched.Sub(begin), "commit", committed.Sub(fetched), "record", time.Since(committed))
	}
	return img, err
}

// names are what the image is called after this pull.
func (p *pull) names(top digest.Digest) []string {
	byDigest := p.ref.WithDigest(top).String()
	if p.ref.Tag == "" {
		return []string{byDigest}
	}
	return []string{p.ref.String(), byDigest}
}

// manifest follows indexes to the manifest for this platform.
func (p *pull) manifest(ctx context.Context, desc ocispec.Descriptor, dog *watchdog) (ocispec.Descriptor, []byte, *ocispec.Manifest, error) {
	return followManifests(ctx, desc, p.s.cfg.Platform, func(d ocispec.Descriptor) ([]byte, error) {
		dog.kick()
		if !manifest.KnownType(d.MediaType) {
			// It lies where manifests lie; what is wrong with it is told by who reads it.
			d.MediaType = ocispec.MediaTypeImageManifest
		}
		return p.conn.Document(ctx, d, manifest.MaxManifest)
	})
}

// worth is how many bytes count as progress. A registry that sends one from time
// to time would otherwise keep a pull, a place for layers and the caller for ever.
const worth = 4 << 10

// watchdog ends work that makes no progress.
type watchdog struct {
	limit  time.Duration
	cancel context.CancelCauseFunc
	last   atomic.Int64 // monotonic nanoseconds since begin
	got    atomic.Int64 // bytes since then
	begin  time.Time
	timer  atomic.Pointer[time.Timer]
	held   atomic.Bool
}

func watch(ctx context.Context, limit time.Duration) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watchdog{limit: limit, cancel: cancel, begin: time.Now()}
	w.timer.Store(time.AfterFunc(limit, w.look))
	return ctx, w
}

// kick tells of progress.
func (w *watchdog) kick() { w.last.Store(int64(time.Since(w.begin))) }

// count tells of bytes that arrived or were unpacked; enough of them are progress.
func (w *watchdog) count(n int64) {
	if w.got.Add(n) >= worth {
		w.got.Store(0)
		w.kick()
	}
}

// hold stops the watch for good: what follows is the disk's business.
func (w *watchdog) hold() { w.held.Store(true) }

func (w *watchdog) look() {
	idle := time.Since(w.begin) - time.Duration(w.last.Load())
	if w.held.Load() {
		w.kick()
		idle = 0
	}
	if idle >= w.limit {
		w.cancel(fmt.Errorf("nothing loaded or unpacked for %s: %w", w.limit, ErrNoProgress))
		return
	}
	if t := w.timer.Load(); t != nil {
		t.Reset(w.limit - idle)
	}
}

func (w *watchdog) stop() {
	if t := w.timer.Swap(nil); t != nil {
		t.Stop()
	}
	w.cancel(nil)
}

// errorClass is the class of an error for metrics.
func errorClass(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, ErrNoProgress):
		return "no_progress"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded):
		return "deadline"
	case errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err):
		return "unauthenticated"
	case errdefs.IsNotFound(err):
		return "not_found"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return "disk_full"
	case errdefs.IsInvalidArgument(err), errdefs.IsDataLoss(err), errdefs.IsResourceExhausted(err):
		return "invalid"
	case errdefs.IsUnavailable(err):
		return "unavailable"
	}
	return "other"
}
