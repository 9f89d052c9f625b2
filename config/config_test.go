package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func put(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTheFileThatOthersRelyOn(t *testing.T) {
	c, err := Parse("f", []byte(`version = 1
root = "/var/lib/crid"
state = "/run/crid"
address = "/run/crid/crid.sock"
default_runtime = "runc"
cgroup_driver = "auto"
restrict_oom_score_adj = "auto"
[cni]
conf_dir = "/etc/cni/net.d"
bin_dirs = ["/opt/cni/bin"]
[registry]
certs_dirs = ["/etc/crid/certs.d", "/etc/containerd/certs.d"]
[streaming]
address = "127.0.0.1:0"
[metrics]
address = "127.0.0.1:1338"
[log]
level = "info"
format = "text"
[runtimes.runc]
type = "io.containerd.runc.v2"
options = { BinaryName = "runc", Root = "", SystemdCgroup = false }
`), Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.derive()
	if !reflect.DeepEqual(c, want) {
		t.Errorf("it differs from the defaults:\n%s\n%s", c.Dump(), want.Dump())
	}
}

func TestDefaultAndDumpCanBeReadAgain(t *testing.T) {
	d := Default()
	d.derive()
	for name, text := range map[string]string{"default": DefaultTOML(), "dump": d.Dump()} {
		c, err := Parse(name, []byte(text), Overrides{})
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, text)
		}
		if c.Dump() != d.Dump() {
			t.Errorf("%s read again gives\n%s", name, c.Dump())
		}
	}
	if c, err := Parse("default", []byte(DefaultTOML()), Overrides{State: "/run/other"}); err != nil || c.ShimSocketDir != "/run/other/s" {
		t.Errorf("the default file nails the shims' sockets down: %v, %v", c, err)
	}
	c := Default()
	c.Images.Pinned = []string{"a\"b\\c", "<é>"}
	c.Runtimes["kata"] = Runtime{Path: "/opt/shim", Options: map[string]any{"ConfigPath": "/x y", "N": int64(3), "L": []any{"a", true}, "a.b": "c"}}
	c.derive()
	again, err := Parse("dump", []byte(c.Dump()), Overrides{})
	if err != nil {
		t.Fatalf("%v\n%s", err, c.Dump())
	}
	if again.Dump() != c.Dump() {
		t.Errorf("got\n%s\nwant\n%s", again.Dump(), c.Dump())
	}
}

func TestEveryKeyIsDocumentedOnceAndInOrder(t *testing.T) {
	d := Default()
	d.derive()
	var fields []string
	for _, e := range flatten(d) {
		fields = append(fields, strings.Replace(e.name, "runtimes.runc.", "runtimes.*.", 1))
	}
	var docs []string
	for _, k := range Keys() {
		docs = append(docs, k.Name)
		if k.Default == "" || k.Meaning == "" {
			t.Errorf("%s has no default or meaning: %+v", k.Name, k)
		}
		if !strings.Contains(Table(), "| `"+k.Name+"` |") {
			t.Errorf("%s is not in the table", k.Name)
		}
	}
	if !slices.Equal(fields, docs) {
		t.Errorf("keys of the structs and of the documentation differ:\n%v\n%v", fields, docs)
	}
}

func TestUnknownKeysNameTheNearestKnownOne(t *testing.T) {
	for text, want := range map[string]string{
		"roott = \"/x\"":                                 `f:2: unknown key "roott": did you mean "root"?`,
		"default_runtimes = \"runc\"":                    `"default_runtime"`,
		"[cni]\nconf_dirs = \"/x\"":                      `f:3: unknown key "cni.conf_dirs": did you mean "cni.conf_dir"?`,
		"[registry]\nconf_dir = \"/x\"":                  `"cni.conf_dir"`,
		"[stream]\naddress = \"\"":                       `"stream`,
		"[runtimes.kata]\ntpye = \"io.containerd.x.v2\"": `did you mean "runtimes.kata.type"?`,
		"[runtimes.runc]\npod_annotation = []":           `"runtimes.runc.pod_annotations"`,
		"lveel = \"info\"":                               `did you mean "log.level"?`,
		"zzzzzzzzzzzzzzz = 1":                            `crid config default`,
		"[cni.default_network]\nname = \"x\"\nsub = 1":   `"cni.default_network.sub"`,
	} {
		_, err := Parse("f", []byte("version = 1\n"+text+"\n"), Overrides{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v\nwant %s", text, err, want)
		}
	}
}

func TestEveryUnknownKeyIsReported(t *testing.T) {
	_, err := Parse("f", []byte("version = 1\nroott = 1\nstatee = 2\n"), Overrides{})
	if err == nil || !strings.Contains(err.Error(), "roott") || !strings.Contains(err.Error(), "statee") {
		t.Errorf("got %v", err)
	}
}

func TestWrongFilesSayWhatToDo(t *testing.T) {
	for text, want := range map[string]string{
		"root = \"/x\"": "version is missing: write \"version = 1\"",
		"version = 2":   "version = 2 is not known",
		"version = 3\n[plugins.\"io.containerd.grpc.v1.cri\"]\nx = 1": "containerd configuration",
		"version = 1\nroot = /x":                                                                 "f:2:",
		"version = 1\nroot = 7":                                                                  "root",
		"version = 1\n[cni]\nplugin_timeout = \"soon\"":                                          "90s",
		"version = 1\n[images]\nmax_layer_size = \"big\"":                                        "10GiB",
		"version = 1\nroot = \"rel\"":                                                            "root: \"rel\" is no clean absolute path",
		"version = 1\nroot = \"/var/lib\"":                                                       "belongs to the whole system",
		"version = 1\nstate = \"/var/lib/crid/run\"":                                             "lie in each other",
		"version = 1\ncgroup_driver = \"sytemd\"":                                                "cgroup_driver: \"sytemd\" is not possible: write one of auto, cgroupfs, systemd",
		"version = 1\ncgroup_parent = \"/\"":                                                     "cgroup_parent",
		"version = 1\ndefault_runtime = \"kata\"":                                                "write one of runc, or add [runtimes.kata]",
		"version = 1\n[streaming]\naddress = \"here\"":                                           "HOST:PORT",
		"version = 1\n[runtimes.runc]\noptions = { SystemdCgroups = true }":                      "did you mean SystemdCgroup?",
		"version = 1\n[runtimes.runc]\noptions = { SystemdCgroup = \"true\" }":                   "wrong type",
		"version = 1\n[runtimes.Runc]\ntype = \"io.containerd.runc.v2\"":                         "no handler name",
		"version = 1\n[runtimes.x]\ntype = \"runc\"":                                             "no shim type",
		"version = 1\n[runtimes.runc]\nsandbox = \"poused\"":                                     "pinned, pause",
		"version = 1\n[runtimes.runc]\npod_annotations = [\"a*b\"]":                              "no annotation",
		"version = 1\n[limits]\nmax_log_line_size = 1":                                           "limits.max_log_line_size",
		"version = 1\n[cni.default_network]\nwrite = true\nsubnet = \"10.0.0.1/8\"":              "no network",
		"version = 1\n[cni.default_network]\nwrite = true\nbridge = \"a-name-that-is-too-long\"": "fifteen",
		"version = 1\n[timeouts]\nstats = \"0s\"":                                                "timeouts.stats",
		"version = 1\n[limits]\nmax_exec_sync_output = \"17MiB\"":                                "limits.max_exec_sync_output",
		"version = 1\n[images]\nsnapshotter = \"stargz\"":                                        "write one of overlayfs, native",
		"version = 1\nstate = \"/run/" + strings.Repeat("s", 60) + "\"":                          "shim_socket_dir",
		"version = 1\naddress = \"/run/" + strings.Repeat("a", 120) + "\"":                       "address: is 125 bytes",
		"version = 1\n[images]\nmax_concurrent_layers = 0":                                       "between 1 and 64",
		"version = 1\n[cni]\nbin_dirs = []":                                                      "cni.bin_dirs: is empty",
		"version = 1\nseccomp_profile = \"x.json\"":                                              "seccomp_profile",
	} {
		_, err := Parse("f", []byte(text), Overrides{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q:\n%v\nwant %s", text, err, want)
		}
	}
}

func TestDropInsAreLaidOverInOrderAndChangeOnlyWhatTheyName(t *testing.T) {
	dir := t.TempDir()
	main := put(t, filepath.Join(dir, "config.toml"), "version = 1\n[cni]\nconf_dir = \"/a\"\nbin_dirs = [\"/x\", \"/y\"]\n"+
		"[runtimes.kata]\npath = \"/opt/kata\"\nsandbox = \"pause\"\n")
	put(t, filepath.Join(dir, "conf.d", "10-a.toml"), "[cni]\nbin_dirs = [\"/b\"]\n[log]\nlevel = \"debug\"\n[runtimes.kata]\ncgroup_driver = \"systemd\"\n")
	put(t, filepath.Join(dir, "conf.d", "20-b.toml"), "version = 1\n[log]\nlevel = \"warn\"\n")
	put(t, filepath.Join(dir, "conf.d", "README"), "not toml at all")
	put(t, filepath.Join(dir, "conf.d", ".hidden.toml"), "neither")
	c, err := Load(main, Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	if c.CNI.ConfDir != "/a" || !slices.Equal(c.CNI.BinDirs, []string{"/b"}) || c.Log.Level != "warn" {
		t.Errorf("cni %+v, log %+v", c.CNI, c.Log)
	}
	k := c.Runtimes["kata"]
	if k.Path != "/opt/kata" || k.Sandbox != "pause" || k.CgroupDriver != "systemd" || k.Type != "" {
		t.Errorf("kata %+v", k)
	}
	if _, ok := c.Runtimes["runc"]; !ok {
		t.Error("runc is gone")
	}
	put(t, filepath.Join(dir, "conf.d", "30-c.toml"), "lveel = 1\n")
	if _, err := Load(main, Overrides{}); err == nil || !strings.Contains(err.Error(), "30-c.toml:1") {
		t.Errorf("got %v, want the drop-in named", err)
	}
}

func TestOptionsOfAHandlerAreMergedByKey(t *testing.T) {
	c, err := Parse("f", []byte("version = 1\n[runtimes.runc.options]\nSystemdCgroup = true\n"), Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	if o := c.Runtimes["runc"].Options; o["SystemdCgroup"] != true || o["BinaryName"] != "runc" {
		t.Errorf("options %v", o)
	}
	if o := Default().Runtimes["runc"].Options; o["SystemdCgroup"] != false {
		t.Error("the defaults were changed")
	}
}

// A shim refuses options that are of another shim's type, so a table with a path and no type must not be left without one.
func TestTheTypeOfAHandlerFollowsItsShim(t *testing.T) {
	for path, want := range map[string]string{
		"": RuncType, "/usr/bin/containerd-shim-runc-v2": RuncType, "/opt/kata/bin/containerd-shim-kata-v2": "io.containerd.kata.v2",
		"/usr/bin/containerd-shim-kata-qemu-v2": "io.containerd.kata-qemu.v2", "/usr/bin/my-shim": "",
	} {
		c, err := Parse("f", []byte("version = 1\n[runtimes.other]\npath = \""+path+"\"\n"), Overrides{})
		if err != nil || c.Runtimes["other"].Type != want {
			t.Errorf("%q: type %q, want %q (%v)", path, c.Runtimes["other"].Type, want, err)
		}
	}
	c, err := Parse("f", []byte("version = 1\n[runtimes.other]\npath = \"/usr/bin/containerd-shim-runc-v2\"\ntype = \"io.example.mine.v1\"\n"), Overrides{})
	if err != nil || c.Runtimes["other"].Type != "io.example.mine.v1" {
		t.Errorf("a type that is given is kept: %v %v", c, err)
	}
}

func TestFlagsWinAndTheRestFollows(t *testing.T) {
	file := put(t, filepath.Join(t.TempDir(), "config.toml"), "version = 1\nroot = \"/a/root\"\naddress = \"/a/s.sock\"\n")
	c, err := Load(file, Overrides{Root: "/b/root", State: "/b/state", LogLevel: "debug"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Root != "/b/root" || c.State != "/b/state" || c.Address != "/a/s.sock" || c.Log.Level != "debug" ||
		c.ShimSocketDir != "/b/state/s" || c.CNI.CacheDir != "/b/root/cni" || c.AdminSocket() != "/b/state/admin.sock" {
		t.Errorf("got\n%s", c.Dump())
	}
	c, err = Parse("f", []byte("version = 1"), Overrides{State: "/b/state"})
	if err != nil || c.Address != "/b/state/crid.sock" {
		t.Errorf("address %q, %v; want it to follow the state", c.Address, err)
	}
}

func TestAMissingFileIsAnErrorOnlyIfItWasAskedFor(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none.toml"), Overrides{}); err == nil || !strings.Contains(err.Error(), "crid config default") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(DefaultPath); err == nil {
		t.Skip("this machine has " + DefaultPath)
	}
	if _, err := Load("", Overrides{}); err != nil {
		t.Errorf("no file at the default place: %v", err)
	}
}

func TestOddFilesAreRefused(t *testing.T) {
	if _, err := Load(t.TempDir(), Overrides{}); err == nil || !strings.Contains(err.Error(), "regular") {
		t.Errorf("a directory: %v", err)
	}
	big := put(t, filepath.Join(t.TempDir(), "c.toml"), "#"+strings.Repeat("x", largest))
	if _, err := Load(big, Overrides{}); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("a giant: %v", err)
	}
}

func TestDriverFor(t *testing.T) {
	detect := func() string { return "detected" }
	for i, tc := range []struct {
		general, own, want string
		option             bool
	}{
		{"auto", "", "detected", false},
		{"auto", "", "systemd", true},
		{"cgroupfs", "", "cgroupfs", true},
		{"cgroupfs", "systemd", "systemd", false},
		{"systemd", "auto", "systemd", false},
	} {
		c := Default()
		c.CgroupDriver = tc.general
		c.Runtimes["runc"] = Runtime{CgroupDriver: tc.own, Options: map[string]any{"SystemdCgroup": tc.option}}
		if got := c.DriverFor("runc", detect); got != tc.want {
			t.Errorf("case %d: %s, want %s", i, got, tc.want)
		}
	}
}

func TestDurationsAndSizesAreWrittenExactly(t *testing.T) {
	for d, want := range map[Duration]string{Duration(time.Minute): "1m", Duration(90 * time.Second): "1m30s", Duration(4 * time.Hour): "4h", 0: "0s"} {
		if d.String() != want {
			t.Errorf("%d: %s, want %s", d, d, want)
		}
	}
	for s, want := range map[Size]string{16384: "16KiB", 1000: "1000", 0: "0", 64 << 30: "64GiB", 1025 << 10: "1025KiB"} {
		var back Size
		if err := back.UnmarshalText([]byte(s.String())); s.String() != want || err != nil || back != s {
			t.Errorf("%d: %s, want %s; read again %d, %v", s, s, want, back, err)
		}
	}
	c, err := Parse("f", []byte("version = 1\n[limits]\nmax_log_line_size = 16384\n"), Overrides{})
	if err != nil || c.Limits.MaxLogLineSize != 16384 {
		t.Errorf("a plain number: %v, %v", c, err)
	}
}

func TestChangesTellsWhatNeedsARestart(t *testing.T) {
	a, b := Default(), Default()
	b.Log.Level = "debug"
	b.Metrics.Address = ""
	b.Runtimes["x"] = Runtime{Path: "/x"}
	live, restart := Changes(a, b)
	if !slices.Equal(live, []string{"log.level"}) || !slices.Contains(restart, "metrics.address") || !slices.Contains(restart, "runtimes.x.path") {
		t.Errorf("live %v, restart %v", live, restart)
	}
	if _, restart := Changes(b, a); !slices.Contains(restart, "runtimes.x.path") {
		t.Errorf("a handler that went away: %v", restart)
	}
	if live, restart := Changes(a, a); live != nil || restart != nil {
		t.Errorf("nothing changed: %v %v", live, restart)
	}
}

func TestHandlersAreOfferedOnlyIfNoneIsNamed(t *testing.T) {
	dir := t.TempDir()
	crun := put(t, filepath.Join(dir, "bin", "crun"), "#!/bin/sh\n")
	if err := os.Chmod(crun, 0o755); err != nil {
		t.Fatal(err)
	}
	head := fmt.Sprintf("version = 1\nruntime_search_paths = [%q]\n", filepath.Join(dir, "bin"))
	c, err := Load(put(t, filepath.Join(dir, "a", "c.toml"), head), Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	if o := c.Runtimes["crun"].Options; o["BinaryName"] != "crun" {
		t.Errorf("crun is installed, but not offered: %v", c.Runtimes)
	}
	c, err = Load(put(t, filepath.Join(dir, "b", "c.toml"), head+"[runtimes.runc]\nsandbox = \"pause\"\n"), Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := c.Runtimes["crun"]; ok {
		t.Error("crun is there although the file names its handlers")
	}
	if p, err := c.FindProgram("crun"); err != nil || p != crun {
		t.Errorf("FindProgram: %q, %v", p, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(DefaultTOML()))
	f.Add([]byte("version = 1\n[runtimes.a.options]\nx = {y = [1, 2.5, 1979-05-27]}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("f", text, Overrides{})
		if err == nil && c.Dump() == "" {
			t.Error("an empty dump")
		}
	})
}
