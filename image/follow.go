package image

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/crid-project/crid/image/manifest"
)

// followManifests goes from a descriptor through indexes to the manifest for
// the platform. load answers verified documents; an importer's and a
// registry's differ only there. Depth and the number of documents are bounded,
// so that indexes that name each other end.
func followManifests(ctx context.Context, desc ocispec.Descriptor, m platforms.MatchComparer,
	load func(ocispec.Descriptor) ([]byte, error),
) (ocispec.Descriptor, []byte, *ocispec.Manifest, error) {
	f := follower{platform: m, load: load, seen: map[digest.Digest]bool{}}
	return f.follow(ctx, desc, 0)
}

type follower struct {
	platform platforms.MatchComparer
	load     func(ocispec.Descriptor) ([]byte, error)
	seen     map[digest.Digest]bool
}

// maxDocuments bounds the indexes and manifests read for one image.
const maxDocuments = 32

func (f *follower) follow(ctx context.Context, desc ocispec.Descriptor, depth int) (ocispec.Descriptor, []byte, *ocispec.Manifest, error) {
	none := ocispec.Descriptor{}
	if depth > manifest.MaxDepth || len(f.seen) >= maxDocuments || f.seen[desc.Digest] {
		return none, nil, nil, fmt.Errorf("read image index: indexes are nested more than %d deep or in a circle: %w", manifest.MaxDepth, errdefs.ErrInvalidArgument)
	}
	if err := ctx.Err(); err != nil {
		return none, nil, nil, context.Cause(ctx)
	}
	f.seen[desc.Digest] = true
	raw, err := f.load(desc)
	if err != nil {
		return none, nil, nil, err
	}
	doc, err := manifest.Parse(raw, desc.MediaType)
	if err != nil {
		return none, nil, nil, err
	}
	if doc.Kind == manifest.KindManifest {
		return desc, raw, &doc.Manifest, nil
	}
	fit, err := manifest.Choose(doc.Index, f.platform)
	if err != nil {
		return none, nil, nil, err
	}
	// The best fit decides. Entries without a platform are tried in turn,
	// because only a look inside tells whether they lead anywhere.
	var first error
	for _, d := range fit {
		got, raw, m, err := f.follow(ctx, d, depth+1)
		if err == nil {
			return got, raw, m, nil
		}
		if first == nil {
			first = err
		}
		if d.Platform != nil || !errdefs.IsNotFound(err) {
			break
		}
	}
	return none, nil, nil, first
}
