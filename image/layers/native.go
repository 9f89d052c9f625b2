package layers

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/image/tree"
)

// copyLayers makes a root file system by copying layer over layer, for where
// overlayfs is missing and for images deeper than it stacks.
func (s *Store) copyLayers(ctx context.Context, r *rootfs) error {
	target := s.container(r.rec.ID, upperDir)
	if err := tree.Remove(ctx, target); err != nil {
		return err
	}
	if err := os.Mkdir(target, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := unix.Fchmodat(unix.AT_FDCWD, target, 0o755, 0); err != nil {
		return err
	}
	for _, l := range r.layers {
		if err := tree.Overlay(ctx, s.dir(l), target, l.Root); err != nil {
			return fmt.Errorf("copy layer %s: %w", l.Name(), err)
		}
	}
	return nil
}
