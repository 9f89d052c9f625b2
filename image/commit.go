package image

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/crid-project/crid/failpoint"
	"github.com/crid-project/crid/image/layers"
	"github.com/crid-project/crid/image/untar"
)

// commit puts the layers of an image in their place; they become durable
// later, and until then are not trusted after a power failure.
// It answers them lowest first, held for the caller, and uses up got.
func (s *Store) commit(ctx context.Context, got []*fetched) (_ []*layers.Layer, err error) {
	defer s.letGo(got)
	s.pair(got)
	if err := s.complete(ctx, got); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var ls []*layers.Layer
	for _, f := range got {
		if f.part != nil {
			s.loading.forget(f.part)
		}
		l := f.layer
		if l != nil {
			f.layer = nil // the hold moves on
		} else if l, err = f.part.ingest.Commit(); err != nil {
			s.layers.Release(ls...)
			return nil, fmt.Errorf("layer %s: %w", f.diffID, err)
		} else {
			f.part.committed(l)
		}
		ls = append(ls, l)
	}
	if err := failpoint.At("i7"); err != nil {
		s.layers.Release(ls...)
		return nil, err
	}
	s.layers.SyncSoon()
	return ls, nil
}

// pair gives a layer that occurs again in the image the part of its first occurrence.
func (s *Store) pair(got []*fetched) {
	first := map[digest.Digest]*fetched{}
	for _, f := range got {
		if f.part != nil {
			first[f.diffID] = f
		}
	}
	for _, f := range got {
		if f.layer == nil && f.part == nil {
			f.part = first[f.diffID].part
			f.part.users.Add(1)
		}
	}
}

// complete settles layers that depend on those below, from the bottom up.
func (s *Store) complete(ctx context.Context, got []*fetched) error {
	for i, f := range got {
		if f.part == nil || f.part.result.SelfContained() {
			continue
		}
		var parents []string
		for j := i - 1; j >= 0; j-- {
			parents = append(parents, s.dirOf(got[j]))
		}
		if err := untar.Complete(ctx, f.part.ingest.Dir(), f.part.result, parents); err != nil {
			return err
		}
		if err := f.part.seal(layers.ByChain(f.chain)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) dirOf(f *fetched) string {
	if f.layer != nil {
		return s.layers.Dir(f.layer)
	}
	return f.part.ingest.Dir()
}
