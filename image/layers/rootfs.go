package layers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/image/record"
	"github.com/crid-project/crid/image/tree"
)

// Mount is one mount, in the words of mount(8) and of the shim's API.
type Mount struct {
	Type, Source string
	Options      []string
}

// Options say how a root file system is used.
type Options struct {
	// ReadOnly: there is no writable layer.
	ReadOnly bool `json:"read_only,omitempty"`
	// UIDs, GIDs map a user namespace; empty: the host's.
	UIDs []oci.LinuxIDMapping `json:"uids,omitempty"`
	GIDs []oci.LinuxIDMapping `json:"gids,omitempty"`
}

// Rootfs is a container's root file system, ready to be mounted.
type Rootfs struct {
	Mounts []Mount
	// UpperDir is where the container's changes are kept; empty if read-only.
	UpperDir string
}

// rootfs is a prepared root file system.
type rootfs struct {
	rec    rootRecord
	layers []*Layer
	out    Rootfs
	// usage is a cached measure.
	mu    sync.Mutex
	usage measured
}

// rootRecord is what survives a restart: which layers are in use.
type rootRecord struct {
	ID      string   `json:"id"`
	Layers  []string `json:"layers"` // names, bottom first
	Options Options  `json:"options"`
	Native  bool     `json:"native,omitempty"`
}

// CheckID refuses container ids and keys that could leave their directory.
func CheckID(id string) error {
	ok := len(id) > 0 && len(id) <= 128 && id[0] != '.' && id[0] != '-'
	for _, c := range []byte(id) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.')
	}
	if !ok {
		return fmt.Errorf("check id %.140q: letters, digits, '-', '_' and '.' only, at most 128: %w", id, errdefs.ErrInvalidArgument)
	}
	return nil
}

const (
	rootFile = "rootfs.json"
	upperDir = "fs"
	workDir  = "work"
)

func (s *Store) container(id string, parts ...string) string {
	return filepath.Join(append([]string{s.cfg.Containers, id}, parts...)...)
}

// PrepareRootfs makes a container's writable layer over layers (the lowest
// first) and answers how to mount it. It is idempotent: the same id gets the
// same answer until RemoveRootfs. The layers stay as long.
func (s *Store) PrepareRootfs(ctx context.Context, id string, ls []*Layer, opt Options) (Rootfs, error) {
	if err := CheckID(id); err != nil {
		return Rootfs{}, fmt.Errorf("prepare root file system: %w", err)
	}
	if err := checkMappings(opt); err != nil {
		return Rootfs{}, fmt.Errorf("prepare root file system of %s: %w", id, err)
	}
	done, err := s.turns.take(ctx, "root "+id)
	if err != nil {
		return Rootfs{}, fmt.Errorf("prepare root file system of %s: %w", id, err)
	}
	defer done()
	if r, err := s.Rootfs(id); err == nil {
		return r, nil
	}
	lower := stack(ls)
	r := &rootfs{layers: lower, rec: rootRecord{ID: id, Options: opt, Native: !s.overlay || len(lower) > maxLower}}
	for _, l := range lower {
		r.rec.Layers = append(r.rec.Layers, l.Name())
	}
	s.Hold(lower)
	if err = s.make(ctx, r, ls); err == nil {
		s.mu.Lock()
		s.roots[id] = r
		s.mu.Unlock()
		return r.out, nil
	}
	if rerr := s.removeFiles(context.WithoutCancel(ctx), id); rerr != nil {
		s.log.Warn("failed root file system not removed", "container", id, "err", rerr)
	}
	s.Release(lower...)
	return Rootfs{}, fmt.Errorf("prepare root file system of %s: %w", id, err)
}

// stack is the order in which layers are mounted, bottom first: without empty
// ones, and a layer that occurs twice only where it is topmost (overlayfs
// refuses a directory twice, and the upper one hides all that the lower shows).
func stack(ls []*Layer) []*Layer {
	var out []*Layer
	seen := map[int]bool{}
	for i := len(ls) - 1; i >= 0; i-- {
		if l := ls[i]; !l.Empty && !seen[l.n] {
			seen[l.n] = true
			out = append(out, l)
		}
	}
	slices.Reverse(out)
	return out
}

func checkMappings(opt Options) error {
	if (len(opt.UIDs) == 0) != (len(opt.GIDs) == 0) {
		return fmt.Errorf("user and group mappings go together: %w", errdefs.ErrInvalidArgument)
	}
	for _, m := range append(slices.Clone(opt.UIDs), opt.GIDs...) {
		if m.Size == 0 || uint64(m.HostID)+uint64(m.Size) > 1<<32-1 || uint64(m.ContainerID)+uint64(m.Size) > 1<<32-1 {
			return fmt.Errorf("mapping %d:%d:%d is empty or beyond 32 bits: %w", m.ContainerID, m.HostID, m.Size, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// make does the work on disk: record first, then the directories.
func (s *Store) make(ctx context.Context, r *rootfs, ls []*Layer) error {
	id := r.rec.ID
	if err := os.MkdirAll(s.container(id), 0o700); err != nil {
		return err
	}
	if err := record.Write(s.container(id, rootFile), r.rec, false); err != nil {
		return err
	}
	if r.rec.Options.ReadOnly && !r.rec.Native {
		r.out = s.mountsOf(r)
		return nil
	}
	for _, d := range []string{upperDir, workDir} {
		if err := os.Mkdir(s.container(id, d), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	if r.rec.Native {
		if err := s.copyLayers(ctx, r); err != nil {
			return err
		}
	} else if err := s.ownUpper(r, ls); err != nil {
		return err
	}
	r.out = s.mountsOf(r)
	return nil
}

// ownUpper gives the writable layer's root the image root's owner and mode, as
// the container sees it.
func (s *Store) ownUpper(r *rootfs, ls []*Layer) error {
	uid, gid, mode := 0, 0, uint32(0o755)
	for i := len(ls) - 1; i >= 0; i-- {
		if !ls[i].Root {
			continue
		}
		var st unix.Stat_t
		if err := unix.Lstat(s.dir(ls[i]), &st); err != nil {
			return fmt.Errorf("stat layer: %w", err)
		}
		uid, gid, mode = int(st.Uid), int(st.Gid), st.Mode&0o7777
		break
	}
	upper := s.container(r.rec.ID, upperDir)
	uid, gid = toHost(r.rec.Options.UIDs, uid), toHost(r.rec.Options.GIDs, gid)
	if uid != 0 || gid != 0 || os.Geteuid() != 0 {
		if err := os.Lchown(upper, uid, gid); err != nil {
			return err
		}
		if err := os.Lchown(s.container(r.rec.ID, workDir), uid, gid); err != nil {
			return err
		}
	}
	return unix.Fchmodat(unix.AT_FDCWD, upper, mode, 0)
}

// toHost maps an id of the image to the host's; one outside the mapping
// becomes the mapped root's.
func toHost(maps []oci.LinuxIDMapping, id int) int {
	if len(maps) == 0 {
		return id
	}
	root := int(maps[0].HostID)
	for _, m := range maps {
		if m.ContainerID == 0 {
			root = int(m.HostID)
		}
		if off := int64(id) - int64(m.ContainerID); off >= 0 && off < int64(m.Size) {
			return int(int64(m.HostID) + off)
		}
	}
	return root
}

// RemoveRootfs deletes a container's writable layer and gives its layers back.
// It is idempotent. While something is mounted in it the answer wraps
// errdefs.ErrFailedPrecondition and nothing beyond the mount is touched.
func (s *Store) RemoveRootfs(ctx context.Context, id string) error {
	if err := CheckID(id); err != nil {
		return fmt.Errorf("remove root file system: %w", err)
	}
	done, err := s.turns.take(ctx, "root "+id)
	if err != nil {
		return fmt.Errorf("remove root file system of %s: %w", id, err)
	}
	defer done()
	if err := s.removeFiles(ctx, id); err != nil {
		return fmt.Errorf("remove root file system of %s: %w", id, err)
	}
	s.mu.Lock()
	r := s.roots[id]
	delete(s.roots, id)
	s.mu.Unlock()
	if r != nil {
		s.Release(r.layers...)
	}
	return nil
}

// removeFiles deletes the directories, then the record that keeps the layers.
func (s *Store) removeFiles(ctx context.Context, id string) error {
	for _, name := range []string{upperDir, workDir, rootFile} {
		if err := tree.Remove(ctx, s.container(id, name)); err != nil {
			return err
		}
	}
	// The directory may hold what others keep for the container.
	if err := os.Remove(s.container(id)); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	return nil
}

// Rootfs answers the root file system prepared for id, also by an earlier
// process; errdefs.ErrNotFound if there is none.
func (s *Store) Rootfs(id string) (Rootfs, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.roots[id]; r != nil {
		return r.out, nil
	}
	return Rootfs{}, fmt.Errorf("find root file system of %.130q: %w", id, errdefs.ErrNotFound)
}

// Roots lists the ids that have a root file system.
func (s *Store) Roots() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]string, 0, len(s.roots))
	for id := range s.roots {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// readRoots takes up what earlier processes prepared. A record that cannot be
// read keeps its directory for RemoveRootfs, but no layer.
func (s *Store) readRoots() {
	byName := map[string]*Layer{}
	for _, l := range s.byKey {
		byName[l.Name()] = l
	}
	entries, _ := os.ReadDir(s.cfg.Containers)
	for _, e := range entries {
		id := e.Name()
		if CheckID(id) != nil || !e.IsDir() {
			continue
		}
		r := &rootfs{}
		err := record.Read(s.container(id, rootFile), &r.rec)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil && r.rec.ID != id {
			err = errors.New("it is another container's")
		}
		if err == nil {
			for _, name := range r.rec.Layers {
				l := byName[name]
				if l == nil {
					err = fmt.Errorf("layer %s is missing", name)
					break
				}
				r.layers = append(r.layers, l)
			}
		}
		if err != nil {
			s.log.Warn("root file system without its layers", "container", id, "err", err)
			continue
		}
		for _, l := range r.layers {
			l.refs++
		}
		r.out = s.mountsOf(r)
		s.roots[id] = r
	}
}

// idmapOption writes mappings the way containerd's mount package reads them.
func idmapOption(name string, maps []oci.LinuxIDMapping) string {
	parts := make([]string, len(maps))
	for i, m := range maps {
		parts[i] = fmt.Sprintf("%d:%d:%d", m.ContainerID, m.HostID, m.Size)
	}
	return name + "=" + strings.Join(parts, ",")
}
