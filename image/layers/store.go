package layers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/crid-project/crid/failpoint"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/image/record"
	"github.com/crid-project/crid/image/reference"
	"github.com/crid-project/crid/image/tree"
)

// Config says where a store lives.
type Config struct {
	// Root is the image directory; layers go to Root/l.
	Root string
	// Containers holds a directory per container for its writable layer.
	Containers string
	// Snapshotter is "overlay", "native" (every root file system is a copy),
	// or "auto" (the default): overlay where the file system can.
	Snapshotter string
	// Log is where repairs are told; default slog.Default().
	Log *slog.Logger
	// Boot is the id of the running kernel's boot; default: what it says.
	Boot string
	// SyncAfter is how long after a pull its layers are synced; default 10 seconds.
	SyncAfter time.Duration
}

// Key names a layer: by what is in it, or by what is in it and below it.
type Key string

// ByDiff is the key of a layer that is the same whatever lies below.
func ByDiff(d digest.Digest) Key { return key("d", d) }

// ByChain is the key of a layer that depends on those below.
func ByChain(d digest.Digest) Key { return key("c", d) }

func key(kind string, d digest.Digest) Key {
	if reference.CheckDigest(d) != nil {
		return "" // never found, never committed
	}
	return Key(kind + "-" + d.Algorithm().String() + "-" + d.Encoded())
}

// Meta is what is recorded of a layer.
type Meta struct {
	Key Key `json:"key"`
	// DiffID is the digest of the uncompressed tar.
	DiffID digest.Digest `json:"diff_id"`
	// Bytes and Inodes are what it takes on disk.
	Bytes  uint64 `json:"bytes"`
	Inodes uint64 `json:"inodes"`
	// Empty layers are left out of mounts.
	Empty bool `json:"empty,omitempty"`
	// Root tells that the layer describes its root directory.
	Root bool `json:"root,omitempty"`
	// Gen and Boot tell whether a power failure may have torn it; Seal sets them.
	Gen  uint64 `json:"gen,omitempty"`
	Boot string `json:"boot,omitempty"`
}

// Layer is one unpacked layer. Who holds one from Acquire or Commit must Release it.
type Layer struct {
	Meta
	n    int
	refs int // guarded by Store.mu
}

// Name is the layer's short name, the directory's name.
func (l *Layer) Name() string { return strconv.FormatInt(int64(l.n), 36) }

// Store keeps layers and root file systems. All methods are safe for
// concurrent use; no lock is held during I/O.
type Store struct {
	cfg     Config
	overlay bool
	indexOK bool // overlayfs knows the index option
	log     *slog.Logger

	mu     sync.Mutex
	byKey  map[Key]*Layer
	used   map[int]bool
	bytes  uint64
	inodes uint64
	roots  map[string]*rootfs
	mounts map[string]*imageMount

	// reaped is closed when the trash is empty; nil while nobody empties it.
	// more tells whoever does that there is more.
	reaped chan struct{}
	more   bool
	// gen is the last layer's number; those up to synced are durable.
	gen, synced uint64
	syncing     bool

	making     atomic.Int32 // ingests under way
	turns      turns
	background sync.WaitGroup
	ctx        context.Context
	stop       context.CancelFunc
}

const (
	layerDir  = "l"
	ingestDir = "ingest"
	trashDir  = "trash"
	mountDir  = "mounts"
	emptyDir  = "empty"
)

func (s *Store) path(parts ...string) string {
	return filepath.Join(append([]string{s.cfg.Root}, parts...)...)
}

// Dir is where a layer's files are.
func (s *Store) Dir(l *Layer) string { return s.dir(l) }

// dir is the same; shorter inside the package. It is where a layer's files are.
func (s *Store) dir(l *Layer) string { return s.path(layerDir, l.Name()) }

// Open reads what is on disk. It does not fail over what a crash or a bad disk
// left: unreadable records are set aside, directories without a record and
// unfinished work are removed. After the owner has acquired the layers of its
// images it calls Sweep once.
func Open(cfg Config) (*Store, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Boot == "" {
		cfg.Boot = bootID()
	}
	if cfg.SyncAfter <= 0 {
		cfg.SyncAfter = syncAfter
	}
	s := &Store{cfg: cfg, log: cfg.Log, byKey: map[Key]*Layer{}, used: map[int]bool{}, roots: map[string]*rootfs{}, mounts: map[string]*imageMount{}}
	s.ctx, s.stop = context.WithCancel(context.Background())
	for _, d := range []string{"", layerDir, ingestDir, trashDir, mountDir, emptyDir} {
		if err := os.MkdirAll(s.path(d), 0o700); err != nil {
			return nil, fmt.Errorf("open layer store: %w", err)
		}
	}
	spread(s.path(ingestDir))
	if err := os.Chmod(s.path(emptyDir), 0o755); err != nil && !errors.Is(err, unix.EROFS) { // it has the mode from an earlier run
		return nil, fmt.Errorf("open layer store: %w", err)
	}
	if err := os.MkdirAll(cfg.Containers, 0o700); err != nil {
		return nil, fmt.Errorf("open layer store: %w", err)
	}
	s.readDurable()
	if err := s.readLayers(); err != nil {
		return nil, fmt.Errorf("open layer store: %w", err)
	}
	s.readRoots()
	s.readMounts()
	if err := s.chooseSnapshotter(); err != nil {
		return nil, err
	}
	return s, nil
}

// Close ends background deletions, what they leave is swept by the next Open,
// and makes durable what is not yet.
func (s *Store) Close() error {
	s.mu.Lock() // who starts background work does it with the lock held
	s.stop()
	s.mu.Unlock()
	s.background.Wait()
	return nil
}

func (s *Store) readLayers() error {
	names, err := os.ReadDir(s.path(layerDir))
	if err != nil {
		return err
	}
	for _, e := range names {
		id, isRecord := strings.CutSuffix(e.Name(), ".json")
		if !isRecord {
			continue
		}
		n, err := strconv.ParseInt(id, 36, 31)
		l := &Layer{n: int(n)}
		if err == nil {
			err = record.Read(s.path(layerDir, e.Name()), &l.Meta)
		}
		if err == nil {
			err = isDir(s.dir(l))
		}
		if err == nil {
			err = s.trusted(l.Meta)
		}
		if err == nil && (l.Key == "" || s.byKey[l.Key] != nil) {
			err = errors.New("a second record of the same layer")
		}
		if err != nil {
			s.log.Warn("layer dropped", "layer", e.Name(), "err", err)
			_ = os.Remove(s.path(layerDir, e.Name()))
			continue
		}
		s.byKey[l.Key] = l
		s.used[l.n] = true
		s.bytes += l.Bytes
		s.inodes += l.Inodes
	}
	return nil
}

func isDir(path string) error {
	st, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return fmt.Errorf("%s is not a directory", path)
	}
	return nil
}

// Sweep deletes layers that nobody has acquired since Open, directories
// without a record and unfinished work. Deletion goes on in the background.
func (s *Store) Sweep() {
	var dead []*Layer
	s.mu.Lock()
	for _, l := range s.byKey {
		if l.refs == 0 {
			dead = append(dead, l)
			s.forget(l)
		}
	}
	known := map[string]bool{}
	for n := range s.used {
		known[strconv.FormatInt(int64(n), 36)] = true
	}
	s.mu.Unlock()
	for _, l := range dead {
		s.discard(l)
	}
	for _, dir := range []string{layerDir, ingestDir} {
		entries, _ := os.ReadDir(s.path(dir))
		for _, e := range entries {
			if dir == layerDir && (strings.HasPrefix(e.Name(), ".none") || known[e.Name()] || known[strings.TrimSuffix(e.Name(), ".json")]) {
				continue
			}
			s.trash(s.path(dir, e.Name()))
		}
	}
	s.reap()
	s.SyncSoon() // what an earlier process did not come to
}

// Acquire answers a layer that is whole and keeps it until Release.
func (s *Store) Acquire(keys ...Key) (*Layer, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		if l := s.byKey[k]; l != nil {
			l.refs++
			return l, true
		}
	}
	return nil, false
}

// Hold adds a user to layers that the caller already holds.
func (s *Store) Hold(ls []*Layer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range ls {
		l.refs++
	}
}

// Release gives layers back. Those without users are gone when it returns;
// their files are deleted in the background, see Reclaim.
func (s *Store) Release(ls ...*Layer) {
	var dead []*Layer
	s.mu.Lock()
	for _, l := range ls {
		if l == nil {
			continue
		}
		if l.refs--; l.refs == 0 {
			dead = append(dead, l)
			s.forget(l)
		}
	}
	s.mu.Unlock()
	for _, l := range dead {
		s.discard(l)
	}
	if len(dead) > 0 {
		s.reap()
	}
}

// forget takes a layer out of the index, with s.mu held. Its number stays
// taken until discard has moved the directory away.
func (s *Store) forget(l *Layer) {
	delete(s.byKey, l.Key)
	s.bytes -= min(l.Bytes, s.bytes)
	s.inodes -= min(l.Inodes, s.inodes)
}

// discard deletes a forgotten layer: the record first, so that a crash leaves
// a directory without one. The files are left to reap.
func (s *Store) discard(l *Layer) {
	if err := os.Remove(s.dir(l) + ".json"); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.log.Warn("layer record not removed", "layer", l.Name(), "err", err)
	}
	failpoint.Pass("j2")
	gone := s.trash(s.dir(l))
	if gone == s.dir(l) {
		// It could not be moved, or was not there: its name stays taken until it is away.
		if err := tree.Remove(s.ctx, gone); err != nil {
			s.log.Warn("layer not removed", "layer", l.Name(), "err", err)
			return
		}
	}
	s.untake(l.n)
}

// Usage is what all layers take on disk.
func (s *Store) Usage() tree.Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return tree.Usage{Bytes: s.bytes, Inodes: s.inodes}
}

// Count is the number of layers.
func (s *Store) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.byKey)
}

// take reserves the lowest free number: short names keep mount options short.
func (s *Store) take() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.used)
	for s.used[n] {
		n++
	}
	for n > 0 && !s.used[n-1] {
		n--
	}
	s.used[n] = true
	return n
}

func (s *Store) untake(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.used, n)
}

// Scratch is a directory on the store's disk for files without a name.
func (s *Store) Scratch() string { return s.path(ingestDir) }

// Settle waits until background deletions are done.
func (s *Store) Settle() {
	s.mu.Lock()
	reaped := s.reaped
	s.mu.Unlock()
	if reaped != nil {
		<-reaped
	}
}
