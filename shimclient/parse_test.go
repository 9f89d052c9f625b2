package shimclient

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	bootstrap "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
)

func TestSocketPathIsTheShims(t *testing.T) {
	// sha256 of "/run/crid/crid.sock/crid/pod1", as sha256sum says.
	const want = "/run/crid/s/e6437a2af74b4c613f09198852fcb46463aef442bfc1980338126cdb4dd10d92"
	if got := socketPath("/run/crid/s", "/run/crid/crid.sock", "crid", "pod1"); got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
	a, b := socketPath("/s", "/a.sock", "crid", "p"), socketPath("/s", "/b.sock", "crid", "p")
	if a == b {
		t.Fatal("two daemons share a socket")
	}
}

func TestAnswersOfShims(t *testing.T) {
	result := func(version int32, address, protocol string) string {
		b, err := proto.Marshal(&bootstrap.BootstrapResult{Version: version, Address: address, Protocol: protocol})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, c := range []struct {
		out     string
		path    string
		version int
		err     error
	}{
		{result(3, "unix:///s/abc", "ttrpc"), "/s/abc", 3, nil},
		{`{"version":3,"address":"unix:///s/abc","protocol":"ttrpc"}` + "\n", "/s/abc", 3, nil},
		{"unix:///s/abc\n", "/s/abc", 2, nil},
		{"unix:///s/abc", "/s/abc", 2, nil},
		{result(4, "unix:///s/abc", "ttrpc"), "", 0, errdefs.ErrNotImplemented},
		{result(3, "unix:///s/abc", "grpc"), "", 0, errdefs.ErrNotImplemented},
		{result(3, "/s/abc", "ttrpc"), "", 0, errdefs.ErrInvalidArgument},
		{"unix://s/abc", "", 0, errdefs.ErrInvalidArgument},
		{"unix:///s/../abc", "", 0, errdefs.ErrInvalidArgument},
		{"unix:///" + strings.Repeat("x", 107), "", 0, errdefs.ErrInvalidArgument},
		{"unix:///s/a\x00b", "", 0, errdefs.ErrInvalidArgument},
		{" \n", "", 0, errdefs.ErrUnknown},
		{"panic: oh", "", 0, errdefs.ErrInvalidArgument},
	} {
		got, err := parseAnswer([]byte(c.out))
		if !errors.Is(err, c.err) || c.err == nil && got != (answer{c.path, c.version}) {
			t.Errorf("%.60q: %+v, %v", c.out, got, err)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte("unix:///s/abc"))
	f.Add([]byte(`{"version":3,"address":"unix:///s/abc"}`))
	b, _ := proto.Marshal(&bootstrap.BootstrapResult{Version: 3, Address: "unix:///s/abc", Protocol: "ttrpc"})
	f.Add(b)
	f.Fuzz(func(t *testing.T, out []byte) {
		got, err := parseAnswer(out)
		if err == nil && (!filepath.IsAbs(got.path) || len(got.path) > maxSocketPath || got.version < 2 || got.version > 3) {
			t.Fatalf("%+v", got)
		}
	})
}

func TestDialectByVersion(t *testing.T) {
	for text, want := range map[string]struct {
		d    dialect
		sure bool
	}{
		"x:\n  Version:  1.6.20~ds1\n":   {dialectOptions, true},
		"x:\n  Version:  v2.2.0\n":       {dialectOptions, true},
		"x:\n  Version:  2.3.1\n":        {dialectParams, true},
		"x:\n  Version:  2.4.2+unknown":  {dialectParams, true},
		"x:\n  Version:  3.0.0-beta.1\n": {dialectParams, true},
		"x:\n  Version:  \n":             {dialectOptions, false},
		"Kata shim, version: 3.2.0":      {dialectOptions, false},
		"":                               {dialectOptions, false},
	} {
		if d, sure := dialectOf(text); d != want.d || sure != want.sure {
			t.Errorf("%q: %v, %v", text, d, sure)
		}
	}
}

func TestRuncOptions(t *testing.T) {
	var fromJSON map[string]any
	json.Unmarshal([]byte(`{"io_uid": 7}`), &fromJSON)
	for _, c := range []struct {
		given map[string]any
		want  *runcoptions.Options
		says  string
	}{
		{map[string]any{"BinaryName": "/usr/bin/crun", "Root": "/r", "SystemdCgroup": true, "NoPivotRoot": true, "IoUid": int64(1), "IoGid": 2, "ShimCgroup": "/s"},
			&runcoptions.Options{BinaryName: "/usr/bin/crun", Root: "/r", SystemdCgroup: true, NoPivotRoot: true, IoUid: 1, IoGid: 2, ShimCgroup: "/s"}, ""},
		{map[string]any{"systemd_cgroup": true}, &runcoptions.Options{SystemdCgroup: true}, ""},
		{fromJSON, &runcoptions.Options{IoUid: 7}, ""},
		{map[string]any{"SystemCgroup": true}, nil, `"SystemCgroup" is not known`},
		{map[string]any{"SystemdCgroup": "true"}, nil, "SystemdCgroup: value true (string)"},
		{map[string]any{"IoUid": -1}, nil, "IoUid"},
		{map[string]any{"IoUid": 1.5}, nil, "IoUid"},
	} {
		got, err := Runtime{Name: "r", Type: "io.containerd.runc.v2", Options: c.given}.options()
		if c.says != "" {
			if err == nil || !strings.Contains(err.Error(), c.says) || !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("%v: %v", c.given, err)
			}
			continue
		}
		if err != nil || got.TypeUrl != "containerd.runc.v1.Options" {
			t.Fatalf("%v: %v, %v", c.given, got, err)
		}
		var o runcoptions.Options
		if err := proto.Unmarshal(got.Value, &o); err != nil || !proto.Equal(&o, c.want) {
			t.Errorf("%v: %v, want %v", c.given, &o, c.want)
		}
	}
	if got, err := (Runtime{Type: "io.containerd.runc.v2"}).options(); got != nil || err != nil {
		t.Errorf("no options: %v, %v", got, err)
	}
}

func TestOptionsOfOtherShims(t *testing.T) {
	read := func(given map[string]any) *runtimeoptions.Options {
		t.Helper()
		got, err := Runtime{Type: "io.containerd.kata.v2", Options: given}.options()
		if err != nil || got.TypeUrl != "runtimeoptions.v1.Options" {
			t.Fatalf("%v, %v", got, err)
		}
		var o runtimeoptions.Options
		if err := proto.Unmarshal(got.Value, &o); err != nil {
			t.Fatal(err)
		}
		return &o
	}
	if o := read(map[string]any{"ConfigPath": "/etc/kata.toml", "TypeUrl": "x"}); o.ConfigPath != "/etc/kata.toml" || o.TypeUrl != "x" || len(o.ConfigBody) != 0 {
		t.Errorf("%v", o)
	}
	if o := read(map[string]any{"TypeUrl": "io.containerd.runsc.v1.options", "debug": true}); !strings.Contains(string(o.ConfigBody), "debug = true") || o.TypeUrl == "" {
		t.Errorf("%v", o)
	}
	_, err := Runtime{Type: "io.containerd.kata.v2", Options: map[string]any{"ConfigPath": "/x", "debug": true}}.options()
	if err == nil || !strings.Contains(err.Error(), `"debug"`) {
		t.Errorf("an option that nobody reads: %v", err)
	}
}

func TestStdioIsNeverAProgram(t *testing.T) {
	for _, path := range []string{"binary:///bin/sh?x", "binary-v2:///bin/sh", "file:///etc/passwd", "fifo"} {
		s := &Shim{}
		if err := s.Exec(t.Context(), ExecSpec{ID: "a", ExecID: "b", Stdout: path}); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
