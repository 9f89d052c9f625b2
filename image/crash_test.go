package image

import (
	"archive/tar"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/image/layers"
	"github.com/crid-project/crid/image/record"
)

// pulled answers a store with two images that share a layer.
func pulled(t testing.TB, dir string) (*Store, Image, Image) {
	t.Helper()
	host := serve(t)
	base := layerOf(t, file{name: "etc/", kind: tar.TypeDir}, file{name: "etc/base", body: "base"})
	push(t, host+"/a:1", imageOf(t, base, layerOf(t, file{name: "one", body: "1"})))
	push(t, host+"/a:2", imageOf(t, base, layerOf(t, file{name: "two", body: "2"})))
	s := openStore(t, dir)
	var out []Image
	for _, tag := range []string{"1", "2"} {
		img, err := s.Pull(context.Background(), PullRequest{Ref: host + "/a:" + tag})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, img)
	}
	return s, out[0], out[1]
}

// unsynced makes a layer one of an earlier boot that was pulled after the last sync.
func unsynced(dir string) {
	var m layers.Meta
	if err := record.Read(dir+".json", &m); err != nil {
		panic(err)
	}
	m.Gen, m.Boot = 1<<40, "an earlier one"
	if err := record.Write(dir+".json", m, false); err != nil {
		panic(err)
	}
}

func TestWhatACrashLeavesIsRepairedAtStart(t *testing.T) {
	needRoot(t)
	for what, c := range map[string]struct {
		damage func(dir string, a, b Image, s *Store)
		want   int // images left
	}{
		"nothing": {func(string, Image, Image, *Store) {}, 2},
		"unfinished layer": {func(dir string, _, _ Image, _ *Store) {
			_ = os.MkdirAll(filepath.Join(dir, "images/ingest/x/diff/etc"), 0o755)
		}, 2},
		"layer renamed, record not": {func(dir string, _, _ Image, _ *Store) {
			_ = os.MkdirAll(filepath.Join(dir, "images/l/zz/etc"), 0o755)
		}, 2},
		"layer record empty": {func(dir string, a, _ Image, s *Store) {
			_ = os.Truncate(s.layers.Dir(s.images[a.ID].layers[1])+".json", 0)
		}, 1},
		"shared layer gone": {func(dir string, a, _ Image, s *Store) {
			_ = os.RemoveAll(s.layers.Dir(s.images[a.ID].layers[0]))
		}, 0},
		"power failure before a layer was on the disk": {func(_ string, a, _ Image, s *Store) {
			unsynced(s.layers.Dir(s.images[a.ID].layers[1]))
		}, 1},
		"power failure before the shared layer was on the disk": {func(_ string, a, _ Image, s *Store) {
			unsynced(s.layers.Dir(s.images[a.ID].layers[0]))
		}, 0},
		"image record torn": {func(dir string, a, _ Image, s *Store) {
			st, _ := os.Stat(s.recordPath(a.ID))
			_ = os.Truncate(s.recordPath(a.ID), st.Size()/2)
		}, 1},
		"image record is a link": {func(dir string, a, _ Image, s *Store) {
			_ = os.Remove(s.recordPath(a.ID))
			_ = os.Symlink("/etc/passwd", s.recordPath(a.ID))
		}, 1},
		"image record is a directory": {func(dir string, a, _ Image, s *Store) {
			_ = os.Remove(s.recordPath(a.ID))
			_ = os.Mkdir(s.recordPath(a.ID), 0o755)
		}, 1},
		"temporary record": {func(dir string, _, _ Image, _ *Store) {
			_ = os.WriteFile(filepath.Join(dir, "images/records/.tmp-1"), []byte("x"), 0o600)
		}, 2},
		"record under another name": {func(dir string, a, b Image, s *Store) {
			raw, _ := os.ReadFile(s.recordPath(a.ID))
			_ = os.WriteFile(filepath.Join(dir, "images/records/sha256-"+strings.Repeat("0", 64)+".json"), raw, 0o600)
		}, 2},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			s, a, b := pulled(t, dir)
			s.Close()
			c.damage(dir, a, b, s)
			s = openStore(t, dir)
			imgs := s.List()
			if len(imgs) != c.want {
				t.Fatalf("%d images, want %d", len(imgs), c.want)
			}
			for _, img := range imgs {
				if _, err := s.PrepareRootfs(context.Background(), "c-"+img.ID[7:15], img, RootfsOptions{}); err != nil {
					t.Error(err)
				}
				_ = s.RemoveRootfs(context.Background(), "c-"+img.ID[7:15])
				if err := s.Remove(context.Background(), img.ID); err != nil {
					t.Error(err)
				}
			}
			s.layers.Settle()
			left, _ := filepath.Glob(filepath.Join(dir, "images", "*", "*"))
			for _, p := range left {
				if !strings.Contains(p, "/quarantine/") && !strings.Contains(p, "/.none") {
					t.Errorf("left behind: %s", p)
				}
			}
		})
	}
}

func TestTagThatMovesLeavesTheOldImage(t *testing.T) {
	needRoot(t)
	host := serve(t)
	dir := t.TempDir()
	s := openStore(t, dir)
	var ids []string
	for i := range 2 {
		push(t, host+"/a:1", imageOf(t, layerOf(t, file{name: "f", body: fmt.Sprint(i)})))
		img, err := s.Pull(context.Background(), PullRequest{Ref: host + "/a:1"})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, img.ID)
	}
	for range 2 { // also after a restart
		old, err := s.Resolve(ids[0])
		if err != nil || len(old.Tags) != 0 || len(old.Digests) != 1 {
			t.Errorf("old image: %v %v %v", old.Tags, old.Digests, err)
		}
		now, err := s.Resolve(host + "/a:1")
		if err != nil || now.ID != ids[1] {
			t.Errorf("the tag names %s, %v", now.ID, err)
		}
		s.Close()
		s = openStore(t, dir)
	}
}

func TestByDigestThereIsNoTag(t *testing.T) {
	needRoot(t)
	host := serve(t)
	img := imageOf(t, layerOf(t, file{name: "f", body: "x"}))
	push(t, host+"/a:1", img)
	d, _ := img.Digest()
	s := openStore(t, t.TempDir(), func(c *Config) { c.Pinned = []string{host + "/*"} })
	got, err := s.Pull(context.Background(), PullRequest{Ref: host + "/a@" + d.String()})
	if err != nil || len(got.Tags) != 0 || len(got.Digests) != 1 || got.Digests[0] != host+"/a@"+d.String() || !got.Pinned {
		t.Fatalf("%+v, %v", got, err)
	}
	got, err = s.Pull(context.Background(), PullRequest{Ref: host + "/a:1"})
	if err != nil || len(got.Tags) != 1 || len(s.List()) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	if err := s.Remove(context.Background(), host+"/a:1"); err != nil || len(s.List()) != 0 {
		t.Fatalf("a tag removes the image with all its names: %v", err)
	}
	if _, err := s.Resolve(got.ID); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
	for _, bad := range []string{"", "UP/a b", "a@sha256:zz"} {
		if err := s.Remove(context.Background(), bad); err == nil {
			t.Errorf("removing %q is no error", bad)
		}
	}
}

func TestManyLayersMount(t *testing.T) {
	needRoot(t)
	for _, n := range []int{1, 130, 500, 520} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			if n > 200 && testing.Short() {
				t.Skip("takes seconds")
			}
			host := serve(t)
			var ls []v1.Layer
			for i := range n {
				ls = append(ls, layerOf(t, file{name: fmt.Sprintf("f%d", i), body: fmt.Sprint(i)}))
			}
			push(t, host+"/a:1", imageOf(t, ls...))
			dir := t.TempDir()
			s := openStore(t, dir)
			img, err := s.Pull(context.Background(), PullRequest{Ref: host + "/a:1"})
			if err != nil {
				t.Fatal(err)
			}
			r, err := s.PrepareRootfs(context.Background(), strings.Repeat("c", 64), img, RootfsOptions{})
			if err != nil {
				t.Fatal(err)
			}
			target := filepath.Join(dir, "merged")
			mountAt(t, r, target)
			for _, i := range []int{0, n / 2, n - 1} {
				if _, err := os.Stat(filepath.Join(target, fmt.Sprintf("f%d", i))); err != nil {
					t.Error(err)
				}
			}
			unmountAt(t, target)
		})
	}
}

func TestSameLayerTwiceAndNoLayers(t *testing.T) {
	needRoot(t)
	host := serve(t)
	a, b := layerOf(t, file{name: "f", body: "a"}), layerOf(t, file{name: "f", body: "b"})
	push(t, host+"/twice:1", imageOf(t, a, b, a))
	push(t, host+"/none:1", imageOf(t))
	for _, ref := range []string{"/twice:1", "/none:1"} {
		for _, ro := range []bool{false, true} {
			dir := t.TempDir()
			s := openStore(t, dir)
			img, err := s.Pull(context.Background(), PullRequest{Ref: host + ref})
			if err != nil {
				t.Fatal(err)
			}
			r, err := s.PrepareRootfs(context.Background(), "c", img, RootfsOptions{ReadOnly: ro})
			if err != nil {
				t.Fatal(err)
			}
			target := filepath.Join(dir, "merged")
			mountAt(t, r, target)
			if got, _ := os.ReadFile(filepath.Join(target, "f")); ref == "/twice:1" && string(got) != "a" {
				t.Errorf("%q", got)
			}
			if err := os.WriteFile(filepath.Join(target, "new"), nil, 0o644); (err == nil) == ro {
				t.Errorf("%s read-only %v: write: %v", ref, ro, err)
			}
			unmountAt(t, target)
		}
	}
}

func TestUserNamespaceSeesItsOwnFiles(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	s, a, _ := pulled(t, dir)
	m := []oci.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	for _, kind := range []string{"overlay", "native"} {
		if kind == "native" {
			s.Close()
			s = openStore(t, dir, func(c *Config) { c.Snapshotter = "native" })
		}
		id := "c-" + kind
		r, err := s.PrepareRootfs(context.Background(), id, a, RootfsOptions{UIDs: m, GIDs: m})
		if err != nil {
			t.Fatal(err)
		}
		target := filepath.Join(dir, "merged")
		mountAt(t, r, target)
		for _, f := range []string{"", "etc", "etc/base"} {
			var st unix.Stat_t
			if err := unix.Stat(filepath.Join(target, f), &st); err != nil || st.Uid != 100000 || st.Gid != 100000 {
				t.Errorf("%s %q: owner %d:%d, %v", kind, f, st.Uid, st.Gid, err)
			}
		}
		unmountAt(t, target)
		if err := s.RemoveRootfs(context.Background(), id); err != nil {
			t.Error(err)
		}
	}
}

func TestImageVolumes(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	s, a, _ := pulled(t, dir)
	for i, c := range []struct{ sub, file string }{{"", "etc/base"}, {"etc", "base"}, {"/etc/../etc", "base"}, {"etc/base", ""}} {
		key, target := fmt.Sprint("pod/", i), filepath.Join(dir, "merged", fmt.Sprint("m", i))
		_ = os.MkdirAll(filepath.Join(dir, "merged"), 0o755)
		for range 2 {
			if err := s.MountImage(context.Background(), key, a, target, c.sub); err != nil {
				t.Fatal(err)
			}
		}
		if b, err := os.ReadFile(filepath.Join(target, c.file)); err != nil || string(b) != "base" {
			t.Errorf("%q: %q %v", c.sub, b, err)
		}
		if err := os.WriteFile(filepath.Join(target, c.file), []byte("x"), 0o644); err == nil {
			t.Errorf("%q is writable", c.sub)
		}
		if i == 1 {
			s.Close()
			s = openStore(t, dir) // a restart in between
		}
		for range 2 {
			if err := s.UnmountImage(context.Background(), key); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := os.Lstat(target); !os.IsNotExist(err) {
			t.Errorf("target left: %v", err)
		}
	}
	for _, sub := range []string{"nowhere", "../../../../etc/hostname"} {
		if err := s.MountImage(context.Background(), "k", a, filepath.Join(dir, "merged", "x"), sub); !errdefs.IsNotFound(err) {
			t.Errorf("%q: %v", sub, err)
		}
	}
	out, _ := exec.Command("grep", "-c", dir, "/proc/self/mountinfo").Output()
	if strings.TrimSpace(string(out)) != "0" {
		t.Errorf("%s mounts left", out)
	}
}

func TestRemoveRootfsStopsAtAMount(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	s, a, _ := pulled(t, dir)
	r, err := s.PrepareRootfs(context.Background(), "c", a, RootfsOptions{})
	if err != nil {
		t.Fatal(err)
	}
	host := filepath.Join(dir, "merged-host")
	inside := filepath.Join(r.UpperDir, "deep", "mnt")
	_ = os.MkdirAll(host, 0o755)
	_ = os.MkdirAll(inside, 0o755)
	_ = os.WriteFile(filepath.Join(host, "sentinel"), nil, 0o644)
	if err := unix.Mount(host, inside, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(inside, unix.MNT_DETACH)
	if err := s.RemoveRootfs(context.Background(), "c"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("removed: %v", err)
	}
	if _, err := os.Stat(filepath.Join(host, "sentinel")); err != nil {
		t.Fatal("a file of the host was deleted through a mount")
	}
	unmountAt(t, inside)
	if err := s.RemoveRootfs(context.Background(), "c"); err != nil {
		t.Error(err)
	}
	for _, id := range []string{"", "../x", "a/b", ".", strings.Repeat("a", 200)} {
		if _, err := s.PrepareRootfs(context.Background(), id, a, RootfsOptions{}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("id %q: %v", id, err)
		}
	}
}

func TestUsageOfAContainer(t *testing.T) {
	needRoot(t)
	s, a, _ := pulled(t, t.TempDir())
	r, err := s.PrepareRootfs(context.Background(), "c", a, RootfsOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_ = os.WriteFile(filepath.Join(r.UpperDir, "f"), make([]byte, 100_000), 0o644)
	b, i, err := s.RootfsUsage(context.Background(), "c")
	if err != nil || b < 100_000 || b > 200_000 || i != 2 {
		t.Errorf("%d bytes, %d inodes, %v", b, i, err)
	}
	if _, _, err := s.RootfsUsage(context.Background(), "none"); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
}

func TestPrepareAtOnceIsOneRootfs(t *testing.T) {
	needRoot(t)
	s, a, _ := pulled(t, t.TempDir())
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			ctx := context.Background()
			if i%4 == 0 {
				c, cancel := context.WithCancel(ctx)
				cancel()
				ctx = c
			}
			_, _ = s.PrepareRootfs(ctx, "c", a, RootfsOptions{})
		})
	}
	wg.Wait()
	r, err := s.Rootfs("c")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(r.UpperDir); err != nil {
		t.Error(err)
	}
	if err := s.RemoveRootfs(context.Background(), "c"); err != nil {
		t.Fatal(err)
	}
	for _, img := range s.List() {
		_ = s.Remove(context.Background(), img.ID)
	}
	if n := s.layers.Count(); n != 0 {
		t.Errorf("%d layers are held by nobody", n)
	}
}
