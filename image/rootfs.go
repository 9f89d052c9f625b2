package image

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/crid-project/crid/image/layers"
)

// RootfsOptions say how a root file system is used; see [layers.Options].
type RootfsOptions = layers.Options

// Rootfs is how to mount a root file system; see [layers.Rootfs].
type Rootfs = layers.Rootfs

// Mount is one mount, as for mount(8) and the shim's API.
type Mount = layers.Mount

// hold answers an image's layers, held for the caller.
func (s *Store) hold(img Image) ([]*layers.Layer, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	en := s.images[img.ID]
	if en == nil {
		return nil, fmt.Errorf("use image %s: it was removed; pull it again: %w", img.ID, errdefs.ErrNotFound)
	}
	s.layers.Hold(en.layers)
	return en.layers, nil
}

// PrepareRootfs makes the writable layer of container id over an image and
// answers the mounts for the shim. It is idempotent, also over restarts. The
// image's layers stay until RemoveRootfs, even if the image is removed.
func (s *Store) PrepareRootfs(ctx context.Context, id string, img Image, opt RootfsOptions) (Rootfs, error) {
	if r, err := s.layers.Rootfs(id); err == nil {
		return r, nil
	}
	ls, err := s.hold(img)
	if err != nil {
		return Rootfs{}, fmt.Errorf("prepare root file system: %w", err)
	}
	defer s.layers.Release(ls...)
	r, err := s.layers.PrepareRootfs(ctx, id, ls, opt)
	return r, s.diskFull(err)
}

// Rootfs answers what PrepareRootfs did for id, also by an earlier process;
// errdefs.ErrNotFound if nothing.
func (s *Store) Rootfs(id string) (Rootfs, error) { return s.layers.Rootfs(id) }

// RemoveRootfs deletes the writable layer of container id. Idempotent. It
// never crosses a mount: while one is left in it, it answers
// errdefs.ErrFailedPrecondition.
func (s *Store) RemoveRootfs(ctx context.Context, id string) error {
	return s.layers.RemoveRootfs(ctx, id)
}

// Rootfses lists the ids that have a root file system, for sweeping.
func (s *Store) Rootfses() []string { return s.layers.Roots() }

// RootfsUsage is what a container's writable layer takes on disk, cached for
// some seconds; errdefs.ErrNotFound if there is none.
func (s *Store) RootfsUsage(ctx context.Context, id string) (bytes, inodes uint64, err error) {
	u, err := s.layers.RootfsUsage(ctx, id)
	return u.Bytes, u.Inodes, err
}

// MountImage mounts an image, or what subPath names in it (a directory or a
// regular file), read-only at target, which is made. Idempotent by key.
func (s *Store) MountImage(ctx context.Context, key string, img Image, target, subPath string) error {
	ls, err := s.hold(img)
	if err != nil {
		return fmt.Errorf("mount image: %w", err)
	}
	defer s.layers.Release(ls...)
	return s.layers.MountImage(ctx, key, ls, target, subPath)
}

// UnmountImage undoes MountImage and removes the target. Idempotent.
func (s *Store) UnmountImage(ctx context.Context, key string) error {
	return s.layers.UnmountImage(ctx, key)
}

// MountedImages answers the targets of image mounts by key, for sweeping.
func (s *Store) MountedImages() map[string]string { return s.layers.MountedImages() }

// Explain lists what a pull of a reference would ask, in order, without secrets.
func (s *Store) Explain(ctx context.Context, ref string) ([]string, error) {
	r, err := parseRef(ref)
	if err != nil {
		return nil, fmt.Errorf("explain: %w", err)
	}
	lines, err := s.registry.Explain(ctx, r.Host(), repository(r))
	if err != nil {
		return nil, fmt.Errorf("explain %s: %w", r, err)
	}
	return append([]string{ref + " is " + r.String()}, lines...), nil
}
