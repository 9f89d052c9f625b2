package image

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func TestExportedImageComesBackWithTheSameFiles(t *testing.T) {
	needRoot(t)
	host := serve(t)
	push(t, host+"/a/b:1", imageOf(t,
		layerOf(t, file{name: "d/", kind: tar.TypeDir}, file{name: "d/f", body: "one", mode: 0o4711}, file{name: "gone", body: "x"}, file{name: "d/h", kind: tar.TypeLink, link: "d/f"}),
		layerOf(t, file{name: ".wh.gone"}, file{name: "d/", kind: tar.TypeDir}, file{name: "d/.wh..wh..opq"}, file{name: "d/l", kind: tar.TypeSymlink, link: "/etc"})))
	dir := t.TempDir()
	s := openStore(t, dir)
	img, err := s.Pull(context.Background(), PullRequest{Ref: host + "/a/b:1"})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := s.Export(context.Background(), &out, img.ID); err != nil {
		t.Fatal(err)
	}
	dir2 := t.TempDir()
	s2 := openStore(t, dir2)
	back, err := s2.Import(context.Background(), bytes.NewReader(out.Bytes()), ImportOptions{})
	if err != nil || len(back) != 1 {
		t.Fatalf("import: %v, %v", back, err)
	}
	if len(back[0].Tags) != 1 || back[0].Tags[0] != host+"/a/b:1" || len(back[0].Config.Config.Env) != 1 {
		t.Errorf("imported as %v with %v", back[0].Tags, back[0].Config.Config.Env)
	}
	r, err := s2.PrepareRootfs(context.Background(), "c", back[0], RootfsOptions{})
	if err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(dir2, "merged")
	mountAt(t, r, target)
	entries, _ := os.ReadDir(filepath.Join(target, "d"))
	if len(entries) != 1 || entries[0].Name() != "l" {
		t.Errorf("the opaque directory shows %v", entries)
	}
	if _, err := os.Lstat(filepath.Join(target, "gone")); !os.IsNotExist(err) {
		t.Errorf("a removed file came back: %v", err)
	}
	unmountAt(t, target)
}

func TestDockerArchiveFromAPipe(t *testing.T) {
	needRoot(t)
	img := imageOf(t, layerOf(t, file{name: "f", body: "hello"}))
	tag, _ := name.NewTag("example.com/x:1")
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(tarball.Write(tag, img, pw)) }()
	s := openStore(t, t.TempDir())
	got, err := s.Import(context.Background(), pr, ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want, _ := img.ConfigName()
	if len(got) != 1 || got[0].ID != want.String() || got[0].Tags[0] != "example.com/x:1" {
		t.Errorf("imported %+v", got)
	}
	if _, err := s.Resolve("example.com/x:1"); err != nil {
		t.Error(err)
	}
}

func TestImportOfRubbishLeavesNothing(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	s := openStore(t, dir)
	for what, data := range map[string][]byte{"empty": {}, "text": bytes.Repeat([]byte("no tar"), 1000), "cut gzip": {0x1f, 0x8b, 8, 0}} {
		if got, err := s.Import(context.Background(), bytes.NewReader(data), ImportOptions{}); err == nil {
			t.Errorf("%s: imported %v", what, got)
		}
	}
	assertEmpty(t, s, dir)
}
