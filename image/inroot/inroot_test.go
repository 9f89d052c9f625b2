package inroot

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// world is a root with a sentinel beside it that nothing in the root may reach.
func world(t *testing.T) (root, sentinel string) {
	t.Helper()
	base := t.TempDir()
	root, sentinel = filepath.Join(base, "root"), filepath.Join(base, "sentinel")
	for _, d := range []string{root, filepath.Join(root, "etc"), sentinel} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(sentinel, "passwd"), "the node's")
	return root, sentinel
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, to, at string) {
	t.Helper()
	if err := os.Symlink(to, at); err != nil {
		t.Fatal(err)
	}
}

func TestLinksEndAtTheRoot(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, root, sentinel string){
		"file is an absolute link out": func(t *testing.T, root, sentinel string) {
			link(t, filepath.Join(sentinel, "passwd"), filepath.Join(root, "etc/passwd"))
		},
		"file is a link out by ..": func(t *testing.T, root, _ string) {
			link(t, "../../sentinel/passwd", filepath.Join(root, "etc/passwd"))
		},
		"etc is a link out": func(t *testing.T, root, _ string) {
			if err := os.Remove(filepath.Join(root, "etc")); err != nil {
				t.Fatal(err)
			}
			link(t, "../../../../../../../../sentinel", filepath.Join(root, "etc"))
		},
		"link through a process's root": func(t *testing.T, root, sentinel string) {
			link(t, "/proc/self/root"+sentinel+"/passwd", filepath.Join(root, "etc/passwd"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			root, sentinel := world(t)
			prepare(t, root, sentinel)
			raw, err := ReadFile(root, "/etc/passwd", 1000)
			if err == nil {
				t.Fatalf("read %q from outside the root", raw)
			}
			if !errors.Is(err, errdefs.ErrNotFound) {
				t.Errorf("want not found, got %v", err)
			}
		})
	}
}

func TestLinksInsideAreFollowed(t *testing.T) {
	root, _ := world(t)
	if err := os.MkdirAll(filepath.Join(root, "usr/lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "usr/lib/passwd"), "the image's")
	link(t, "/usr/lib/passwd", filepath.Join(root, "etc/passwd"))
	for _, name := range []string{"/etc/passwd", "etc/passwd", "../../etc/passwd"} {
		raw, err := ReadFile(root, name, 1000)
		if err != nil || string(raw) != "the image's" {
			t.Errorf("%s: got %q, %v", name, raw, err)
		}
	}
}

func TestOnlyRegularFilesOfBoundedSize(t *testing.T) {
	root, _ := world(t)
	if err := unix.Mkfifo(filepath.Join(root, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "large"), "")
	if err := os.Truncate(filepath.Join(root, "large"), 4<<30); err != nil {
		t.Fatal(err)
	}
	link(t, "loop", filepath.Join(root, "loop"))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, name := range []string{"fifo", "large", "etc", "loop", "nul\x00"} {
			if _, err := ReadFile(root, name, 1<<20); !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("%q: want an invalid argument, got %v", name, err)
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("a FIFO without a writer held the read up")
	}
}

func TestReadFileAtItsBound(t *testing.T) {
	root, _ := world(t)
	write(t, filepath.Join(root, "f"), "12345")
	if raw, err := ReadFile(root, "f", 5); err != nil || len(raw) != 5 {
		t.Errorf("at the bound: %q, %v", raw, err)
	}
	if _, err := ReadFile(root, "f", 4); err == nil {
		t.Error("beyond the bound: read")
	}
}

func TestPathSurvivesASwap(t *testing.T) {
	root, sentinel := world(t)
	write(t, filepath.Join(root, "etc/hosts"), "the image's")
	p, err := Path(root, "/etc/hosts")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := os.Remove(filepath.Join(root, "etc/hosts")); err != nil {
		t.Fatal(err)
	}
	link(t, filepath.Join(sentinel, "passwd"), filepath.Join(root, "etc/hosts"))
	st, err := p.Stat()
	if err != nil || st.Size() != int64(len("the image's")) {
		t.Errorf("the descriptor changed with the name: %v %v", st, err)
	}
}

func FuzzNamesStayInside(f *testing.F) {
	for _, s := range []string{"etc/passwd", "../sentinel/passwd", "/proc/self/fd/0", strings.Repeat("../", 50) + "etc", "etc//./passwd"} {
		f.Add(s)
	}
	base := f.TempDir()
	root := filepath.Join(base, "root")
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		f.Fatal(err)
	}
	if err := os.Symlink("../..", filepath.Join(root, "up")); err != nil {
		f.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(base, "secret"), []byte("secret"), 0o600); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if raw, err := ReadFile(root, name, 1000); err == nil {
			t.Fatalf("read %q by %q: the root holds no file", raw, name)
		}
	})
}
