package image

import (
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func slogLog() *log.Logger { return log.New(io.Discard, "", 0) }

func mountAt(t testing.TB, r Rootfs, target string) {
	t.Helper()
	if err := os.MkdirAll(target, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, m := range r.Mounts {
		mm := mount.Mount{Type: m.Type, Source: m.Source, Options: m.Options}
		if err := mm.Mount(target); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
}

func unmountAt(t testing.TB, target string) {
	t.Helper()
	if err := unix.Unmount(target, 0); err != nil {
		t.Fatal(err)
	}
}

// assertEmpty checks that nothing but the directories is left on disk.
func assertEmpty(t testing.TB, s *Store, dir string) {
	t.Helper()
	s.layers.Settle()
	_ = filepath.Walk(dir, func(p string, st os.FileInfo, err error) error {
		rel, _ := filepath.Rel(dir, p)
		switch {
		case err != nil: // removed meanwhile
			return nil //nolint:nilerr // what is not there is not left behind
		case strings.HasPrefix(rel, "certs.d"), strings.HasPrefix(rel, "merged"), rel == "images/durable.json":
		case st.IsDir() && (strings.Count(rel, "/") < 2 || strings.Contains(rel, "/l/.none")):
		default:
			t.Errorf("left behind: %s", rel)
		}
		return nil
	})
	if b, i := s.Usage(); b != 0 || i != 0 {
		t.Errorf("usage of nothing is %d bytes, %d inodes", b, i)
	}
}
