package archive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

func tarball(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, body := range files {
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(body)), Format: tar.FormatUSTAR}
		if to, ok := strings.CutPrefix(body, "-> "); ok {
			h.Typeflag, h.Linkname, h.Size, body = tar.TypeSymlink, to, 0, ""
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(w, body)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestAnArchiveIsReadHoweverItComes(t *testing.T) {
	plain := tarball(t, map[string]string{"manifest.json": "[]", "deep/layer.tar": strings.Repeat("layer ", 100_000)})
	var gz, zs bytes.Buffer
	zw := gzip.NewWriter(&gz)
	_, _ = zw.Write(plain)
	_ = zw.Close()
	sw, _ := zstd.NewWriter(&zs)
	_, _ = sw.Write(plain)
	_ = sw.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "a.tar")
	if err := os.WriteFile(file, plain, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for how, r := range map[string]io.Reader{"stream": bytes.NewReader(plain), "gzip": &gz, "zstd": &zs, "file": f} {
		a, err := Open(context.Background(), r, dir, func(int64) {})
		if err != nil {
			t.Errorf("%s: %v", how, err)
			continue
		}
		for range 2 { // in any order, and again
			s := a.Stream(context.Background(), "deep/layer.tar")
			b, err := io.ReadAll(s)
			if err != nil || len(b) != 600_000 {
				t.Errorf("%s: a layer of %d bytes, %v", how, len(b), err)
			}
			m, err := a.ReadFile("/manifest.json", 10)
			if err != nil || string(m) != "[]" {
				t.Errorf("%s: %q, %v", how, m, err)
			}
		}
		if _, err := a.ReadFile("deep/layer.tar", 10); err == nil {
			t.Errorf("%s: more was read than was allowed", how)
		}
		if _, err := a.ReadFile("not/there", 10); err == nil {
			t.Errorf("%s: a file that is not there was read", how)
		}
		_ = a.Close()
	}
	left, _ := os.ReadDir(dir)
	if len(left) != 1 {
		t.Errorf("%d files are in the scratch directory", len(left)-1)
	}
}

func TestDamagedArchivesAndImpatience(t *testing.T) {
	plain := tarball(t, map[string]string{"f": strings.Repeat("x", 100_000)})
	var gz bytes.Buffer
	zw := gzip.NewWriter(&gz)
	_, _ = zw.Write(plain)
	_ = zw.Close()
	for what, b := range map[string][]byte{"cut tar": plain[:700], "cut gzip": gz.Bytes()[:gz.Len()-10], "gzip of nothing": gz.Bytes()[:3]} {
		a, err := Open(context.Background(), bytes.NewReader(b), t.TempDir(), func(int64) {})
		if err == nil {
			_, err = a.ReadFile("f", 1<<20)
			_ = a.Close()
		}
		if err == nil {
			t.Errorf("%s is read without an error", what)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Open(ctx, bytes.NewReader(plain), t.TempDir(), func(int64) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("the caller has left: %v", err)
	}
}

// TestLinksThatGoInCircles: a "docker save" archive may hold links from one
// layer to another; a link to itself must not be followed for ever.
func TestLinksThatGoInCircles(t *testing.T) {
	a, err := Open(context.Background(), bytes.NewReader(tarball(t, map[string]string{
		"a/layer.tar": "-> ../b/layer.tar", "b/layer.tar": "the layer", "c": "-> d", "d": "-> c", "out": "-> ../../../etc/passwd",
	})), t.TempDir(), func(int64) {})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if b, err := a.ReadFile("a/layer.tar", 100); err != nil || string(b) != "the layer" {
		t.Errorf("%q, %v", b, err)
	}
	for _, name := range []string{"c", "d", "out"} {
		if b, err := a.ReadFile(name, 100); err == nil {
			t.Errorf("%s is %q", name, b)
		}
	}
}

func TestAnUnpackedLayerBecomesTheSameTarAgain(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: owners, whiteouts and trusted attributes")
	}
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, d := range []string{"etc", "gone", "opaque"} {
		_ = os.Mkdir(at(d), 0o750)
	}
	when := time.Unix(1700000000, 123456789)
	_ = os.WriteFile(at("etc/file"), []byte("content"), 0o640)
	_ = os.Chown(at("etc/file"), 1234, 5678)
	_ = os.Chmod(at("etc/file"), 0o640|os.ModeSetuid)
	_ = os.Chtimes(at("etc/file"), when, when)
	_ = os.Link(at("etc/file"), at("etc/same"))
	_ = os.Symlink("/etc/file", at("link"))
	if err := unix.Mknod(at("gone/file"), unix.S_IFCHR, 0); err != nil {
		t.Skipf("needs the right to make device nodes: %v", err)
	}
	if err := unix.Setxattr(at("opaque"), "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		t.Skipf("needs trusted attributes: %v", err)
	}
	var one, two bytes.Buffer
	for _, w := range []io.Writer{&one, &two} {
		if err := Pack(context.Background(), dir, true, w); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("the same directory gave two tars")
	}
	got := map[string]*tar.Header{}
	for tr := tar.NewReader(&one); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got[strings.TrimSuffix(h.Name, "/")] = h
	}
	for name, ok := range map[string]func(*tar.Header) bool{
		"etc/file": func(h *tar.Header) bool {
			return h.Uid == 1234 && h.Gid == 5678 && h.Mode&0o7777 == 0o4640 && h.ModTime.Equal(when) && h.Size == 7
		},
		"etc/same":            func(h *tar.Header) bool { return h.Typeflag == tar.TypeLink && h.Linkname == "etc/file" },
		"link":                func(h *tar.Header) bool { return h.Typeflag == tar.TypeSymlink && h.Linkname == "/etc/file" },
		"gone/.wh.file":       func(h *tar.Header) bool { return h.Typeflag == tar.TypeReg && h.Size == 0 },
		"opaque/.wh..wh..opq": func(h *tar.Header) bool { return h.Size == 0 },
	} {
		if h := got[name]; h == nil || !ok(h) {
			t.Errorf("%s came out as %+v", name, h)
		}
	}
	if _, ok := got["gone/file"]; ok {
		t.Error("a whiteout came out as a device")
	}
}
