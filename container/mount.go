package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/container/plan"
	"github.com/crid-project/crid/failpoint"
	"github.com/crid-project/crid/image"
	"github.com/crid-project/crid/image/inroot"
	"github.com/crid-project/crid/image/tree"
)

// Mount implements Kernel.
func (RealKernel) Mount(mounts []image.Mount, target string) error {
	all := make([]mount.Mount, len(mounts))
	for i, m := range mounts {
		all[i] = mount.Mount{Type: m.Type, Source: m.Source, Options: m.Options}
	}
	return mount.All(all, target)
}

// Unmount implements Kernel. A busy mount is detached: nothing of the container
// lives any more, so what keeps it busy looks in from outside.
func (RealKernel) Unmount(path string) error {
	infos, err := mountinfo.GetMounts(mountinfo.PrefixFilter(path))
	if err != nil {
		return fmt.Errorf("read mount table: %w", err)
	}
	// The newest first: what is mounted on top is unmounted first.
	for _, m := range slices.Backward(infos) {
		err := unix.Unmount(m.Mountpoint, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EBUSY) {
			err = unix.Unmount(m.Mountpoint, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		}
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", m.Mountpoint, err)
		}
	}
	return nil
}

// Mounts implements Kernel.
func (RealKernel) Mounts(path string) ([]string, error) {
	infos, err := mountinfo.GetMounts(mountinfo.PrefixFilter(path))
	if err != nil {
		return nil, fmt.Errorf("read mount table: %w", err)
	}
	out := make([]string, len(infos))
	for i, m := range infos {
		out[i] = m.Mountpoint
	}
	return out, nil
}

// mountRootfs prepares the writable layer and mounts it in the bundle, where
// the user lookup and the OCI runtime find it.
func (c *Containers) mountRootfs(ctx context.Context, id string, img image.Image, p *plan.Container) error {
	opt := image.RootfsOptions{}
	if p.UserNS != nil {
		opt.UIDs, opt.GIDs = p.UserNS.UIDs, p.UserNS.GIDs
	}
	root, err := c.Images.PrepareRootfs(ctx, id, img, opt)
	if err != nil {
		return fmt.Errorf("prepare root file system: %w", err)
	}
	if err := failpoint.At("c3"); err != nil {
		return err
	}
	perm := os.FileMode(0o700)
	if p.UserNS != nil {
		perm = 0o711 // the container's root, who is nobody here, must pass through
	}
	if err := os.MkdirAll(c.rootfs(id), perm); err != nil {
		return fmt.Errorf("make bundle: %w", err)
	}
	for _, d := range []string{c.Bundle(id), c.rootfs(id)} {
		if err := os.Chmod(d, perm); err != nil {
			return fmt.Errorf("make bundle: %w", err)
		}
	}
	if p.UserNS != nil {
		if err := LetPass(c.StateDir, filepath.Dir(c.Bundle(id))); err != nil {
			return err
		}
	}
	b, err := json.Marshal(root.Mounts)
	if err == nil {
		err = os.WriteFile(filepath.Join(c.Bundle(id), mountsFile), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("make bundle: %w", err)
	}
	if err := c.Kernel.Mount(root.Mounts, c.rootfs(id)); err != nil {
		return fmt.Errorf("mount root file system: %w", err)
	}
	return nil
}

// LetPass lets everybody pass through directories of ours (not read them), for
// the root of a user namespace, who is nobody special here and whose root file
// system lies below. Everything else stays closed.
func LetPass(dirs ...string) error {
	for _, d := range dirs {
		if err := os.Chmod(d, 0o711); err != nil { //nolint:gosec // that is what it is for
			return fmt.Errorf("open the way for a user namespace: %w", err)
		}
	}
	return nil
}

// mountsFile keeps, in the bundle, how the root file system is mounted.
const mountsFile = "mounts.json"

// remountRootfs mounts the root file system again if it is not: an interrupted
// start was cleared away together with its mount.
func (c *Containers) remountRootfs(id string) error {
	if at, err := c.Kernel.Mounts(c.rootfs(id)); err == nil && len(at) > 0 {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(c.Bundle(id), mountsFile))
	if err != nil {
		return fmt.Errorf("read bundle: %w", err)
	}
	var mounts []image.Mount
	if err := json.Unmarshal(b, &mounts); err != nil {
		return fmt.Errorf("decode mounts of the bundle: %w", err)
	}
	if err := c.Kernel.Mount(mounts, c.rootfs(id)); err != nil {
		return fmt.Errorf("mount root file system: %w", err)
	}
	return nil
}

// imageMount is where the image of mount number i is mounted.
func (c *Containers) imageMount(bundle string, i int) string {
	return filepath.Join(bundle, "images", strconv.Itoa(i))
}

func (c *Containers) mountImages(ctx context.Context, id string, p *plan.Container) (map[int]string, error) {
	out := map[int]string{}
	for _, m := range p.ImageMounts {
		img, err := c.Images.Resolve(m.Image)
		if err != nil {
			return nil, fmt.Errorf("mounts[%d].image %q: %w (pull it first)", m.Index, m.Image, err)
		}
		target := c.imageMount(c.Bundle(id), m.Index)
		if err := c.Images.MountImage(ctx, imageKey(id, m.Index), img, target, m.SubPath); err != nil {
			return nil, fmt.Errorf("mounts[%d].image %q: %w", m.Index, m.Image, err)
		}
		out[m.Index] = target
	}
	return out, nil
}

func imageKey(id string, i int) string { return id + "-" + strconv.Itoa(i) }

func (c *Containers) unmountImages(ctx context.Context, id, bundle string) error {
	entries, err := os.ReadDir(filepath.Join(bundle, "images"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read image mounts: %w", err)
	}
	for _, e := range entries {
		i, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if err := c.Images.UnmountImage(ctx, imageKey(id, i)); err != nil {
			return fmt.Errorf("unmount image volume: %w", err)
		}
	}
	return nil
}

// volumes is where the container's anonymous volumes lie: the paths of the
// image's VOLUME list, which outlive nothing but the container.
func (c *Containers) volumes(id string) string { return filepath.Join(c.RootDir, "volumes", id) }

// makeVolumes makes a folder for each VOLUME path, with what the image has there.
func (c *Containers) makeVolumes(id string, img imagespec.ImageConfig, p *plan.Container) (map[string]string, error) {
	if p.Volumes == nil {
		return nil, nil
	}
	paths, err := p.Volumes(img)
	if err != nil || len(paths) == 0 {
		return nil, err
	}
	out := map[string]string{}
	for i, path := range paths {
		dir := filepath.Join(c.volumes(id), strconv.Itoa(i))
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, fmt.Errorf("make volume: %w", err)
		}
		if err := fillVolume(c.rootfs(id), path, dir); err != nil {
			return nil, fmt.Errorf("fill the volume %q of the image: %w", path, err)
		}
		out[path] = dir
	}
	return out, nil
}

// fillVolume copies what the image has at a path into a volume, with owners and
// modes. The path is the image's and is looked up inside its root only.
func fillVolume(rootfs, path, dir string) error {
	src, err := inroot.Path(rootfs, path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer src.Close()
	if st, err := src.Stat(); err != nil || !st.IsDir() {
		return err // a file there is hidden by the volume, as with any mount
	}
	ctx, cancel := context.WithTimeout(context.Background(), cleanDeadline)
	defer cancel()
	return tree.Overlay(ctx, fmt.Sprintf("/proc/self/fd/%d/.", src.Fd()), dir, true)
}

// checkPropagation refuses mounts that could never propagate: the kernel would
// take them silently, and the user would look for the mistake elsewhere.
func checkPropagation(p *plan.Container) error {
	for _, path := range p.SharedPaths {
		if opt, err := propagation(path); err != nil {
			return err
		} else if !strings.Contains(opt, "shared:") {
			return fmt.Errorf("host path %s is not on a shared mount, so nothing mounted in the container would be seen by the node (mount --make-rshared): %w",
				path, errdefs.ErrInvalidArgument)
		}
	}
	for _, path := range p.SlavePaths {
		if opt, err := propagation(path); err != nil {
			return err
		} else if !strings.Contains(opt, "shared:") && !strings.Contains(opt, "master:") {
			return fmt.Errorf("host path %s is neither on a shared nor on a slave mount, so nothing mounted there by the node would be seen in the container (mount --make-rshared): %w",
				path, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// propagation answers the optional fields of the mount that a path is on.
func propagation(path string) (string, error) {
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", fmt.Errorf("host path %s: %w", path, err)
	}
	infos, err := mountinfo.GetMounts(mountinfo.ParentsFilter(resolved))
	if err != nil {
		return "", fmt.Errorf("read mount table: %w", err)
	}
	best := &mountinfo.Info{}
	for _, m := range infos {
		if len(m.Mountpoint) >= len(best.Mountpoint) {
			best = m // of two at one place the later one is on top
		}
	}
	return best.Optional, nil
}

// makeHostDir makes a host path that is to be mounted and does not exist. What
// exists is left alone, whatever it is.
func makeHostDir(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("host path %s: %w", path, err)
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return fmt.Errorf("make host path: %w", err)
	}
	return nil
}

// RemoveTree removes a folder of ours, and refuses while anything is mounted
// below it: what is mounted there is not ours to delete.
func RemoveTree(k Kernel, dir string) error {
	at, err := k.Mounts(dir)
	if err != nil {
		return err
	}
	if len(at) > 0 {
		return fmt.Errorf("%s is still mounted: %w", at[0], errdefs.ErrFailedPrecondition)
	}
	return os.RemoveAll(dir)
}
