package layers

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/crid-project/crid/image/record"
	"github.com/crid-project/crid/image/tree"
)

// Ingest is a layer in the making: a directory of its own that becomes a layer
// by Seal and Commit, or nothing by Abort.
type Ingest struct {
	s    *Store
	path string
	meta Meta

	mu     sync.Mutex
	sealed bool
	done   *Layer
	gone   bool
}

func nonce() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (Go 1.24)
	return hex.EncodeToString(b[:])
}

// NewIngest makes an empty directory to unpack into.
func (s *Store) NewIngest() (*Ingest, error) {
	i := &Ingest{s: s, path: s.path(ingestDir, nonce())}
	for _, d := range []string{i.path, i.Dir()} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return nil, fmt.Errorf("begin layer: %w", err)
		}
	}
	if err := os.Chmod(i.Dir(), 0o755); err != nil {
		return nil, fmt.Errorf("begin layer: %w", err)
	}
	s.making.Add(1)
	return i, nil
}

// Dir is the directory to unpack into.
func (i *Ingest) Dir() string { return filepath.Join(i.path, "diff") }

// Seal writes the layer's record beside it, when all its files are written.
// After it Commit may be called.
func (i *Ingest) Seal(m Meta) error {
	if m.Key == "" {
		return fmt.Errorf("seal layer: no key: %w", errdefs.ErrInvalidArgument)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.sealed {
		return nil
	}
	i.s.mark(&m)
	if err := record.Write(filepath.Join(i.path, "layer.json"), m, false); err != nil {
		return fmt.Errorf("seal layer: %w", err)
	}
	i.meta, i.sealed = m, true
	return nil
}

// Commit makes the sealed directory a layer, or answers the layer of the same
// key if there is one by now. The caller holds the answer. Calls after the
// first (pulls that share the layer) get the same one.
func (i *Ingest) Commit() (*Layer, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.sealed || (i.gone && i.done == nil) {
		return nil, fmt.Errorf("commit layer: not sealed: %w", errdefs.ErrFailedPrecondition)
	}
	if l, ok := i.s.Acquire(i.meta.Key); ok {
		return l, nil
	}
	if i.gone {
		return nil, fmt.Errorf("commit layer: removed meanwhile: %w", errdefs.ErrNotFound)
	}
	l := &Layer{Meta: i.meta, n: i.s.take(), refs: 1}
	dir := i.s.dir(l)
	err := os.Rename(i.Dir(), dir)
	if err == nil {
		if err = os.Rename(filepath.Join(i.path, "layer.json"), dir+".json"); err != nil {
			i.s.trash(dir)
		}
	}
	if err != nil {
		i.s.untake(l.n)
		return nil, fmt.Errorf("commit layer: %w", err)
	}
	i.gone, i.done = true, l
	i.s.making.Add(-1)
	_ = os.Remove(i.path)
	s := i.s
	s.mu.Lock()
	if other := s.byKey[l.Key]; other != nil {
		// A pull that did not share this ingest was faster: theirs stays.
		other.refs++
		s.mu.Unlock()
		s.discard(l)
		s.reap()
		i.done = other
		return other, nil
	}
	s.bytes += l.Bytes
	s.inodes += l.Inodes
	s.byKey[l.Key] = l
	s.mu.Unlock()
	return l, nil
}

// Abort removes what is left of the ingest. It may be called after Commit, and again.
func (i *Ingest) Abort() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.gone {
		return
	}
	i.gone = true
	i.s.making.Add(-1)
	if err := tree.Remove(context.WithoutCancel(i.s.ctx), i.path); err != nil {
		i.s.log.Warn("unfinished layer not removed", "path", i.path, "err", err)
	}
}
