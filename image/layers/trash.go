package layers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/failpoint"
	"github.com/crid-project/crid/image/tree"
)

// trash moves something out of the way; it answers its new path.
func (s *Store) trash(path string) string {
	to := s.path(trashDir, fmt.Sprintf("%s-%d-%s", filepath.Base(path), os.Getpid(), nonce()))
	if err := os.Rename(path, to); err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			s.log.Warn("left-over not moved", "path", path, "err", err)
		}
		return path
	}
	return to
}

// reap has the trash emptied in the background, by one goroutine that ends
// when there is none left. What it does not get to, the next start's does.
func (s *Store) reap() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.more = true
	if s.reaped != nil || s.ctx.Err() != nil {
		return
	}
	s.reaped = make(chan struct{})
	s.background.Go(s.emptyTrash)
}

func (s *Store) emptyTrash() {
	for again := true; again; {
		s.mu.Lock()
		s.more = false
		s.mu.Unlock()
		entries, err := os.ReadDir(s.path(trashDir))
		if err != nil {
			s.log.Warn("left-overs not read", "err", err)
		}
		pace := s.pace()
		for _, e := range entries {
			failpoint.Pass("j3")
			err := tree.RemovePaced(s.ctx, s.path(trashDir, e.Name()), pace)
			if err != nil && s.ctx.Err() == nil {
				s.log.Warn("left-over not removed", "path", e.Name(), "err", err)
			}
		}
		s.mu.Lock()
		if again = s.more && s.ctx.Err() == nil; !again {
			close(s.reaped)
			s.reaped = nil
		}
		s.mu.Unlock()
	}
}

const (
	// Deleting many files keeps the file system's journal busy, for which
	// everybody else waits: it rests for a multiple of the time it works.
	restIdle = 1
	// While layers are unpacked it goes on slowly, never not at all.
	restBusy = 10
	maxRest  = 200 * time.Millisecond
)

// pace answers a function that rests. It must be called from one goroutine.
func (s *Store) pace() func(context.Context) {
	begin := time.Now()
	return func(ctx context.Context) {
		if s.tight() {
			begin = time.Now()
			return
		}
		rest := time.Since(begin) * restIdle
		if s.making.Load() > 0 {
			rest = time.Since(begin) * restBusy
		}
		t := time.NewTimer(min(rest, maxRest))
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		begin = time.Now()
	}
}

// A kubelet evicts pods below 15 percent of space or 5 of inodes, as it is
// configured by default, and looks again as soon as images are removed.
const (
	tightSpace  = 20 // percent
	tightInodes = 10
)

// tight tells whether somebody may be waiting for the space.
func (s *Store) tight() bool {
	var st unix.Statfs_t
	if unix.Statfs(s.cfg.Root, &st) != nil {
		return false
	}
	return st.Bavail < st.Blocks/100*tightSpace || (st.Files > 0 && st.Ffree < st.Files/100*tightInodes)
}

// Reclaim returns when what was removed has given its space back, if space is
// short, and at once if it is not. It ends with ctx.
func (s *Store) Reclaim(ctx context.Context) {
	s.mu.Lock()
	reaped := s.reaped
	s.mu.Unlock()
	if reaped == nil || !s.tight() {
		return
	}
	select {
	case <-reaped:
	case <-ctx.Done():
	}
}
