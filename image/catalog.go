package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/crid-project/crid/failpoint"
	"github.com/crid-project/crid/image/layers"
	"github.com/crid-project/crid/image/record"
)

// complete is what an image record is made of, once its layers are in place.
type complete struct {
	config, manifest []byte
	// tops are the digests of the index and manifest that led here.
	tops []digest.Digest
	// names are full references that the image is to have.
	names []string
}

// write makes the caller the one that changes records.
func (s *Store) write(ctx context.Context) error {
	select {
	case s.writer <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *Store) written() { <-s.writer }

// add makes the image of a configuration, or gives the one there is more
// names. It takes over the caller's hold on the layers, also on error.
func (s *Store) add(ctx context.Context, c complete, ls []*layers.Layer) (Image, error) {
	if err := s.write(ctx); err != nil {
		s.layers.Release(ls...)
		return Image{}, fmt.Errorf("record image: %w", err)
	}
	defer s.written()
	id := digest.FromBytes(c.config).String()
	s.mu.RLock()
	en := s.images[id]
	s.mu.RUnlock()
	rec := imageRecord{ID: id, Config: c.config, Manifest: c.manifest, Tops: c.tops, Names: c.names, PulledAt: time.Now().UnixNano()}
	if en != nil {
		s.layers.Release(ls...)
		return s.extend(en, rec)
	}
	for _, l := range ls {
		rec.Layers = append(rec.Layers, l.Key)
	}
	img, err := describe(&rec, ls)
	if err == nil {
		en = &entry{img: img, layers: ls, tops: map[digest.Digest]bool{}}
		img, err = s.save(en, rec)
	}
	if err != nil {
		s.layers.Release(ls...)
		return Image{}, fmt.Errorf("record image: %w", err)
	}
	return img, nil
}

// extend adds names and digests to an image, with the writer's right held.
func (s *Store) extend(en *entry, rec imageRecord) (Image, error) {
	s.mu.RLock()
	news := false
	for _, n := range rec.Names {
		news = news || s.names[n] != en.img.ID
	}
	rec.Names = append(slices.Clone(rec.Names), append(slices.Clone(en.img.Tags), en.img.Digests...)...)
	for _, d := range rec.Tops {
		news = news || !en.tops[d]
	}
	for d := range en.tops {
		rec.Tops = append(rec.Tops, d)
	}
	for _, l := range en.layers {
		rec.Layers = append(rec.Layers, l.Key)
	}
	img := en.img
	s.mu.RUnlock()
	if !news {
		return img, nil
	}
	rec.PulledAt = img.PulledAt
	img, err := s.save(en, rec)
	if err != nil {
		return Image{}, fmt.Errorf("record image: %w", err)
	}
	return img, nil
}

// save writes a record and then shows the image, with the writer's right held.
// A tag that another image had moves here; that image stays, with its digests.
func (s *Store) save(en *entry, rec imageRecord) (Image, error) {
	slices.Sort(rec.Names)
	rec.Names = slices.Compact(rec.Names)
	slices.Sort(rec.Tops)
	rec.Tops = slices.Compact(rec.Tops)
	s.mu.RLock()
	rec.Seq = s.seq + 1
	s.mu.RUnlock()
	path := s.recordPath(rec.ID)
	// A new image's record need not be on the disk before its layers are.
	if err := record.Write(path, rec, en.size > 0); err != nil {
		return Image{}, err
	}
	if err := failpoint.At("i8"); err != nil {
		return Image{}, err
	}
	var size uint64
	if st, err := os.Stat(path); err == nil {
		size = uint64(st.Size())
	}
	s.mu.Lock()
	s.seq = rec.Seq
	s.recs += size - en.size
	en.seq, en.size = rec.Seq, size
	for _, d := range rec.Tops {
		en.tops[d] = true
	}
	s.images[rec.ID] = en
	robbed := map[*entry]bool{}
	for _, n := range rec.Names {
		if old := s.images[s.names[n]]; old != nil && old != en {
			robbed[old] = true
		}
		s.names[n] = rec.ID
	}
	s.refreshNames(en)
	for old := range robbed {
		s.refreshNames(old)
	}
	img := en.img
	s.mu.Unlock()
	for old := range robbed {
		s.rewrite(old)
	}
	return img, nil
}

// rewrite puts an image's names of now into its record. Where that fails the
// sequence numbers say, at the next start, which image has a name.
func (s *Store) rewrite(en *entry) {
	s.mu.RLock()
	img := en.img
	s.mu.RUnlock()
	var rec imageRecord
	err := record.Read(s.recordPath(img.ID), &rec)
	if err == nil {
		rec.Names = append(slices.Clone(img.Tags), img.Digests...)
		err = record.Write(s.recordPath(img.ID), rec, false)
	}
	if err != nil {
		s.log.Warn("image record not updated", "image", img.ID, "err", err)
	}
}

// known answers the image that an index or manifest digest has led to before.
func (s *Store) known(top digest.Digest) (*entry, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, en := range s.images {
		if en.tops[top] {
			return en, true
		}
	}
	return nil, false
}

// rename gives a known image more names, without loading anything. false: its
// record cannot be used any more, or it is gone.
func (s *Store) rename(ctx context.Context, en *entry, names []string, tops []digest.Digest) (Image, bool) {
	if s.write(ctx) != nil {
		return Image{}, false
	}
	defer s.written()
	s.mu.RLock()
	there := s.images[en.img.ID] == en
	s.mu.RUnlock()
	var rec imageRecord
	if !there || record.Read(s.recordPath(en.img.ID), &rec) != nil {
		return Image{}, false
	}
	img, err := s.extend(en, imageRecord{ID: rec.ID, Config: rec.Config, Manifest: rec.Manifest, Names: names, Tops: tops})
	return img, err == nil
}

// Remove takes an image away with all its tags and digests, whichever of them
// or its id names it (CRI's rule). Layers that containers still use stay until
// their root file systems go. Files are deleted after the answer, unless space
// is short: who removes images then counts on it. It is idempotent: an unknown
// image is fine.
func (s *Store) Remove(ctx context.Context, refOrID string) error {
	if err := s.write(ctx); err != nil {
		return fmt.Errorf("remove image: %w", err)
	}
	en, err := s.unrecord(refOrID)
	s.written()
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove image: %w", err)
	}
	s.layers.Release(en.layers...)
	s.layers.Reclaim(ctx)
	return nil
}

// unrecord removes an image's record and then its entry.
func (s *Store) unrecord(refOrID string) (*entry, error) {
	s.mu.RLock()
	en, err := s.find(refOrID)
	s.mu.RUnlock()
	if err != nil {
		return nil, err
	}
	id := en.img.ID
	if err := os.Remove(s.recordPath(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := failpoint.At("j1"); err != nil {
		return nil, err
	}
	if err := record.SyncDir(filepath.Join(s.cfg.Root, recordsDir)); err != nil {
		s.log.Warn("removal of an image is not on the disk yet", "image", id, "err", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.images, id)
	for n, owner := range s.names {
		if owner == id {
			delete(s.names, n)
		}
	}
	s.recs -= min(en.size, s.recs)
	return en, nil
}

// Usage is what all images take on disk, layers and records. It is cheap.
func (s *Store) Usage() (bytes, inodes uint64) {
	s.mu.RLock()
	recs, n := s.recs, uint64(len(s.images))
	s.mu.RUnlock()
	u := s.layers.Usage()
	return u.Bytes + recs, u.Inodes + n + uint64(s.layers.Count())
}
