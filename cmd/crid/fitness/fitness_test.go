package fitness

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/crid-project/crid/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func put(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// want checks level and a part of the message of the only (or worst) finding.
func want(t *testing.T, list []Finding, level Level, part string) {
	t.Helper()
	rank := map[Level]int{OK: 0, Warn: 1, Fail: 2}
	worst := list[0]
	for _, f := range list {
		if rank[f.Severity] > rank[worst.Severity] {
			worst = f
		}
		if (f.Cure == "") != (f.Severity == OK) {
			t.Errorf("%+v: whatever is not ok has a cure, and nothing else", f)
		}
	}
	if worst.Severity != level || !strings.Contains(worst.Message, part) {
		t.Errorf("got %+v; want %s with %q", list, level, part)
	}
}

func TestRuncVersions(t *testing.T) {
	for text, level := range map[string]Level{
		"1.0.0": Fail, "1.1.15": Fail, "1.2.7": Fail, "1.2.8": OK, "1.3.2": Fail, "1.3.3": OK, "1.3.10": OK,
		"1.4.0-rc.2": Fail, "1.4.0-rc.3": OK, "1.4.0": OK, "1.5.2": OK, "2.0.0": OK, "0.9": Fail,
	} {
		if f := runcVersion("x", "/runc", text, false); f.Severity != level {
			t.Errorf("%s: %+v, want %s", text, f, level)
		}
	}
	want(t, []Finding{runcVersion("x", "/runc", "1.1.0", true)}, Warn, "allow_vulnerable_runtime")
}

func TestParseVersion(t *testing.T) {
	for text, v := range map[string][4]int{
		"runc version 1.5.2\nspec: 1.3.0":   {1, 5, 2, 1 << 30},
		"CNI bridge plugin v0.8.6":          {0, 8, 6, 1 << 30},
		"6.18.44-fc-v595":                   {6, 18, 44, 1 << 30},
		"1.4.0-rc.3+dev":                    {1, 4, 0, 3},
		"crun version 1.8.1\ncommit: f8a09": {1, 8, 1, 1 << 30},
		"6.1-amd64":                         {6, 1, 0, 1 << 30},
		"none":                              {0, 0, 0, 1 << 30},
	} {
		if got := parseVersion(text); got != v {
			t.Errorf("%q: %v, want %v", text, got, v)
		}
	}
}

func TestCgroupControllers(t *testing.T) {
	v1 := []string{"cpu", "cpuacct", "cpuset", "memory", "pids", "freezer", "devices", "blkio", "hugetlb"}
	want(t, cgroupVersion(v1, false), Warn, "v1 with")
	want(t, cgroupVersion(v1[1:], false), Fail, "without the controllers cpu")
	v2 := []string{"cpu", "cpuset", "memory", "pids", "io", "hugetlb"}
	want(t, cgroupVersion(v2, true), OK, "v2 with")
	want(t, cgroupVersion(v2[:4], true), Warn, "io, hugetlb")
	want(t, cgroupVersion([]string{"cpu", "cpuset", "pids"}, true), Fail, "memory")
}

func TestDirectoryModes(t *testing.T) {
	base := filepath.Join(t.TempDir(), "own")
	dir := filepath.Join(base, "root")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	step := func(path string, mode os.FileMode) {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	step(dir, 0o755)
	want(t, modes("d", dir), Fail, "other users can look into it")
	step(dir, 0o711) // needed by user namespaces; the world-writable /tmp above remains to be told
	if f := modes("d", dir); f[0].Severity == Fail {
		t.Errorf("0711: %+v", f)
	}
	step(dir, 0o700)
	step(base, 0o777)
	want(t, modes("d", dir), Fail, "everybody can write "+base)
	step(base, 0o755)
	want(t, modes("d", put(t, filepath.Join(base, "file"), "", 0o600)), Fail, "no directory")
	link := filepath.Join(base, "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	want(t, modes("d", link), Fail, "no directory")
	if f := modes("d", filepath.Join(base, "none", "yet")); f[0].Severity == Fail {
		t.Errorf("a directory to be made: %+v", f)
	}
}

func TestNetworkConfiguration(t *testing.T) {
	dir := t.TempDir()
	c := config.Default()
	c.CNI.ConfDir, c.CNI.BinDirs = filepath.Join(dir, "net.d"), []string{filepath.Join(dir, "bin")}
	n := &node{c: c}
	check := func(level Level, part string) {
		t.Helper()
		want(t, networkConfig(t.Context(), n), level, part)
	}
	plugin := func(name, version string) {
		put(t, filepath.Join(dir, "bin", name), "#!/bin/sh\necho 'CNI "+name+" plugin v"+version+"' >&2\n", 0o755)
	}
	check(Warn, "only pods on the host's network")
	put(t, filepath.Join(c.CNI.ConfDir, "10-x.conflist"), `{"plugins":[{"type":"bridge","ipam":{"type":"host-local"}},{"type":"portmap"}]}`, 0o644)
	put(t, filepath.Join(c.CNI.ConfDir, "20-y.conflist"), `not looked at`, 0o644)
	check(Fail, "bridge, host-local, portmap")
	for _, p := range []string{"bridge", "host-local", "portmap"} {
		plugin(p, "1.9.1")
	}
	check(OK, "10-x.conflist")
	plugin("portmap", "1.1.1")
	check(Warn, "portmap 1.1.1 works, but is old")
	plugin("portmap", "0.8.5")
	check(Fail, "too old: portmap 0.8.5")
	put(t, filepath.Join(dir, "bin", "portmap"), "#!/bin/sh\necho weave 0.1\n", 0o755)
	check(OK, "")
	put(t, filepath.Join(c.CNI.ConfDir, "05-z.conf"), `{"type":`, 0o644)
	check(Fail, "05-z.conf is no CNI configuration")
}

func TestMissingRuntimesFailOnlyForTheDefault(t *testing.T) {
	dir := t.TempDir()
	c := config.Default()
	c.RuntimeSearchPaths = []string{dir}
	c.DefaultRuntime = "one"
	c.Runtimes = map[string]config.Runtime{
		"one": {Type: config.RuncType, Options: map[string]any{"BinaryName": "crid-test-runc"}},
		"two": {Type: "io.containerd.crid-none.v9"},
	}
	put(t, filepath.Join(dir, "containerd-shim-runc-v2"), "#!/bin/sh\necho Version: 2.4.2\n", 0o755)
	list := runtimes(t.Context(), &node{c: c})
	if len(list) != 3 || list[0].Severity != OK || list[1].Severity != Fail || list[2].Severity != Warn {
		t.Errorf("%+v", list)
	}
	put(t, filepath.Join(dir, "crid-test-runc"), "#!/bin/sh\necho runc version 9.9.9\n", 0o755)
	if list = runtimes(t.Context(), &node{c: c}); list[1].Severity != OK {
		t.Errorf("%+v", list)
	}
}

func TestForwardingAndSwapAreReadFromTheKernel(t *testing.T) {
	root := t.TempDir()
	n := &node{root: root, c: config.Default()}
	want(t, forwarding(t.Context(), n), Warn, "off")
	put(t, root+"/proc/sys/net/ipv4/ip_forward", "1\n", 0o644)
	put(t, root+"/proc/sys/net/bridge/bridge-nf-call-iptables", "0\n", 0o644)
	want(t, forwarding(t.Context(), n), Warn, "pass iptables by")
	put(t, root+"/proc/sys/net/bridge/bridge-nf-call-iptables", "1\n", 0o644)
	want(t, forwarding(t.Context(), n), OK, "on")
	put(t, root+"/proc/swaps", "Filename Type Size Used Priority\n", 0o644)
	want(t, swap(t.Context(), n), OK, "off")
	put(t, root+"/proc/swaps", "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n", 0o644)
	want(t, swap(t.Context(), n), Warn, "on")
	put(t, root+"/proc/sys/kernel/osrelease", "4.19.0\n", 0o644)
	want(t, kernel(t.Context(), n), Fail, "4.19.0")
	put(t, root+"/proc/sys/kernel/osrelease", "5.10.0-9-amd64\n", 0o644)
	want(t, kernel(t.Context(), n), Warn, "5.10.0")
	put(t, root+"/proc/self/mountinfo", "1 0 8:1 / / rw shared:1 - ext4 /dev/sda rw\n", 0o644)
	want(t, propagation(t.Context(), n), OK, "shared")
	put(t, root+"/proc/self/mountinfo", "1 0 8:1 / / rw - ext4 /dev/sda rw\n", 0o644)
	want(t, propagation(t.Context(), n), Warn, "not shared")
}

func TestAHungCheckIsAFindingAndTheOthersAreSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		list := examine(t.Context(), &node{c: config.Default()}, []check{
			{"hung", func(context.Context, *node) []Finding { <-release; return []Finding{ok("hung", "")} }},
			{"fine", func(context.Context, *node) []Finding { return []Finding{ok("fine", "well")} }},
		})
		close(release)
		if len(list) != 2 || list[0].Severity != Fail || !strings.Contains(list[0].Message, "no answer") || list[1].Severity != OK {
			t.Errorf("%+v", list)
		}
	})
}

func TestExamineThisMachine(t *testing.T) {
	c := config.Default()
	c.Root, c.State = filepath.Join(t.TempDir(), "r"), filepath.Join(t.TempDir(), "s")
	if err := os.Mkdir(c.Root, 0o700); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, f := range Examine(t.Context(), c) {
		names[f.Name] = true
		if f.Message == "" || (f.Cure == "") != (f.Severity == OK) {
			t.Errorf("%+v", f)
		}
	}
	for _, n := range []string{"kernel", "overlayfs", "cgroups", "cgroup driver", "network", "root directory", "clock"} {
		if !names[n] {
			t.Errorf("nothing is said of %s", n)
		}
	}
	left, err := os.ReadDir(c.Root)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestOutputIsBoundedInTimeAndSize(t *testing.T) {
	p := put(t, filepath.Join(t.TempDir(), "p"), "#!/bin/sh\nexec yes\n", 0o755)
	ctx, cancel := context.WithTimeout(t.Context(), 200_000_000)
	defer cancel()
	text, err := output(ctx, p, nil)
	if err == nil || len(text) > 64<<10 {
		t.Errorf("%d bytes, %v", len(text), err)
	}
}
