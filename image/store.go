package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/crid-project/crid/image/layers"
	"github.com/crid-project/crid/image/manifest"
	"github.com/crid-project/crid/image/record"
	"github.com/crid-project/crid/image/reference"
	"github.com/crid-project/crid/image/registry"
	"github.com/crid-project/crid/image/untar"
)

// Config says where images live and how they are loaded. Root and Containers
// are needed; everything else has a default.
type Config struct {
	// Root is the image directory (/var/lib/crid/images).
	Root string
	// Containers holds the writable layers (/var/lib/crid/containers).
	Containers string
	// CertsDirs are hosts.toml directories, the first that knows a host wins.
	CertsDirs []string
	// Snapshotter is overlay, native or auto (default).
	Snapshotter string
	// ProgressTimeout ends a pull in which no byte has been loaded or unpacked
	// for that long. Default 5 minutes.
	ProgressTimeout time.Duration
	// Parallel bounds the layers loaded and unpacked at a time, over all
	// pulls. Default 8.
	Parallel int
	// MaxLayerBytes bounds what one layer may unpack to, in bytes. Default
	// 128 GiB. A layer that grows more than 256-fold may also not exceed 2 GiB.
	MaxLayerBytes int64
	// MaxEntries bounds the files of one layer. Default 4 million.
	MaxEntries int
	// Pinned are references that are reported as pinned, so that the kubelet
	// does not remove them; a trailing '*' matches any ending.
	Pinned []string
	// Platform chooses among an index's manifests; default: this machine.
	Platform platforms.MatchComparer
	// UserAgent is sent to registries.
	UserAgent string
	// Observer counts; default: nobody.
	Observer Observer
	// Log is where repairs are told; default slog.Default().
	Log *slog.Logger
}

// Observer is told of pulls. Its methods must not block.
type Observer interface {
	PullStarted(ref string)
	// PullFinished tells the outcome: bytes loaded over the network, and a
	// class of error ("" for success; "canceled", "deadline", "no_progress",
	// "unauthenticated", "not_found", "unavailable", "invalid", "disk_full", "other").
	PullFinished(ref string, took time.Duration, bytes int64, class string)
	// LayersInProgress tells how many layers are being loaded or unpacked now.
	LayersInProgress(n int)
}

// Store is the node's images. All methods are safe for concurrent use.
type Store struct {
	cfg      Config
	log      *slog.Logger
	layers   *layers.Store
	registry *registry.Client
	slots    chan struct{}

	// writer is held by whoever changes records and names, one at a time, over
	// its I/O. Readers never wait for it.
	writer chan struct{}

	mu     sync.RWMutex
	images map[string]*entry // by image id
	names  map[string]string // full reference, tag or digest form, to image id
	seq    uint64
	recs   uint64 // bytes of records

	flights flights
	loading loading
	busy    atomic.Int64

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup
}

// entry is one image with the layers it holds.
type entry struct {
	img    Image // immutable; replaced as a whole
	layers []*layers.Layer
	// tops are digests of indexes and manifests that led to this image.
	tops map[digest.Digest]bool
	seq  uint64
	size uint64 // of the record, in bytes
}

// Image is one image. It is a snapshot: it does not change.
type Image struct {
	// ID is the digest of the configuration: "sha256:…".
	ID string
	// Tags and Digests are full references, sorted: "docker.io/library/busybox:latest",
	// "docker.io/library/busybox@sha256:…".
	Tags, Digests []string
	// Size is what the image's layers take on disk, in bytes, shared or not.
	Size int64
	// Config is the image's configuration.
	Config ocispec.Image
	// Pinned images are not to be removed by garbage collection.
	Pinned bool
	// ChainID is the OCI chain id of all layers; empty for an image without layers.
	ChainID digest.Digest
	// Manifest is the digest of the manifest that was pulled.
	Manifest digest.Digest
	// Annotations are the manifest's.
	Annotations map[string]string
	// PulledAt is when the image was first complete, in Unix nanoseconds.
	PulledAt int64
}

// imageRecord is what is on disk of an image.
type imageRecord struct {
	ID       string          `json:"id"`
	Config   []byte          `json:"config"`
	Manifest []byte          `json:"manifest,omitempty"`
	Tops     []digest.Digest `json:"tops,omitempty"`
	Names    []string        `json:"names"`
	Layers   []layers.Key    `json:"layers"`
	Seq      uint64          `json:"seq"`
	PulledAt int64           `json:"pulled_at"`
}

const (
	recordsDir    = "records"
	quarantineDir = "quarantine"
)

// Open reads the images on disk, drops those that a crash left incomplete, and
// sweeps unfinished work. It fails only where the directories cannot be used;
// records that cannot be read are set aside and told in the log.
func Open(cfg Config) (*Store, error) {
	cfg.defaults()
	s := &Store{
		cfg: cfg, log: cfg.Log, images: map[string]*entry{}, names: map[string]string{},
		slots:    make(chan struct{}, cfg.Parallel),
		writer:   make(chan struct{}, 1),
		registry: registry.New(registry.Config{CertsDirs: cfg.CertsDirs, UserAgent: cfg.UserAgent}),
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	for _, d := range []string{"", recordsDir, quarantineDir} {
		if err := os.MkdirAll(filepath.Join(cfg.Root, d), 0o700); err != nil {
			return nil, fmt.Errorf("open image store: %w", err)
		}
	}
	ls, err := layers.Open(layers.Config{Root: cfg.Root, Containers: cfg.Containers, Snapshotter: cfg.Snapshotter, Log: cfg.Log})
	if err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	s.layers = ls
	if err := s.readRecords(); err != nil {
		ls.Close()
		return nil, fmt.Errorf("open image store: %w", err)
	}
	ls.Sweep()
	return s, nil
}

func (c *Config) defaults() {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.ProgressTimeout <= 0 {
		c.ProgressTimeout = 5 * time.Minute
	}
	if c.Parallel <= 0 {
		c.Parallel = 8
	}
	if c.MaxLayerBytes <= 0 {
		c.MaxLayerBytes = 128 << 30
	}
	if c.Platform == nil {
		c.Platform = platforms.Default()
	}
	if c.Observer == nil {
		c.Observer = nobody{}
	}
}

type nobody struct{}

func (nobody) PullStarted(string)                                {}
func (nobody) PullFinished(string, time.Duration, int64, string) {}
func (nobody) LayersInProgress(int)                              {}

// Close cancels pulls under way and waits for them. Root file systems and
// mounts stay.
func (s *Store) Close() error {
	s.stop()
	s.wg.Wait()
	return s.layers.Close()
}

func (s *Store) recordPath(id string) string {
	return filepath.Join(s.cfg.Root, recordsDir, strings.ReplaceAll(id, ":", "-")+".json")
}

func (s *Store) readRecords() error {
	dir := filepath.Join(s.cfg.Root, recordsDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if strings.HasPrefix(e.Name(), ".tmp-") {
			_ = os.Remove(path)
			continue
		}
		var rec imageRecord
		err := record.Read(path, &rec)
		if err == nil && s.recordPath(rec.ID) != path {
			err = errors.New("it is another image's record")
		}
		var en *entry
		if err == nil {
			en, err = s.fromRecord(&rec)
		}
		if errors.Is(err, errLayerMissing) {
			s.log.Warn("image dropped: it was not complete", "image", rec.ID, "names", rec.Names, "err", err)
			_ = os.Remove(path)
			continue
		}
		if err != nil {
			s.quarantine(path, err)
			continue
		}
		if st, err := os.Stat(path); err == nil {
			en.size = uint64(st.Size())
			s.recs += en.size
		}
		s.images[en.img.ID] = en
		s.seq = max(s.seq, en.seq)
		for _, n := range rec.Names {
			// A tag that moved just before a crash may be in two records: the newer has it.
			if old, ok := s.images[s.names[n]]; !ok || old.seq <= en.seq {
				s.names[n] = en.img.ID
			}
		}
	}
	for _, en := range s.images {
		s.refreshNames(en)
	}
	return nil
}

func (s *Store) quarantine(path string, why error) {
	s.log.Error("image record set aside; pull the image again", "record", path, "err", why)
	to := filepath.Join(s.cfg.Root, quarantineDir, fmt.Sprintf("%s.%d", filepath.Base(path), time.Now().UnixNano()))
	if err := os.Rename(path, to); err != nil {
		s.log.Error("image record not moved", "record", path, "err", err)
	}
}

var errLayerMissing = errors.New("a layer is missing")

// fromRecord checks a record and takes its layers.
func (s *Store) fromRecord(rec *imageRecord) (*entry, error) {
	if err := reference.CheckDigest(digest.Digest(rec.ID)); err != nil {
		return nil, err
	}
	if digest.Digest(rec.ID).Algorithm().FromBytes(rec.Config) != digest.Digest(rec.ID) {
		return nil, errors.New("its configuration does not match its id")
	}
	en := &entry{seq: rec.Seq, tops: map[digest.Digest]bool{}}
	for _, k := range rec.Layers {
		l, ok := s.layers.Acquire(k)
		if !ok {
			s.layers.Release(en.layers...)
			return nil, fmt.Errorf("%w: %s", errLayerMissing, k)
		}
		en.layers = append(en.layers, l)
	}
	for _, d := range rec.Tops {
		en.tops[d] = true
	}
	img, err := describe(rec, en.layers)
	if err != nil {
		s.layers.Release(en.layers...)
		return nil, err
	}
	en.img = img
	return en, nil
}

// unpackLimits are what a layer of that compressed size may unpack to.
func (s *Store) unpackLimits(compressed int64) untar.Options {
	limit := s.cfg.MaxLayerBytes
	if compressed >= 0 && compressed < limit/256 {
		limit = min(limit, max(2<<30, compressed*256))
	}
	return untar.Options{MaxBytes: limit, MaxEntries: s.cfg.MaxEntries}
}

// describe makes the snapshot of an image, without its names.
func describe(rec *imageRecord, ls []*layers.Layer) (Image, error) {
	img := Image{ID: rec.ID, PulledAt: rec.PulledAt}
	if err := json.Unmarshal(rec.Config, &img.Config); err != nil {
		return img, fmt.Errorf("read image config: %w", err)
	}
	if len(rec.Manifest) > 0 {
		var m ocispec.Manifest
		if err := json.Unmarshal(rec.Manifest, &m); err != nil {
			return img, fmt.Errorf("read image manifest: %w", err)
		}
		img.Manifest = digest.FromBytes(rec.Manifest)
		img.Annotations = m.Annotations
	}
	seen := map[string]bool{}
	for _, l := range ls {
		if !seen[l.Name()] {
			seen[l.Name()] = true
			img.Size += int64(l.Bytes)
		}
	}
	img.Size += int64(len(rec.Config) + len(rec.Manifest))
	img.ChainID = manifest.ChainID(img.Config.RootFS.DiffIDs)
	return img, nil
}
