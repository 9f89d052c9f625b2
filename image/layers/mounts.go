package layers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/image/record"
	"github.com/crid-project/crid/image/tree"
)

// imageMount is an image mounted read-only for a container.
type imageMount struct {
	rec    mountRecord
	layers []*Layer
}

type mountRecord struct {
	Key    string   `json:"key"`
	Target string   `json:"target"`
	Layers []string `json:"layers"`
	// Base is where the whole image is mounted, with a sub path.
	Base string `json:"base,omitempty"`
}

// mountName is the file name of a mount's record; keys are the caller's.
func mountName(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:16])
}

// MountImage mounts layers read-only at target, or what subPath names inside
// them (a directory or a file, resolved inside the image). target is made, of
// the kind needed. Idempotent by key.
func (s *Store) MountImage(ctx context.Context, key string, ls []*Layer, target, subPath string) error {
	if key == "" || len(key) > 512 || !filepath.IsAbs(target) {
		return fmt.Errorf("mount image: key of %d bytes, target %q: %w", len(key), target, errdefs.ErrInvalidArgument)
	}
	done, err := s.turns.take(ctx, "mount "+key)
	if err != nil {
		return fmt.Errorf("mount image at %s: %w", target, err)
	}
	defer done()
	s.mu.Lock()
	_, there := s.mounts[key]
	s.mu.Unlock()
	if there {
		return nil
	}
	if !s.overlay || len(stack(ls)) > maxLower {
		return fmt.Errorf("mount image: image volumes need overlayfs and at most %d layers: %w", maxLower, errdefs.ErrNotImplemented)
	}
	m := &imageMount{layers: stack(ls), rec: mountRecord{Key: key, Target: target}}
	for _, l := range m.layers {
		m.rec.Layers = append(m.rec.Layers, l.Name())
	}
	if subPath != "" && filepath.Clean("/"+subPath) != "/" {
		m.rec.Base = s.path(mountDir, mountName(key))
	}
	s.Hold(m.layers)
	err = record.Write(s.path(mountDir, mountName(key)+".json"), m.rec, false)
	if err == nil {
		err = s.mountImage(m, subPath)
	}
	if err != nil {
		_ = s.unmount(ctx, m)
		s.Release(m.layers...)
		return fmt.Errorf("mount image at %s: %w", target, err)
	}
	s.mu.Lock()
	s.mounts[key] = m
	s.mu.Unlock()
	return nil
}

func (s *Store) mountImage(m *imageMount, subPath string) error {
	ro := s.readOnly(s.lowers(m.layers), nil)
	whole := mount.Mount{Type: ro.Type, Source: ro.Source, Options: ro.Options}
	if m.rec.Base == "" {
		if err := os.MkdirAll(m.rec.Target, 0o755); err != nil {
			return err
		}
		return whole.Mount(m.rec.Target)
	}
	if err := os.MkdirAll(m.rec.Base, 0o700); err != nil {
		return err
	}
	if err := whole.Mount(m.rec.Base); err != nil {
		return err
	}
	root, err := unix.Open(m.rec.Base, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, subPath, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV})
	if err != nil {
		if errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("sub path %q is not in the image: %w", subPath, errdefs.ErrNotFound)
		}
		return fmt.Errorf("sub path %q: %w", subPath, err)
	}
	defer unix.Close(fd)
	return bindTo(fd, m.rec.Target)
}

// bindTo binds an open file or directory read-only to a target that it makes.
func bindTo(fd int, target string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
	case unix.S_IFREG:
		f, err := os.OpenFile(target, os.O_CREATE|os.O_WRONLY|unix.O_NOFOLLOW, 0o644)
		if err != nil {
			return err
		}
		f.Close()
	default:
		return fmt.Errorf("the sub path is neither a directory nor a regular file: %w", errdefs.ErrInvalidArgument)
	}
	clone, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("clone mount: %w", err)
	}
	defer unix.Close(clone)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(clone, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return fmt.Errorf("make mount read-only: %w", err)
	}
	if err := unix.MoveMount(clone, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move mount to %s: %w", target, err)
	}
	return nil
}

// UnmountImage takes an image mount away, with its target. Idempotent; an
// unknown key is fine.
func (s *Store) UnmountImage(ctx context.Context, key string) error {
	done, err := s.turns.take(ctx, "mount "+key)
	if err != nil {
		return fmt.Errorf("unmount image: %w", err)
	}
	defer done()
	s.mu.Lock()
	m := s.mounts[key]
	s.mu.Unlock()
	if m == nil {
		return nil
	}
	if err := s.unmount(ctx, m); err != nil {
		return fmt.Errorf("unmount image from %s: %w", m.rec.Target, err)
	}
	s.mu.Lock()
	mine := s.mounts[key] == m
	if mine {
		delete(s.mounts, key)
	}
	s.mu.Unlock()
	if mine {
		s.Release(m.layers...)
	}
	return nil
}

func (s *Store) unmount(ctx context.Context, m *imageMount) error {
	for _, p := range []string{m.rec.Target, m.rec.Base} {
		if p == "" {
			continue
		}
		for range 16 { // as often as something was mounted over it
			err := unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
			if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
				break
			}
			if err != nil {
				return err
			}
		}
		// Only ever an empty directory or the empty file that was mounted on.
		if st, err := os.Lstat(p); err == nil && (st.IsDir() || (st.Mode().IsRegular() && st.Size() == 0)) {
			_ = os.Remove(p)
		}
	}
	return tree.Remove(ctx, s.path(mountDir, mountName(m.rec.Key)+".json"))
}

// MountedImages lists the keys of image mounts with their targets.
func (s *Store) MountedImages() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]string, len(s.mounts))
	for k, m := range s.mounts {
		out[k] = m.rec.Target
	}
	return out
}

// readMounts takes up what earlier processes mounted.
func (s *Store) readMounts() {
	byName := map[string]*Layer{}
	for _, l := range s.byKey {
		byName[l.Name()] = l
	}
	entries, _ := os.ReadDir(s.path(mountDir))
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".json" {
			continue
		}
		m := &imageMount{}
		if err := record.Read(s.path(mountDir, e.Name()), &m.rec); err != nil || mountName(m.rec.Key)+".json" != e.Name() {
			s.log.Warn("image mount dropped", "record", e.Name(), "err", err)
			_ = os.Remove(s.path(mountDir, e.Name()))
			continue
		}
		for _, n := range m.rec.Layers {
			if l := byName[n]; l != nil {
				l.refs++
				m.layers = append(m.layers, l)
			}
		}
		s.mounts[m.rec.Key] = m
	}
}
