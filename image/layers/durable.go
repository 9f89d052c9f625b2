package layers

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/image/record"
)

// A layer is used before it is on the disk: writing takes as long again as
// unpacking, and nothing but a power failure can tell the difference. Each
// layer's record holds a number that grows and the boot of the kernel in whose
// memory it may still be. Some seconds after a pull the file system is synced,
// and then the highest number of before is recorded as durable. What is above
// it, and of another boot, cannot be trusted: it is dropped at start, and with
// it the images that it is part of.

// durable is the record of how far layers are on the disk.
type durable struct {
	UpTo uint64 `json:"up_to"`
}

const (
	durableFile = "durable.json"
	// syncAfter leaves the disk to the containers that a pull was for.
	syncAfter = 10 * time.Second
)

var errNotDurable = errors.New("the machine went down before it was on the disk")

// bootID is the running kernel's, or an id of this process's own where it has none.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if id := strings.TrimSpace(string(b)); err == nil && id != "" {
		return id
	}
	return nonce()
}

func (s *Store) readDurable() {
	var d durable
	err := record.Read(s.path(durableFile), &d)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.log.Warn("it is not known which layers are on the disk", "err", err)
	}
	s.gen, s.synced = d.UpTo, d.UpTo
}

// trusted tells whether a layer of that record is whole, and counts it.
func (s *Store) trusted(m Meta) error {
	if m.Gen > s.synced && m.Boot != s.cfg.Boot {
		return errNotDurable
	}
	s.gen = max(s.gen, m.Gen)
	return nil
}

// mark numbers a layer whose files are all written.
func (s *Store) mark(m *Meta) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gen++
	m.Gen, m.Boot = s.gen, s.cfg.Boot
}

// SyncSoon has layers made durable some seconds from now, all of that time's
// together. Close does not wait for the time, but for the disk.
func (s *Store) SyncSoon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.syncing || s.ctx.Err() != nil || !s.unsynced() {
		return
	}
	s.syncing = true
	s.background.Go(s.syncLater)
}

// unsynced tells whether there is a layer that is not durable, with s.mu held.
func (s *Store) unsynced() bool {
	for _, l := range s.byKey {
		if l.Gen > s.synced {
			return true
		}
	}
	return false
}

func (s *Store) syncLater() {
	for {
		t := time.NewTimer(s.cfg.SyncAfter)
		select {
		case <-t.C:
		case <-s.ctx.Done():
		}
		t.Stop()
		s.mu.Lock()
		upTo := s.gen
		s.syncing = s.unsynced()
		on := s.syncing
		s.mu.Unlock()
		if !on {
			return
		}
		if err := s.sync(upTo); err != nil {
			s.log.Error("layers are not on the disk; it will be tried again", "err", err)
		}
		if s.ctx.Err() != nil {
			return
		}
	}
}

// sync makes layers durable, those of that number and below, and records it.
func (s *Store) sync(upTo uint64) error {
	d, err := os.Open(s.cfg.Root)
	if err != nil {
		return fmt.Errorf("sync layer store: %w", err)
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("sync layer store: %w", err)
	}
	if err := record.Write(s.path(durableFile), durable{UpTo: upTo}, true); err != nil {
		return fmt.Errorf("sync layer store: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.synced = max(s.synced, upTo)
	return nil
}
