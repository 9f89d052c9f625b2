package tree

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// deep makes directories inside each other, further than any path can name.
func deep(t *testing.T, dir string, n int) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		if err := unix.Mkdirat(fd, "a-directory-in-a-directory", 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, "a-directory-in-a-directory", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		if err != nil {
			t.Fatal(err)
		}
		fd = next
	}
	unix.Close(fd)
}

func TestDeepTreesAreRemoved(t *testing.T) {
	root := filepath.Join(t.TempDir(), "tree")
	_ = os.Mkdir(root, 0o755)
	deep(t, root, 3000)
	if _, err := Measure(context.Background(), root); err != nil {
		t.Error(err)
	}
	if err := Remove(context.Background(), root); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(root); !errors.Is(err, os.ErrNotExist) {
		t.Error("still there")
	}
	if err := Remove(context.Background(), root); err != nil {
		t.Errorf("again: %v", err)
	}
}

func TestLinksAreNotFollowed(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "outside")
	_ = os.Mkdir(out, 0o755)
	_ = os.WriteFile(filepath.Join(out, "sentinel"), make([]byte, 1<<20), 0o644)
	root := filepath.Join(dir, "tree")
	_ = os.Mkdir(root, 0o755)
	_ = os.Symlink(out, filepath.Join(root, "link"))
	_ = os.WriteFile(filepath.Join(root, "f"), []byte("x"), 0o644)
	_ = os.Link(filepath.Join(root, "f"), filepath.Join(root, "g"))
	u, err := Measure(context.Background(), root)
	if err != nil || u.Inodes != 3 || u.Bytes > 64<<10 {
		t.Errorf("%+v, %v: want the root, a link and one file with two names", u, err)
	}
	if err := Remove(context.Background(), root); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(out, "sentinel")); err != nil {
		t.Error("removal went through a link")
	}
}

func TestRemoveEndsWithItsContext(t *testing.T) {
	root := filepath.Join(t.TempDir(), "tree")
	_ = os.MkdirAll(filepath.Join(root, "a"), 0o755)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Remove(ctx, root); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
