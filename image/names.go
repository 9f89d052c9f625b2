package image

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/crid-project/crid/image/reference"
)

// refreshNames rebuilds the tags and digests of an image from the name table,
// with s.mu held for writing (or before anybody else can see the store).
func (s *Store) refreshNames(en *entry) {
	img := en.img
	img.Tags, img.Digests = nil, nil
	for n, id := range s.names {
		if id != img.ID {
			continue
		}
		if strings.Contains(n, "@") {
			img.Digests = append(img.Digests, n)
		} else {
			img.Tags = append(img.Tags, n)
		}
	}
	slices.Sort(img.Tags)
	slices.Sort(img.Digests)
	img.Pinned = s.pinned(img)
	en.img = img
}

func (s *Store) pinned(img Image) bool {
	for _, pattern := range s.cfg.Pinned {
		prefix, many := strings.CutSuffix(pattern, "*")
		full := pattern
		if r, err := reference.Parse(pattern); err == nil {
			full = r.String()
		}
		for _, n := range append(slices.Clone(img.Tags), img.Digests...) {
			if n == full || (many && strings.HasPrefix(n, prefix)) {
				return true
			}
		}
	}
	return false
}

// List answers all images, by id.
func (s *Store) List() []Image {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]Image, 0, len(s.images))
	for _, en := range s.images {
		out = append(out, en.img)
	}
	slices.SortFunc(out, func(a, b Image) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// minPrefix is how many hex digits of an id are enough to name an image.
const minPrefix = 4

// Resolve finds an image by tag, digest, short name, id or unique prefix of an
// id (four hex digits or more). errdefs.ErrNotFound if there is none;
// errdefs.ErrInvalidArgument for what is no reference, and for a prefix of
// several images.
func (s *Store) Resolve(refOrID string) (Image, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	en, err := s.find(refOrID)
	if err != nil {
		return Image{}, err
	}
	return en.img, nil
}

func (s *Store) find(refOrID string) (*entry, error) {
	if en := s.images[refOrID]; en != nil {
		return en, nil
	}
	if en := s.images[s.names[refOrID]]; en != nil {
		return en, nil
	}
	hex := strings.TrimPrefix(refOrID, "sha256:")
	if len(hex) == 64 && reference.IsHex(hex) {
		if en := s.images["sha256:"+hex]; en != nil {
			return en, nil
		}
	}
	r, err := reference.Parse(refOrID)
	if err == nil {
		if en := s.images[s.names[r.String()]]; en != nil {
			return en, nil
		}
	}
	if len(hex) >= minPrefix && len(hex) <= 64 && reference.IsHex(hex) {
		var found *entry
		for id, en := range s.images {
			if strings.HasPrefix(id, "sha256:"+hex) {
				if found != nil {
					return nil, fmt.Errorf("find image %q: more than one id begins so: %w", refOrID, errdefs.ErrInvalidArgument)
				}
				found = en
			}
		}
		if found != nil {
			return found, nil
		}
		if err != nil || len(hex) == 64 {
			return nil, fmt.Errorf("find image %q: %w", refOrID, errdefs.ErrNotFound)
		}
	}
	if err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("find image %s: %w", r, errdefs.ErrNotFound)
}

func parseRef(s string) (reference.Ref, error) { return reference.Parse(s) }

// repository is a reference's name without the host.
func repository(r reference.Ref) string { return strings.TrimPrefix(r.Name, r.Host()+"/") }
