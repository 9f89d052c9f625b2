package image

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/crid-project/crid/failpoint"
	"github.com/crid-project/crid/image/inflate"
	"github.com/crid-project/crid/image/layers"
	"github.com/crid-project/crid/image/manifest"
	"github.com/crid-project/crid/image/untar"
)

// blobs is where layers come from: a registry, or an archive being imported.
type blobs interface {
	Blob(ctx context.Context, desc ocispec.Descriptor) io.ReadCloser
}

// fetched is one layer of an image under way: there already, or unpacked.
type fetched struct {
	diffID, chain digest.Digest
	layer         *layers.Layer // held, if it was there
	part          *part         // else
}

// part is an unpacked layer that is not committed yet. Pulls that want the
// same layer share it; the last to let go removes what was not committed.
type part struct {
	ingest *layers.Ingest
	result *untar.Result
	diffID digest.Digest
	users  atomic.Int32
	shared *loading
	store  *layers.Store
	layer  atomic.Pointer[layers.Layer] // once one of them has committed it
}

// committed keeps the layer that the part has become until all who share the
// part have it: an image that one of them has recorded may be removed before.
func (p *part) committed(l *layers.Layer) {
	if p.layer.CompareAndSwap(nil, l) {
		p.store.Hold([]*layers.Layer{l})
	}
}

func (p *part) release() {
	if p.users.Add(-1) == 0 {
		p.shared.forget(p)
		p.ingest.Abort()
		p.store.Release(p.layer.Load())
	}
}

// fetchLayers brings all layers of an image here, beside each other. On error
// nothing is left.
func (s *Store) fetchLayers(ctx context.Context, descs []ocispec.Descriptor, diffIDs []digest.Digest, from blobs, dog *watchdog) (_ []*fetched, err error) {
	got := make([]*fetched, len(descs))
	byDiff := map[digest.Digest]*fetched{}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for i := range descs {
		f := &fetched{diffID: diffIDs[i], chain: manifest.ChainID(diffIDs[:i+1])}
		if i > 0 {
			f.chain = digest.FromString(got[i-1].chain.String() + " " + diffIDs[i].String())
		}
		got[i] = f
		if l, ok := s.layers.Acquire(layers.ByDiff(f.diffID), layers.ByChain(f.chain)); ok {
			f.layer = l
			continue
		}
		if byDiff[f.diffID] != nil {
			continue // the same layer twice in one image: settled by commit
		}
		byDiff[f.diffID] = f
		wg.Go(func() {
			if err := s.fetchLayer(ctx, f, descs[i], from, dog); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		s.letGo(got)
		return nil, context.Cause(ctx)
	}
	return got, nil
}

// letGo gives back what a pull that failed has got.
func (s *Store) letGo(got []*fetched) {
	for _, f := range got {
		if f == nil {
			continue
		}
		if f.layer != nil {
			s.layers.Release(f.layer)
		}
		if f.part != nil {
			f.part.release()
		}
		f.layer, f.part = nil, nil
	}
}

// fetchLayer gets one layer, together with all who want it at this moment.
func (s *Store) fetchLayer(ctx context.Context, f *fetched, desc ocispec.Descriptor, from blobs, dog *watchdog) error {
	p, err := s.loadShared(ctx, f.diffID, dog, func(ctx context.Context, progress func(int64)) (*part, error) {
		return s.unpackBlob(ctx, desc, f.diffID, from, progress)
	})
	if err != nil {
		return fmt.Errorf("layer %s: %w", desc.Digest, err)
	}
	f.part = p
	return nil
}

// slot waits for one of the places for layers in progress.
func (s *Store) slot(ctx context.Context, progress func(int64)) (func(), error) {
	// Waiting for a place is not the registry's fault: it counts as progress.
	progress(worth)
	tick := time.NewTicker(max(s.cfg.ProgressTimeout/4, time.Millisecond))
	defer tick.Stop()
	for waiting := true; waiting; progress(worth) {
		select {
		case s.slots <- struct{}{}:
			waiting = false
		case <-tick.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	s.cfg.Observer.LayersInProgress(int(s.busy.Add(1)))
	return func() {
		<-s.slots
		s.cfg.Observer.LayersInProgress(int(s.busy.Add(-1)))
	}, nil
}

// unpackBlob reads a blob once, from the network to the disk: its digest, its
// decompression, the digest of that and the unpacking all in one pass.
func (s *Store) unpackBlob(ctx context.Context, desc ocispec.Descriptor, diffID digest.Digest, from blobs, progress func(int64)) (_ *part, err error) {
	done, err := s.slot(ctx, progress)
	if err != nil {
		return nil, err
	}
	defer done()
	body := from.Blob(ctx, desc)
	defer body.Close()
	in, err := s.layers.NewIngest()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			in.Abort()
		}
	}()
	if err := failpoint.At("i5"); err != nil {
		return nil, err
	}
	limits := s.unpackLimits(desc.Size)
	limits.Progress = func(n int64) {
		failpoint.Pass("i6")
		progress((n + 1023) / 1024) // what is unpacked may be a thousand times what was loaded
	}
	res, err := unpackStream(ctx, body, desc, diffID, in.Dir(), limits)
	if err != nil {
		return nil, err
	}
	progress(worth)
	p := &part{ingest: in, result: res, diffID: diffID, shared: &s.loading, store: s.layers}
	if res.SelfContained() {
		err = p.seal(layers.ByDiff(diffID))
	}
	if err == nil {
		err = failpoint.At("i4")
	}
	if err != nil {
		return nil, err // and not a part that is being removed, which others would share
	}
	return p, nil
}

func (p *part) seal(k layers.Key) error {
	return p.ingest.Seal(layers.Meta{Key: k, DiffID: p.diffID, Bytes: p.result.Disk, Inodes: p.result.Inodes, Empty: p.result.Entries == 0, Root: p.result.Root})
}

// unpackStream is the pass itself.
func unpackStream(ctx context.Context, body io.Reader, desc ocispec.Descriptor, diffID digest.Digest, dir string, limits untar.Options) (*untar.Result, error) {
	blob := desc.Digest.Algorithm().Digester()
	size := &counter{}
	raw := io.TeeReader(body, io.MultiWriter(blob.Hash(), size))
	plain, err := decompress(raw)
	if err != nil {
		return nil, err
	}
	diff := diffID.Algorithm().Digester()
	ahead := readAhead(ctx, plain)
	res, err := untar.Unpack(ctx, io.TeeReader(ahead, diff.Hash()), dir, limits)
	if err == nil {
		// What follows the tar's end belongs to the digests too.
		_, err = io.Copy(diff.Hash(), io.LimitReader(ahead, 64<<20))
	}
	if cerr := ahead.Close(); err == nil {
		err = cerr
	}
	plain.Close()
	if err == nil {
		_, err = io.Copy(io.Discard, raw)
	}
	if err != nil {
		return nil, spoiled(err)
	}
	if got := blob.Digest(); got != desc.Digest || (desc.Size >= 0 && size.n != desc.Size) {
		return nil, fmt.Errorf("the layer loaded is %s of %d bytes, not %s of %d: %w", got, size.n, desc.Digest, desc.Size, errdefs.ErrDataLoss)
	}
	if got := diff.Digest(); got != diffID {
		return nil, fmt.Errorf("the layer unpacks to %s, the image's configuration says %s: %w", got, diffID, errdefs.ErrDataLoss)
	}
	return res, nil
}

// spoiled types the errors of decompressing and unpacking that are neither the
// network's nor the disk's: they are the content's.
func spoiled(err error) error {
	var disk syscall.Errno
	if errors.As(err, &disk) || errdefs.Resolve(err) != errdefs.ErrUnknown { //nolint:errorlint // Resolve answers the sentinel itself
		return err
	}
	return fmt.Errorf("%w: %w", err, errdefs.ErrDataLoss)
}

type counter struct{ n int64 }

func (c *counter) Write(b []byte) (int, error) {
	if err := failpoint.At("i3"); err != nil {
		return 0, err
	}
	c.n += int64(len(b))
	return len(b), nil
}

// maxWindow bounds the memory that a zstd layer may ask for, in bytes.
const maxWindow = 128 << 20

// decompress opens a layer's stream. Whatever the media type says, the
// stream's first bytes decide between plain and compressed, as in other
// runtimes: registries hold many images with the wrong type. The digests
// settle whether the result is right.
func decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 128<<10)
	magic, err := br.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case len(magic) >= 2 && magic[0] == 0x1f && magic[1] == 0x8b:
		z, err := inflate.NewReader(br)
		if err != nil {
			return nil, fmt.Errorf("read gzip: %w", err)
		}
		return z, nil
	case len(magic) == 4 && magic[0] == 0x28 && magic[1] == 0xb5 && magic[2] == 0x2f && magic[3] == 0xfd,
		len(magic) == 4 && magic[0]&0xf0 == 0x50 && magic[1] == 0x2a && magic[2] == 0x4d && magic[3] == 0x18:
		z, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, fmt.Errorf("read zstd: %w", err)
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(br), nil
}
