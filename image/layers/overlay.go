package layers

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/image/tree"
)

// maxLower is how many lower directories overlayfs stacks (OVL_MAX_STACK).
// With names of three characters 500 of them take 2,000 bytes of the page that
// mount options may fill, relative to their directory, which the shim's mount
// code changes into for long options. Deeper images are copied.
const maxLower = 500

// mountsOf says how a prepared root file system is mounted.
func (s *Store) mountsOf(r *rootfs) Rootfs {
	id, opt := r.rec.ID, r.rec.Options
	var extra []string
	if len(opt.UIDs) > 0 {
		extra = []string{idmapOption("uidmap", opt.UIDs), idmapOption("gidmap", opt.GIDs)}
	}
	upper := s.container(id, upperDir)
	if r.rec.Native || (len(r.layers) == 0 && !opt.ReadOnly) {
		access := "rw"
		if opt.ReadOnly {
			access = "ro"
		}
		if !r.rec.Native {
			extra = nil // an empty writable layer is the mapped root's already
		}
		return Rootfs{UpperDir: upper, Mounts: []Mount{{Type: "bind", Source: upper, Options: append([]string{"rbind", access}, extra...)}}}
	}
	lowers := s.lowers(r.layers)
	if opt.ReadOnly {
		return Rootfs{Mounts: []Mount{s.readOnly(lowers, extra)}}
	}
	o := append(extra, s.overlayOptions()...)
	o = append(o, "workdir="+s.container(id, workDir), "upperdir="+upper, "lowerdir="+strings.Join(lowers, ":"))
	return Rootfs{UpperDir: upper, Mounts: []Mount{{Type: "overlay", Source: "overlay", Options: o}}}
}

// lowers are the directories for lowerdir=, the topmost first.
func (s *Store) lowers(ls []*Layer) []string {
	out := make([]string, len(ls))
	for i, l := range ls {
		out[len(ls)-1-i] = s.dir(l)
	}
	return out
}

// readOnly mounts layers without a writable one. overlayfs wants two, so a
// single layer gets an empty one below; a bind would show its whiteouts.
func (s *Store) readOnly(lowers, extra []string) Mount {
	for len(lowers) < 2 {
		// An empty directory in the layers' own directory, so that the common
		// prefix, which is what gets mapped, is that directory.
		lowers = append(lowers, s.path(layerDir, ".none"+fmt.Sprint(len(lowers))))
	}
	o := append(extra, s.overlayOptions()...)
	return Mount{Type: "overlay", Source: "overlay", Options: append(o, "ro", "lowerdir="+strings.Join(lowers, ":"))}
}

func (s *Store) overlayOptions() []string {
	if s.indexOK {
		return []string{"index=off"} // an index would tie the writable layer to inode numbers of the layers
	}
	return nil
}

// chooseSnapshotter finds out by a real mount whether overlayfs works here.
func (s *Store) chooseSnapshotter() error {
	if _, err := os.Stat("/sys/module/overlay/parameters/index"); err == nil {
		s.indexOK = true
	}
	for _, n := range []string{".none0", ".none1"} {
		if err := os.Mkdir(s.path(layerDir, n), 0o755); err != nil && !os.IsExist(err) {
			s.log.Warn("image volumes of a single layer will not mount", "err", err)
		}
	}
	switch s.cfg.Snapshotter {
	case "native":
		return nil
	case "", "auto", "overlay", "overlayfs":
	default:
		return fmt.Errorf("open layer store: unknown snapshotter %q; overlay, native and auto are known: %w", s.cfg.Snapshotter, errdefs.ErrInvalidArgument)
	}
	err := s.tryOverlay()
	if err == nil {
		s.overlay = true
		return nil
	}
	for _, disk := range []error{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EIO} {
		if errors.Is(err, disk) {
			// The disk's trouble says nothing of overlayfs, and passes.
			s.log.Warn("overlayfs could not be tried; taken as working", "err", err)
			s.overlay = true
			return nil
		}
	}
	if s.cfg.Snapshotter == "" || s.cfg.Snapshotter == "auto" {
		s.log.Warn("overlayfs does not work here; every container gets a copy of its image", "err", err)
		return nil
	}
	return fmt.Errorf("open layer store: overlayfs does not work on %s (set snapshotter = \"native\" to copy images instead): %w", s.cfg.Root, err)
}

func (s *Store) tryOverlay() error {
	dir, err := os.MkdirTemp(s.path(ingestDir), "try-")
	if err != nil {
		return err
	}
	defer func() { _ = tree.Remove(s.ctx, dir) }()
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			return err
		}
	}
	if err := unix.Mknod(filepath.Join(dir, "lower", "whiteout"), unix.S_IFCHR, 0); err != nil {
		return fmt.Errorf("make a whiteout: %w", err)
	}
	if err := unix.Setxattr(filepath.Join(dir, "lower"), "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		return fmt.Errorf("set a trusted attribute: %w", err)
	}
	m := mount.Mount{Type: "overlay", Source: "overlay", Options: append(s.overlayOptions(),
		"lowerdir="+filepath.Join(dir, "lower"), "upperdir="+filepath.Join(dir, "upper"), "workdir="+filepath.Join(dir, "work"))}
	target := filepath.Join(dir, "merged")
	if err := m.Mount(target); err != nil {
		return err
	}
	return unix.Unmount(target, unix.MNT_DETACH)
}

// Overlay tells whether root file systems are overlay mounts (else copies).
func (s *Store) Overlay() bool { return s.overlay }
