package layers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/image/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, dir string, change ...func(*Config)) *Store {
	t.Helper()
	c := Config{Root: filepath.Join(dir, "images"), Containers: filepath.Join(dir, "containers"), Snapshotter: "native"}
	for _, fn := range change {
		fn(&c)
	}
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func boot(id string) func(*Config) { return func(c *Config) { c.Boot = id } }

// layer makes a layer of so many files; the caller holds it.
func layer(t *testing.T, s *Store, name string, files int) *Layer {
	t.Helper()
	in, err := s.NewIngest()
	if err != nil {
		t.Fatal(err)
	}
	for i := range files {
		if err := os.WriteFile(filepath.Join(in.Dir(), fmt.Sprint(i)), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	id := digest.FromString(name)
	if err := in.Seal(Meta{Key: ByDiff(id), DiffID: id, Bytes: 4096 * uint64(files), Inodes: uint64(files)}); err != nil {
		t.Fatal(err)
	}
	l, err := in.Commit()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func there(s *Store, name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byKey[ByDiff(digest.FromString(name))] != nil
}

// crash leaves a store as a process does that is killed: without Close's sync.
func crash(s *Store) {
	s.mu.Lock()
	s.byKey = map[Key]*Layer{} // nothing is left to be synced
	s.mu.Unlock()
	s.Close()
}

func TestAfterAPowerFailureOnlyWhatWasSyncedIsTrusted(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, boot("one"))
	layer(t, s, "old", 3)
	if err := s.sync(s.gen); err != nil {
		t.Fatal(err)
	}
	layer(t, s, "new", 3)
	crash(s)

	// The daemon alone was killed: the kernel still has all of it.
	s = open(t, dir, boot("one"))
	if !there(s, "old") || !there(s, "new") {
		t.Fatal("a layer was lost although the machine stayed up")
	}
	crash(s)

	s = open(t, dir, boot("two"))
	old, ok := s.Acquire(ByDiff(digest.FromString("old")))
	if !ok {
		t.Error("a layer that was on the disk was dropped")
	}
	if there(s, "new") {
		t.Error("a layer is trusted that may be torn")
	}
	s.Sweep()
	s.Settle()
	entries, _ := os.ReadDir(s.path(layerDir))
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !strings.HasPrefix(e.Name(), old.Name()) {
			t.Errorf("left behind: %s", e.Name())
		}
	}
	// What comes after it must not be mistaken for what was before.
	layer(t, s, "new", 3)
	crash(s)
	s = open(t, dir, boot("three"))
	if there(s, "new") || !there(s, "old") {
		t.Error("after a second failure the wrong layers are trusted")
	}
}

func TestAnOrderlyEndIsNoPowerFailure(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, boot("one"))
	layer(t, s, "a", 3)
	s.SyncSoon()
	s.Close()
	s = open(t, dir, boot("two"))
	if !there(s, "a") {
		t.Error("the machine was shut down in order, and the layer is gone")
	}
}

func TestLayersBecomeDurableByThemselves(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, boot("one"), func(c *Config) { c.SyncAfter = time.Millisecond })
	l := layer(t, s, "a", 3)
	s.SyncSoon()
	var d durable
	for end := time.Now().Add(10 * time.Second); d.UpTo < l.Gen; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not synced in 10 seconds")
		}
		_ = record.Read(s.path(durableFile), &d)
	}
	crash(s)
	if s = open(t, dir, boot("two")); !there(s, "a") {
		t.Error("a synced layer was dropped")
	}
}

func TestLostDurableRecordTrustsNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, boot("one"))
	layer(t, s, "a", 1)
	_ = s.sync(s.gen)
	crash(s)
	_ = os.Truncate(filepath.Join(dir, "images", durableFile), 3)
	if s = open(t, dir, boot("two")); there(s, "a") {
		t.Error("a layer is trusted although nothing says that it was synced")
	}
}

func TestRecordsFromBeforeThereWereNumbersAreTrusted(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, boot("one"))
	l := layer(t, s, "a", 1)
	m := l.Meta
	m.Gen, m.Boot = 0, ""
	if err := record.Write(s.dir(l)+".json", m, false); err != nil {
		t.Fatal(err)
	}
	crash(s)
	if s = open(t, dir, boot("two")); !there(s, "a") {
		t.Error("an upgrade dropped a layer")
	}
}

func TestRemovedLayersAreGoneAtOnceAndTheirFilesSoon(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	a, b := layer(t, s, "a", 2000), layer(t, s, "b", 1)
	s.Release(a)
	if there(s, "a") {
		t.Error("a removed layer is still there")
	}
	if u := s.Usage(); u.Inodes != 1 {
		t.Errorf("usage counts %d inodes after the removal, want 1", u.Inodes)
	}
	if _, err := os.Stat(s.dir(a)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its directory is still in place: %v", err)
	}
	again := layer(t, s, "a", 5) // beside the deletion
	s.Settle()
	if left, _ := os.ReadDir(s.path(trashDir)); len(left) != 0 {
		t.Errorf("%d things are left in the trash", len(left))
	}
	for _, l := range []*Layer{again, b} {
		if _, err := os.Stat(filepath.Join(s.dir(l), "0")); err != nil {
			t.Errorf("a layer in use was deleted: %v", err)
		}
	}
}

func TestTrashOfAnEarlierProcessIsEmptied(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	s.Close()
	_ = os.MkdirAll(s.path(trashDir, "x-1-2", "deep", "er"), 0o755)
	s = open(t, dir)
	s.Sweep()
	s.Settle()
	if left, _ := os.ReadDir(s.path(trashDir)); len(left) != 0 {
		t.Errorf("%d things are left in the trash", len(left))
	}
}

func TestReclaimWaitsOnlyWhereSpaceIsShort(t *testing.T) {
	s := open(t, t.TempDir())
	s.reaped = make(chan struct{}) // somebody empties the trash, and is not done
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	s.Reclaim(ctx)
	if waited := ctx.Err() != nil; waited != s.tight() {
		t.Errorf("waited: %v, space is short: %v", waited, s.tight())
	}
	s.reaped = nil
}

func TestIngestsThatComeToNothing(t *testing.T) {
	s := open(t, t.TempDir())
	in, err := s.NewIngest()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Commit(); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("committed without a seal: %v", err)
	}
	if err := in.Seal(Meta{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("sealed without a key: %v", err)
	}
	in.Abort()
	in.Abort()
	if n := s.making.Load(); n != 0 {
		t.Errorf("%d layers are in the making", n)
	}
	if left, _ := os.ReadDir(s.path(ingestDir)); len(left) != 0 {
		t.Errorf("%d ingests left", len(left))
	}
}

func TestTwoIngestsOfOneLayer(t *testing.T) {
	s := open(t, t.TempDir())
	a, b := layer(t, s, "a", 2), layer(t, s, "a", 2)
	if a != b || s.Count() != 1 || s.Usage().Inodes != 2 {
		t.Errorf("%p %p, %d layers, %+v", a, b, s.Count(), s.Usage())
	}
	s.Release(a)
	if !there(s, "a") {
		t.Error("the second user's layer was removed with the first's")
	}
	s.Release(b)
	if there(s, "a") {
		t.Error("nobody holds it, and it is there")
	}
}

// TestLayersAreSpreadOverTheDisk: without the hint each file of a pull that follows a removal is searched for among all deleted ones.
func TestLayersAreSpreadOverTheDisk(t *testing.T) {
	s := open(t, t.TempDir())
	f, err := os.Open(s.path(ingestDir))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil || fs.Type != unix.EXT4_SUPER_MAGIC {
		t.Skip("needs ext4: others place directories otherwise")
	}
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil || flags&topDir == 0 {
		t.Errorf("flags %#x, %v", flags, err)
	}
}
