package cni

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func (w *world) write(file, content string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.confDir, file), []byte(content), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func TestTheFirstValidConfigurationWins(t *testing.T) {
	w := newWorld(t, "a")
	w.write("00-readme.txt", "not a configuration")
	w.write(".05-hidden.conflist", `{"cniVersion":"1.0.0","name":"hidden","plugins":[{"type":"a"}]}`)
	w.write("10-broken.conflist", `{"name":`)
	if err := os.Mkdir(filepath.Join(w.confDir, "11-dir.conflist"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(w.confDir, "12-fifo.conflist"), 0o600); err != nil {
		t.Fatal(err)
	}
	n := w.networks(0)
	if ok, reason := n.Ready(); ok || !strings.Contains(reason, "10-broken.conflist") {
		t.Errorf("%v %q", ok, reason)
	}
	for _, step := range []struct{ file, content, want string }{
		{"40-list.conflist", `{"cniVersion":"1.0.0","name":"list","plugins":[{"type":"a"}]}`, "list"},
		{"30-single.conf", `{"cniVersion":"1.0.0","name":"single","type":"a"}`, "single"},
		{"20-json.json", `{"cniVersion":"0.4.0","name":"json","type":"a"}`, "json"},
		{"19-future.conflist", `{"cniVersion":"9.9.9","name":"future","plugins":[{"type":"a"}]}`, "json"},
		{"18-path.conflist", `{"cniVersion":"1.0.0","name":"evil","plugins":[{"type":"../../../bin/x"}]}`, "json"}, // CVE-2021-20206
		{"17-ipam.conflist", `{"cniVersion":"1.0.0","name":"evil","plugins":[{"type":"a","ipam":{"type":"/bin/x"}}]}`, "json"},
		{"16-name.conflist", `{"cniVersion":"1.0.0","name":"../evil","plugins":[{"type":"a"}]}`, "json"},
		{"15-none.conflist", `{"cniVersion":"1.0.0","name":"none","plugins":[]}`, "json"},
		{"14-old.conflist", `{"name":"old","plugins":[{"type":"a"}]}`, "old"},
	} {
		w.write(step.file, step.content)
		n.Reload()
		if got := n.Name(); got != step.want {
			t.Errorf("after %s: network %q, want %q", step.file, got, step.want)
		}
	}
	for file, want := range map[string]string{"19-future.conflist": "9.9.9", "18-path.conflist": "not a file name"} {
		if _, err := parseFile(filepath.Join(w.confDir, file)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestPluginsInFilesOfTheirOwn(t *testing.T) {
	w := newWorld(t, "a", "b")
	if err := os.Mkdir(filepath.Join(w.confDir, "net"), 0o700); err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf(`{"type":"b","tag":"b","log":%q}`, w.log)
	if err := os.WriteFile(filepath.Join(w.confDir, "net", "50-b.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	w.conf("10-net.conflist", "net", "1.0.0", "a")
	n := w.networks(0)
	res, err := n.Add(t.Context(), pod("p1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(w.confDir, "net")); err != nil {
		t.Fatal(err)
	}
	n.Reload()
	if err := n.Del(t.Context(), pod("p1"), res.Saved); err != nil {
		t.Fatal(err)
	}
	if got := w.verbs(); got != "ADD a, ADD b, DEL b, DEL a" {
		t.Error(got)
	}
}

// A file in the middle of being written does not move new pods to another
// network; one that stays broken is passed over.
func TestTornFile(t *testing.T) {
	w := newWorld(t, "a")
	w.conf("10-net.conflist", "first", "1.0.0", "a")
	w.conf("20-net.conflist", "second", "1.0.0", "a")
	n := w.networks(0)
	w.write("10-net.conflist", `{"cniVersion":"1.0`)
	if !n.Reload() || n.Name() != "first" {
		t.Errorf("a torn file moved the pods to %q", n.Name())
	}
	n.torn.since[filepath.Join(w.confDir, "10-net.conflist")] = time.Now().Add(-tornGrace)
	if n.Reload() || n.Name() != "second" {
		t.Errorf("a broken file is still in force: %q", n.Name())
	}
	w.conf("10-net.conflist", "first", "1.0.0", "a")
	if n.Reload() || n.Name() != "first" {
		t.Errorf("a mended file is not in force: %q", n.Name())
	}
}

// F83.
func TestWatch(t *testing.T) {
	w := newWorld(t, "a")
	if err := os.Remove(w.confDir); err != nil {
		t.Fatal(err)
	}
	n := w.networks(0)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { n.Watch(ctx) })
	defer func() { cancel(); wg.Wait() }()
	if ok, reason := n.Ready(); ok || reason == "" {
		t.Fatalf("ready %v without a configuration, reason %q", ok, reason)
	}
	name := func(want string) {
		t.Helper()
		start := time.Now()
		for n.Name() != want {
			if time.Since(start) > 5*time.Second {
				t.Fatalf("network %q after 5 s, want %q", n.Name(), want)
			}
			time.Sleep(5 * time.Millisecond)
		}
		t.Logf("%q after %v", want, time.Since(start))
	}
	if err := os.Mkdir(w.confDir, 0o700); err != nil { // comes later than the daemon
		t.Fatal(err)
	}
	w.conf("10-net.conflist", "one", "1.0.0", "a")
	name("one")
	if ok, reason := n.Ready(); !ok {
		t.Error(reason)
	}
	if err := os.Remove(filepath.Join(w.confDir, "10-net.conflist")); err != nil {
		t.Fatal(err)
	}
	name("")
	good, err := json.Marshal(map[string]any{"cniVersion": "1.0.0", "name": "two", "plugins": []map[string]any{{"type": "a"}}})
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for i := range 200 { // rewritten all the time, torn every other time
		w.write("10-net.conflist", string(good[:len(good)*(i%2)+len(good)/2*(1-i%2)]))
		time.Sleep(5 * time.Millisecond)
		switch n.Name() {
		case "two":
			seen++
		case "":
			if seen > 0 {
				t.Fatal("the network was lost while its file was rewritten")
			}
		default:
			t.Fatalf("network %q", n.Name())
		}
	}
	name("two")
	if err := os.RemoveAll(w.confDir); err != nil { // the directory is replaced
		t.Fatal(err)
	}
	name("")
	if err := os.Mkdir(w.confDir, 0o700); err != nil {
		t.Fatal(err)
	}
	w.conf("10-net.conflist", "three", "1.0.0", "a")
	name("three")
}

func TestWriteDefault(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "net.d")
	if _, err := WriteDefault(dir, Default{Subnets: []string{"10.0.0.0/8", "10.1.0.0/16"}}); err == nil {
		t.Error("two subnets of one family were accepted")
	}
	written, err := WriteDefault(dir, Default{Subnets: []string{"10.9.0.1/16", "fd09::/64"}, Firewall: true, Bandwidth: true, MTU: 1400, DataDir: "/x"})
	if err != nil || !written {
		t.Fatal(written, err)
	}
	list, err := parseFile(filepath.Join(dir, DefaultFile))
	if err != nil || list.Name != "crid" || len(list.Plugins) != 4 {
		t.Errorf("%+v %v", list, err)
	}
	if written, err = WriteDefault(dir, Default{Name: "other"}); written || err != nil {
		t.Errorf("overwrote: %v %v", written, err)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func FuzzParseList(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"a","ipam":{"type":"b"},"capabilities":{"dns":true}}]}`))
	f.Add([]byte(`{"name":"n","cniVersions":["0.4.0","1.1.0"],"plugins":[null]}`))
	f.Add([]byte(`{"name":"n","type":"a"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := parseList(data)
		if err != nil {
			return
		}
		r := newRecord(list, "eth0", pod("p"))
		out, err := r.marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := parseRecord(out); err != nil {
			t.Fatalf("a record that we wrote: %v", err)
		}
		for _, p := range list.Plugins {
			if strings.ContainsRune(p.Network.Type, '/') {
				t.Fatalf("type %q", p.Network.Type)
			}
			if _, err := configure(list, p, nil, r.CapabilityArgs); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzResult(f *testing.F) {
	f.Add("1.0.0", []byte(`{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"x"}],"ips":[{"address":"10.0.0.1/8","interface":0}],"dns":{}}`))
	f.Add("0.2.0", []byte(`{"ip4":{"ip":"10.0.0.1/8"}}`))
	f.Add("1.0.0", []byte(`{"ips":[null,{"interface":7}],"interfaces":[null]}`))
	f.Add("", []byte(`{"cniVersion":null}`))
	f.Fuzz(func(t *testing.T, v string, data []byte) {
		list, err := parseList(fmt.Appendf(nil, `{"cniVersion":%q,"name":"n","plugins":[{"type":"a"}]}`, v))
		if err != nil {
			return
		}
		res, err := parseAnswer(list, data)
		if err != nil {
			return
		}
		r := newRecord(list, "eth0", pod("p"))
		if r.Result, err = json.Marshal(res); err != nil {
			return
		}
		n := &Networks{}
		out, err := n.resultOf(r)
		if err != nil {
			return
		}
		if len(out.IPs) == 0 {
			t.Fatal("a result without addresses was accepted")
		}
		if _, err := n.ResultOf(out.Saved); err != nil {
			t.Fatalf("a record that we wrote: %v", err)
		}
		if _, err := previous(list, r); err != nil {
			t.Skip(err) // cannot be told in the network's version: DEL says so
		}
	})
}

func FuzzRecord(f *testing.F) {
	w := newWorld(f, "a")
	w.conf("10-net.conflist", "net", "1.0.0", "a")
	intent, err := w.networks(0).Prepare(pod("p"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(intent)
	f.Fuzz(func(t *testing.T, data []byte) {
		r, list, err := parseRecord(data)
		if err != nil {
			return
		}
		n := &Networks{cfg: Config{CacheDir: "/c"}}
		if p := n.recordPath(r); filepath.Dir(p) != "/c/results" {
			t.Fatalf("record at %s", p)
		}
		_, _ = previous(list, r)
		_, _ = n.ResultOf(data)
	})
}
