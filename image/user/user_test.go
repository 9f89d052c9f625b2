package user

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/crid-project/crid/container/plan"
	"golang.org/x/sys/unix"
)

const passwd = `root:x:0:0:root:/root:/bin/sh
# a comment
daemon:x:1:1::/sbin:/sbin/nologin
www:x:1000:1001:web:/srv/www:/bin/false
4294967296:x:0:0::/root:/bin/sh
-1:x:0:0::/root:/bin/sh
0x0:x:0:0::/root:/bin/sh
3proxy:x:1003:1003::/:/bin/false
wrapped:x:4294967296:0::/:/bin/sh
injected:x:1004:1004::relative:/bin/sh
short:x:1005:1005
broken
`

const group = `root:x:0:
staff:x:50:www,daemon
www:x:1001:
video:x:44:www
www2:x:1002:www
4294967297:x:0:
`

func image(t testing.TB, passwd, group string) string {
	t.Helper()
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"passwd": passwd, "group": group} {
		if text == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func id(v int64) *int64 { return &v }

func TestWhomTheContainerRunsAs(t *testing.T) {
	root := image(t, passwd, group)
	www := Resolved{UID: 1000, GID: 1001, Groups: []uint32{1001, 44, 50, 1002}, Username: "www", Home: "/srv/www"}
	for _, c := range []struct {
		name, image string
		want        Want
		got         Resolved
	}{
		{"nothing said is root", "", Want{}, Resolved{Groups: []uint32{0}, Username: "root", Home: "/root"}},
		{"name", "www", Want{}, www},
		{"id with an account", "1000", Want{}, www},
		{"id without one", "4242", Want{}, Resolved{UID: 4242, Groups: []uint32{0}, Home: "/"}},
		{"id and id", "4242:77", Want{}, Resolved{UID: 4242, GID: 77, Groups: []uint32{77}, Home: "/"}},
		{"name and id", "www:77", Want{}, Resolved{UID: 1000, GID: 77, Groups: []uint32{77, 44, 50, 1002}, Username: "www", Home: "/srv/www"}},
		{"name and name", "www:staff", Want{}, Resolved{UID: 1000, GID: 50, Groups: []uint32{50, 44, 1002}, Username: "www", Home: "/srv/www"}},
		{"largest id", "2147483647", Want{}, Resolved{UID: 2147483647, Groups: []uint32{0}, Home: "/"}},
		{"a name may begin with a digit", "3proxy", Want{}, Resolved{UID: 1003, GID: 1003, Groups: []uint32{1003}, Username: "3proxy", Home: "/"}},
		{"a home that is no path", "injected", Want{}, Resolved{UID: 1004, GID: 1004, Groups: []uint32{1004}, Username: "injected", Home: "/"}},
		{"a short line", "short", Want{}, Resolved{UID: 1005, GID: 1005, Groups: []uint32{1005}, Username: "short", Home: "/"}},
		{"CRI's id replaces the image's user and group", "daemon:staff", Want{UID: id(1000)}, www},
		{"CRI's name does, too", "daemon:staff", Want{Name: "www"}, www},
		{"CRI's group", "", Want{UID: id(1000), GID: id(9)}, Resolved{UID: 1000, GID: 9, Groups: []uint32{9, 44, 50, 1002}, Username: "www", Home: "/srv/www"}},
		{"supplemental groups are merged", "www", Want{SupplementalGroups: []int64{7, 44, 7}},
			Resolved{UID: 1000, GID: 1001, Groups: []uint32{1001, 7, 44, 50, 1002}, Username: "www", Home: "/srv/www"}},
		{"or replace the image's", "www", Want{SupplementalGroups: []int64{7}, Strict: true},
			Resolved{UID: 1000, GID: 1001, Groups: []uint32{1001, 7}, Username: "www", Home: "/srv/www"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Resolve(root, c.image, c.want)
			if err != nil || !reflect.DeepEqual(got, c.got) {
				t.Errorf("got  %+v %v\nwant %+v", got, err, c.got)
			}
		})
	}
}

// CVE-2024-40635, CVE-2026-46680: a number that does not fit must neither wrap
// to 0 nor be found as a name in the image's passwd.
func TestNumbersThatAreNoIDs(t *testing.T) {
	root := image(t, passwd, group)
	for _, u := range []string{
		"4294967296", "2147483648", "2147483648:0", "18446744073709551616", "-1", "+0", "0x0", " 0", "0 ", "0\n", "0:4294967297",
		"1000:-1", "0:0x0", ":", ":0", "0:", "0:0:0", "www:", "1e0", "0b0", "0_0", "1.0", "\x00", "../x", strings.Repeat("9", 1000), strings.Repeat("a", 1000),
	} {
		got, err := Resolve(root, u, Want{})
		if !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q: want an invalid argument, got %+v, %v", u, got, err)
		}
	}
	for _, w := range []Want{
		{UID: id(-1)}, {UID: id(1 << 31)}, {UID: id(1 << 32)}, {UID: id(0), GID: id(-1)}, {GID: id(0)}, {UID: id(0), Name: "root"},
		{Name: "4294967296"}, {Name: "root:root"}, {SupplementalGroups: []int64{1 << 31}}, {SupplementalGroups: []int64{-1}},
	} {
		if got, err := Resolve(root, "", w); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%+v: want an invalid argument, got %+v, %v", w, got, err)
		}
	}
}

func TestUnknownNamesAreNotFound(t *testing.T) {
	for _, root := range []string{image(t, passwd, group), image(t, "", "")} {
		for _, u := range []string{"nobody", "0:nogroup", "wrapped"} {
			if got, err := Resolve(root, u, Want{}); !errors.Is(err, errdefs.ErrNotFound) {
				t.Errorf("%q: want not found, got %+v, %v", u, got, err)
			}
		}
	}
}

// CVE-2026-47262, CVE-2024-9676: passwd without end, as a FIFO, as a link.
func TestHostilePasswdFiles(t *testing.T) {
	for name, prepare := range map[string]func(path string) error{
		"FIFO": func(p string) error { return unix.Mkfifo(p, 0o644) },
		"4 GiB, sparse": func(p string) error {
			if err := os.WriteFile(p, nil, 0o644); err != nil {
				return err
			}
			return os.Truncate(p, 4<<30)
		},
		"one line of 2 MiB": func(p string) error { return os.WriteFile(p, []byte(strings.Repeat("x", 2<<20)), 0o644) },
		"directory":         func(p string) error { return os.Mkdir(p, 0o755) },
		"loop":              func(p string) error { return os.Symlink("passwd", p) },
	} {
		t.Run(name, func(t *testing.T) {
			root := image(t, "", "")
			if err := prepare(filepath.Join(root, "etc/passwd")); err != nil {
				t.Fatal(err)
			}
			if got, err := Resolve(root, "root", Want{}); !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("want an invalid argument, got %+v, %v", got, err)
			}
		})
	}
}

func TestTooManyGroups(t *testing.T) {
	var b strings.Builder
	for i := range 70000 {
		fmt.Fprintf(&b, "g:x:%d:u\n", i)
	}
	root := image(t, "u:x:1:1::/:\n", b.String())
	if _, err := Resolve(root, "u", Want{}); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("70000 groups: want an invalid argument, got %v", err)
	}
}

func TestPlansUserConverts(t *testing.T) {
	p := plan.User{UID: id(5), Strict: true}
	if w := Want(p); w.UID != p.UID || !w.Strict {
		t.Errorf("got %+v", w)
	}
}

func FuzzResolve(f *testing.F) {
	for _, u := range []string{"", "root", "0:0", "4294967296", "www:staff", " 0", "0x0"} {
		f.Add(u, passwd, group)
	}
	root := image(f, passwd, group)
	f.Fuzz(func(t *testing.T, u, passwd, group string) {
		for name, text := range map[string]string{"passwd": passwd, "group": group} {
			if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := Resolve(root, u, Want{})
		if err != nil {
			return
		}
		if got.UID > MaxID || got.GID > MaxID || len(got.Groups) == 0 || got.Groups[0] != got.GID {
			t.Errorf("%q: %+v", u, got)
		}
		if name, _, _ := strings.Cut(u, ":"); got.UID == 0 && looksNumeric(name) && strings.Trim(name, "0") != "" {
			t.Errorf("the number %q became root", u)
		}
		if got.Home == "" || got.Home[0] != '/' || strings.ContainsAny(got.Home, "\n\r\x00") {
			t.Errorf("home %q", got.Home)
		}
	})
}
