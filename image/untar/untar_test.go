package untar

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: owners, device nodes and trusted attributes")
	}
}

type entry struct {
	h    tar.Header
	body string
}

func tarOf(t testing.TB, es ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range es {
		h := e.h
		h.Size = int64(len(e.body))
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1700000000, 0)
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	return b.Bytes()
}

func reg(name, body string) entry { return entry{tar.Header{Name: name}, body} }
func dir(name string) entry       { return entry{tar.Header{Name: name, Typeflag: tar.TypeDir}, ""} }
func sym(name, to string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}, ""}
}
func hard(name, to string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to}, ""}
}
func withMode(e entry, m int64) entry { e.h.Mode = m; return e }
func xattr(e entry, k, v string) entry {
	e.h.PAXRecords = map[string]string{"SCHILY.xattr." + k: v}
	return e
}

// jail is a directory to unpack into, beside a sentinel that must not change.
type jail struct{ root, sentinel string }

func newJail(t testing.TB) jail {
	t.Helper()
	base := t.TempDir()
	j := jail{root: filepath.Join(base, "root"), sentinel: filepath.Join(base, "sentinel")}
	if err := os.Mkdir(j.root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(j.sentinel, []byte("safe"), 0o600); err != nil {
		t.Fatal(err)
	}
	return j
}

func (j jail) check(t testing.TB) {
	t.Helper()
	b, err := os.ReadFile(j.sentinel)
	st, serr := os.Lstat(j.sentinel)
	if err != nil || serr != nil || string(b) != "safe" || st.Mode().Perm() != 0o600 {
		t.Errorf("the sentinel outside was touched: %q %v %v", b, st, err)
	}
	entries, _ := os.ReadDir(filepath.Dir(j.sentinel))
	if len(entries) != 2 {
		t.Errorf("something new outside: %v", entries)
	}
	var s unix.Stat_t
	if unix.Lstat(j.sentinel, &s) == nil && s.Nlink != 1 {
		t.Errorf("the sentinel got a hard link")
	}
}

func unpack(t testing.TB, j jail, es ...entry) (*Result, error) {
	t.Helper()
	return Unpack(context.Background(), bytes.NewReader(tarOf(t, es...)), j.root, Options{})
}

func TestNothingLeavesTheDirectory(t *testing.T) {
	needRoot(t)
	for what, es := range map[string][]entry{
		"dot dot":                         {reg("../sentinel", "evil")},
		"deep dot dot":                    {reg("a/../../../../sentinel", "evil")},
		"absolute":                        {reg("/../sentinel", "evil"), reg("/sentinel", "mine")},
		"through a link":                  {sym("out", ".."), reg("out/sentinel", "evil")},
		"through an absolute link":        {sym("out", "/.."), reg("out/sentinel", "evil")},
		"through a chain of links":        {sym("a", "b"), sym("b", "c"), sym("c", "../.."), reg("a/sentinel", "evil")},
		"link then file of the same name": {sym("f", "../sentinel"), reg("f", "evil")},
		"chmod through a link":            {sym("f", "../sentinel"), withMode(dir("f"), 0o777)},
		"chmod by a hard link":            {sym("f", "../sentinel"), hard("g", "f"), withMode(reg("g", "evil"), 0o777)},
		"directory swapped for a link":    {dir("d"), reg("d/x", "1"), sym("d", ".."), reg("d/sentinel", "evil")},
		"link swapped for a directory":    {sym("d", ".."), dir("d"), reg("d/sentinel", "mine")},
		"dangling link as parent":         {sym("d", "../../new/dir"), reg("d/f", "evil")},
		"whiteout outside":                {sym("d", ".."), reg("d/.wh.sentinel", "")},
		"opaque outside":                  {sym("d", ".."), reg("d/.wh..wh..opq", "")},
		"proc link":                       {sym("d", "/proc/self/cwd"), reg("d/sentinel", "evil")},
		"xattr through a link":            {sym("f", "../sentinel"), xattr(reg("f", "x"), "user.a", "b")},
	} {
		t.Run(what, func(t *testing.T) {
			j := newJail(t)
			_, err := unpack(t, j, es...)
			t.Log(err)
			j.check(t)
		})
	}
}

func TestRefusedEntries(t *testing.T) {
	needRoot(t)
	for what, es := range map[string][]entry{
		"hard link to itself":    {hard("a", "a")},
		"whiteout of nothing":    {reg(".wh.", "")},
		"whiteout of dot dot":    {reg(".wh...", "")},
		"owner beyond 32 bits":   {{tar.Header{Name: "f", Uid: 1 << 33}, ""}},
		"owner minus one":        {{tar.Header{Name: "f", Uid: 1<<32 - 1}, ""}},
		"file as a parent":       {reg("f", "x"), reg("f/g", "y")},
		"link loop as a parent":  {sym("a", "b"), sym("b", "a"), reg("a/f", "x")},
		"component of 300 bytes": {reg(strings.Repeat("n", 300), "x")},
		"path of 5000 bytes":     {reg(strings.Repeat("n/", 2500)+"f", "x")},
	} {
		t.Run(what, func(t *testing.T) {
			j := newJail(t)
			if _, err := unpack(t, j, es...); err == nil {
				t.Error("unpacked")
			}
			j.check(t)
		})
	}
}

func TestAttributesSurvive(t *testing.T) {
	needRoot(t)
	j := newJail(t)
	at := time.Unix(1600000000, 123456789)
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	long := strings.Repeat("n", 255)
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	res, err := unpack(t, j,
		entry{tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o2775, Gid: 50, ModTime: at, Format: tar.FormatPAX}, ""},
		entry{tar.Header{Name: "d/suid", Mode: 0o4755, Uid: 1000, Gid: 1000, ModTime: at, Format: tar.FormatPAX}, "x"},
		entry{tar.Header{Name: "big", Uid: 4000000000, Gid: 4000000000, Format: tar.FormatPAX}, ""},
		xattr(reg("cap", "x"), "security.capability", capability),
		xattr(reg("evil", "x"), "trusted.overlay.redirect", "/etc"),
		entry{tar.Header{Name: "fifo", Typeflag: tar.TypeFifo, Mode: 0o622}, ""},
		entry{tar.Header{Name: "dev", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666}, ""},
		reg(long, "long"))
	if err != nil {
		t.Fatal(err)
	}
	if !res.SelfContained() {
		t.Errorf("needs %+v", res)
	}
	want := func(name string, mode, uid, gid uint32) unix.Stat_t {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(j.root, name), &st); err != nil || st.Mode&0o7777 != mode || st.Uid != uid || st.Gid != gid {
			t.Errorf("%s: mode %o owner %d:%d, %v; want %o %d:%d", name, st.Mode&0o7777, st.Uid, st.Gid, err, mode, uid, gid)
		}
		return st
	}
	for _, n := range []string{"d", "d/suid"} {
		st := want(n, map[string]uint32{"d": 0o2775, "d/suid": 0o4755}[n], map[string]uint32{"d": 0, "d/suid": 1000}[n], map[string]uint32{"d": 50, "d/suid": 1000}[n])
		if st.Mtim.Nsec != 123456789 || st.Mtim.Sec != 1600000000 {
			t.Errorf("%s: time %d.%09d", n, st.Mtim.Sec, st.Mtim.Nsec)
		}
	}
	want("big", 0o755, 4000000000, 4000000000)
	want("fifo", 0o622, 0, 0)
	if st := want("dev", 0o666, 0, 0); st.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("device is %x", st.Rdev)
	}
	buf := make([]byte, 64)
	if n, err := unix.Getxattr(filepath.Join(j.root, "cap"), "security.capability", buf); err != nil || string(buf[:n]) != capability {
		t.Errorf("capability: %q %v", buf[:max(n, 0)], err)
	}
	if n, err := unix.Getxattr(filepath.Join(j.root, "evil"), "trusted.overlay.redirect", buf); err == nil {
		t.Errorf("an image set overlayfs's own attribute to %q", buf[:n])
	}
	if b, err := os.ReadFile(filepath.Join(j.root, long)); err != nil || string(b) != "long" {
		t.Errorf("long name: %q %v", b, err)
	}
}

func TestWhiteoutsConcernLowerLayersOnly(t *testing.T) {
	needRoot(t)
	j := newJail(t)
	_, err := unpack(t, j,
		reg(".wh.plain", ""),
		reg("own", "kept"), reg(".wh.own", ""),
		reg(".wh.again", ""), reg("again", "new"),
		reg(".wh.dir1", ""), dir("dir1"), reg("dir1/f", "x"),
		dir("dir2"), reg("dir2/f", "x"), reg(".wh.dir2", ""),
		dir("opq"), reg("opq/f", "x"), reg("opq/.wh..wh..opq", ""),
		reg(".wh..wh.plnk", ""))
	if err != nil {
		t.Fatal(err)
	}
	isWhite := func(name string) bool {
		var st unix.Stat_t
		return unix.Lstat(filepath.Join(j.root, name), &st) == nil && isWhiteout(&st)
	}
	isOpaque := func(name string) bool {
		var b [1]byte
		n, err := unix.Getxattr(filepath.Join(j.root, name), OpaqueXattr, b[:])
		return err == nil && n == 1 && b[0] == 'y'
	}
	if !isWhite("plain") || isWhite("own") || isWhite("again") || isWhite("dir1") {
		t.Error("wrong whiteouts")
	}
	for _, d := range []string{"dir1", "dir2", "opq"} {
		if !isOpaque(d) {
			t.Errorf("%s merges with the directory that this layer removed", d)
		}
		if _, err := os.Stat(filepath.Join(j.root, d, "f")); err != nil {
			t.Errorf("%s: %v", d, err)
		}
	}
}

func TestTypeChangesWithinALayer(t *testing.T) {
	needRoot(t)
	j := newJail(t)
	_, err := unpack(t, j,
		dir("a"), dir("a/b"), reg("a/b/c", "x"), reg("a", "file now"),
		reg("f", "x"), dir("f"), reg("f/g", "inside"),
		sym("l", "nowhere"), reg("l", "file now"),
		reg("twice", "1"), reg("twice", "22"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a": "file now", "f/g": "inside", "l": "file now", "twice": "22"} {
		if b, err := os.ReadFile(filepath.Join(j.root, name)); err != nil || string(b) != want {
			t.Errorf("%s: %q %v", name, b, err)
		}
	}
}

func TestHardLinkIntoALowerLayerIsCopiedUp(t *testing.T) {
	needRoot(t)
	low, top := newJail(t), newJail(t)
	if _, err := unpack(t, low, withMode(dir("etc"), 0o750), withMode(reg("etc/f", "lower"), 0o640), dir("gone"), reg("gone/g", "x")); err != nil {
		t.Fatal(err)
	}
	res, err := unpack(t, top, hard("etc/link", "etc/f"), reg("etc/other", "x"))
	if err != nil {
		t.Fatal(err)
	}
	if res.SelfContained() || len(res.Links) != 1 || len(res.Implied) != 1 {
		t.Fatalf("needs %+v", res)
	}
	if err := Complete(context.Background(), top.root, res, []string{low.root}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(top.root, "etc/link"))
	if err != nil || string(b) != "lower" {
		t.Errorf("link: %q %v", b, err)
	}
	if st, _ := os.Stat(filepath.Join(top.root, "etc")); st.Mode().Perm() != 0o750 {
		t.Errorf("the directory that the layer does not describe has mode %v, the lower one 0750", st.Mode())
	}
	res = &Result{Links: []Link{{"x", "gone/g"}}}
	mid := newJail(t)
	if _, err := unpack(t, mid, reg(".wh.gone", "")); err != nil {
		t.Fatal(err)
	}
	if err := Complete(context.Background(), top.root, res, []string{mid.root, low.root}); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("link to a removed file: %v", err)
	}
}

func TestLimits(t *testing.T) {
	needRoot(t)
	j := newJail(t)
	data := tarOf(t, reg("a", "12345"), reg("b", "67890"))
	if _, err := Unpack(context.Background(), bytes.NewReader(data), j.root, Options{MaxBytes: 9}); !errors.Is(err, errdefs.ErrResourceExhausted) {
		t.Errorf("bytes: %v", err)
	}
	j = newJail(t)
	if _, err := Unpack(context.Background(), bytes.NewReader(data), j.root, Options{MaxEntries: 1}); !errors.Is(err, errdefs.ErrResourceExhausted) {
		t.Errorf("entries: %v", err)
	}
	j = newJail(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Unpack(ctx, bytes.NewReader(data), j.root, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	j = newJail(t)
	if _, err := Unpack(context.Background(), bytes.NewReader(data[:515]), j.root, Options{}); err == nil {
		t.Error("a cut tar was taken")
	}
}

// Work per entry must not grow with their number (GHSA-rp3h-jf77-q9p4).
func TestTimeGrowsLinearly(t *testing.T) {
	needRoot(t)
	if testing.Short() {
		t.Skip("takes seconds")
	}
	run := func(n int) time.Duration {
		j := newJail(t)
		pr, pw := io.Pipe()
		go func() {
			w := tar.NewWriter(pw)
			for i := range n {
				name := fmt.Sprintf("d%d/e%d/.wh.f%d", i%97, i%89, i)
				if i%3 == 0 {
					name = fmt.Sprintf("d%d/same", i%97)
				}
				_ = w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644})
			}
			pw.CloseWithError(w.Close())
		}()
		begin := time.Now()
		if _, err := Unpack(context.Background(), pr, j.root, Options{}); err != nil {
			t.Fatal(err)
		}
		return time.Since(begin)
	}
	small := run(2000)
	big := run(20_000)
	t.Logf("2,000 entries in %v, 20,000 in %v", small, big)
	if big > 40*small+2*time.Second {
		t.Errorf("ten times the entries took %.0f times as long", float64(big)/float64(small))
	}
}

func FuzzUnpack(f *testing.F) {
	if os.Geteuid() != 0 {
		f.Skip("needs root: owners, device nodes and trusted attributes")
	}
	f.Add(tarOf(f, reg("a", "x"), sym("l", ".."), reg("l/sentinel", "evil"), hard("h", "a"), reg("l/.wh.x", "")))
	f.Add(tarOf(f, dir("d"), reg("d/.wh..wh..opq", ""), reg("d", "f")))
	f.Fuzz(func(t *testing.T, data []byte) {
		j := newJail(t)
		res, err := Unpack(context.Background(), bytes.NewReader(data), j.root, Options{MaxBytes: 1 << 20, MaxEntries: 1000})
		if err == nil {
			_ = Complete(context.Background(), j.root, res, nil)
		}
		j.check(t)
	})
}
