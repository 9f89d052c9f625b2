package cgroup

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestPathBuildsBothDriverForms(t *testing.T) {
	for _, tc := range []struct {
		parent, id, driver, spec, dir string
		bad                           bool
	}{
		{"/kubepods/burstable/pod1", "abc", Cgroupfs, "/kubepods/burstable/pod1/abc", "/kubepods/burstable/pod1/abc", false},
		{"crid", "abc", Cgroupfs, "/crid/abc", "/crid/abc", false},
		{"/", "abc", Cgroupfs, "/abc", "/abc", false},
		{"/a/../../b", "abc", Cgroupfs, "", "", true},
		{"/a", "../b", Cgroupfs, "", "", true},
		{"/a", "", Cgroupfs, "", "", true},
		{"/a", "..", Cgroupfs, "", "", true},
		{"kubepods-burstable-podx_y.slice", "abc", Systemd, "kubepods-burstable-podx_y.slice:crid:abc",
			"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podx_y.slice/crid-abc.scope", false},
		{"/kubepods.slice/kubepods-pod1.slice", "abc", Systemd, "kubepods-pod1.slice:crid:abc",
			"/kubepods.slice/kubepods-pod1.slice/crid-abc.scope", false},
		{"-.slice", "abc", Systemd, "-.slice:crid:abc", "/crid-abc.scope", false},
		{"/kubepods/pod1", "abc", Systemd, "", "", true},
		{"a--b.slice", "abc", Systemd, "", "", true},
		{"-a.slice", "abc", Systemd, "", "", true},
		{"a-.slice", "abc", Systemd, "", "", true},
	} {
		spec, dir, err := Path(tc.parent, tc.id, tc.driver)
		if tc.bad {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("Path(%q, %q, %s) = %q, %v; want an invalid argument", tc.parent, tc.id, tc.driver, spec, err)
			}
			continue
		}
		if err != nil || spec != tc.spec || dir != tc.dir {
			t.Errorf("Path(%q, %q, %s) = %q, %q, %v; want %q, %q", tc.parent, tc.id, tc.driver, spec, dir, err, tc.spec, tc.dir)
			continue
		}
		if got := Load(spec).Path(); got != dir {
			t.Errorf("Load(%q) is at %q, want %q", spec, got, dir)
		}
	}
}

func TestParentDir(t *testing.T) {
	for _, tc := range []struct{ parent, driver, want string }{
		{"/kubepods/besteffort/", Cgroupfs, "/kubepods/besteffort"},
		{"/kubepods.slice/kubepods-pod1.slice", Systemd, "/kubepods.slice/kubepods-pod1.slice"},
	} {
		if got, err := ParentDir(tc.parent, tc.driver); err != nil || got != tc.want {
			t.Errorf("ParentDir(%q, %s) = %q, %v", tc.parent, tc.driver, got, err)
		}
	}
	if _, err := ParentDir("/a/..", Cgroupfs); err == nil {
		t.Error("a parent that leads upwards was accepted")
	}
}

func TestTheRootIsNeverTouched(t *testing.T) {
	for _, p := range []string{"", "/", "//", "/.", "relative", "/a/../..", "a.slice:x"} {
		c := Load(p)
		for name, call := range map[string]func() error{
			"Kill":   c.Kill,
			"Remove": func() error { return c.Remove(t.Context()) },
			"Freeze": c.Freeze,
			"Thaw":   c.Thaw,
			"Ensure": c.Ensure,
			"Set":    func() error { return c.Set(nil) },
		} {
			if err := call(); !errdefs.IsInvalidArgument(err) {
				t.Errorf("%s of %q: %v; want an invalid argument", name, p, err)
			}
		}
	}
}

func TestParseTree(t *testing.T) {
	const hybrid = `31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /mnt/elsewhere rw - cgroup cgroup rw,cpu,cpuacct
33 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:3 - cgroup cgroup rw,cpu,cpuacct
37 31 0:34 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
`
	tr := parseTree([]byte(hybrid), false)
	if got := tr.controller("cpuacct"); got != "/sys/fs/cgroup/cpu,cpuacct" {
		t.Errorf("cpuacct at %q", got)
	}
	if got := tr.controller("pids"); got != "" {
		t.Errorf("pids at %q, but it is not mounted", got)
	}
	if got := strings.Join(tr.roots(), " "); got != "/sys/fs/cgroup/cpu,cpuacct /sys/fs/cgroup/freezer /sys/fs/cgroup/systemd /sys/fs/cgroup/unified" {
		t.Errorf("roots %s", got)
	}
	if got := strings.Join(tr.controllers(), " "); got != "cpu cpuacct freezer" {
		t.Errorf("controllers %s", got)
	}
}

func TestParseProcCgroup(t *testing.T) {
	hybrid := "8:pids:/\n6:freezer:/crid/abc (deleted)\n4:memory:/other\n0::/crid/abc\n"
	if got := parseProcCgroup([]byte(hybrid), false); got != "/crid/abc" {
		t.Errorf("hybrid: %q", got)
	}
	if got := parseProcCgroup([]byte("9:freezer:/\n4:memory:/other\n"), false); got != "/other" {
		t.Errorf("v1 with the freezer at the root: %q", got)
	}
	if got := parseProcCgroup([]byte("0::/kubepods/a:b\n"), true); got != "/kubepods/a:b" {
		t.Errorf("v2: %q", got)
	}
}

func TestOfPidOfNobody(t *testing.T) {
	if _, err := OfPid(1 << 30); !errdefs.IsNotFound(err) {
		t.Errorf("got %v, want not found", err)
	}
}

func TestParseUint(t *testing.T) {
	for s, want := range map[string]uint64{
		"0": 0, "42": 42, "max": Unlimited, "-1": Unlimited,
		"18446744073709551615": Unlimited, "99999999999999999999999": Unlimited,
	} {
		if got, ok := parseUint([]byte(s)); !ok || got != want {
			t.Errorf("parseUint(%q) = %d, %v", s, got, ok)
		}
	}
	for _, s := range []string{"", "x", "1x", " 1"} {
		if _, ok := parseUint([]byte(s)); ok {
			t.Errorf("parseUint(%q) accepted", s)
		}
	}
}

func TestWeightOfKeepsEndsAndDefault(t *testing.T) {
	for shares, want := range map[uint64]uint64{0: 0, 1: 1, 2: 1, 1024: 100, 262144: 10000, 1 << 40: 10000} {
		if got := WeightOf(shares); got != want {
			t.Errorf("WeightOf(%d) = %d, want %d", shares, got, want)
		}
	}
	for _, weight := range []uint64{1, 20, 39, 100, 5000, 10000} {
		if got := WeightOf(SharesOf(weight)); got < weight {
			t.Errorf("WeightOf(SharesOf(%d)) = %d", weight, got)
		}
	}
}

func TestHugepageName(t *testing.T) {
	for in, want := range map[string]string{"hugepages-2048kB": "2MB", "hugepages-1048576kB": "1GB", "hugepages-64kB": "64KB", "x": "", "hugepages-": ""} {
		if got := hugepageName(in); got != want {
			t.Errorf("hugepageName(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestErrorsAreTyped(t *testing.T) {
	if !errors.Is(errSwapBelowLimit, errdefs.ErrInvalidArgument) {
		t.Error("a swap limit below the memory limit is the caller's mistake")
	}
}

func TestSliceOfAConfiguredParent(t *testing.T) {
	for parent, want := range map[string]string{"/crid": "crid.slice", "crid.slice": "crid.slice", "/a/b": "b.slice", "/kube.slice/kube-x.slice": "kube-x.slice"} {
		if got := Slice(parent); got != want {
			t.Errorf("%s: %s, not %s", parent, got, want)
		}
	}
}
