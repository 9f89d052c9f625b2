package cni

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain makes the test binary a CNI plugin when it is run as one. What it
// does is told by its configuration: {"faults": {"ADD": "hang"}}.
func TestMain(m *testing.M) {
	if os.Getenv("CNI_COMMAND") != "" {
		// Not os.Exit: with the race detector that takes a second.
		_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT_GROUP, uintptr(plugin()), 0, 0)
	}
	if len(os.Args) == 2 && os.Args[1] == "hold-stdout" {
		time.Sleep(time.Hour)
	}
	if len(os.Args) == 4 && os.Args[1] == "add-from-intent" {
		addFromIntent(os.Args[2], os.Args[3])
		return
	}
	goleak.VerifyTestMain(m)
}

type pluginConf struct {
	CNIVersion    string            `json:"cniVersion"`
	Name          string            `json:"name"`
	Faults        map[string]string `json:"faults"`
	Log           string            `json:"log"`    // one line for each call
	Leases        string            `json:"leases"` // a directory: one file for each pod
	Tag           string            `json:"tag"`
	RuntimeConfig map[string]any    `json:"runtimeConfig"`
	PrevResult    map[string]any    `json:"prevResult"`
	Valid         []struct {
		ContainerID string `json:"containerID"`
	} `json:"cni.dev/valid-attachments"`
}

// call is what a plugin saw, as it logs it.
type call struct {
	Verb, Tag, ID, NetNS, IfName, Args, Path string
	Env                                      []string
	Runtime                                  map[string]any
	Prev                                     bool
	Pid                                      int
}

func plugin() int {
	stdin, _ := io.ReadAll(os.Stdin)
	var conf pluginConf
	if err := json.Unmarshal(stdin, &conf); err != nil {
		fmt.Printf(`{"code":6,"msg":"config: %v"}`, err)
		return 1
	}
	verb, id := os.Getenv("CNI_COMMAND"), os.Getenv("CNI_CONTAINERID")
	if conf.Log != "" {
		line, _ := json.Marshal(call{verb, conf.Tag, id, os.Getenv("CNI_NETNS"), os.Getenv("CNI_IFNAME"), os.Getenv("CNI_ARGS"),
			os.Getenv("CNI_PATH"), os.Environ(), conf.RuntimeConfig, conf.PrevResult != nil, os.Getpid()})
		f, err := os.OpenFile(conf.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			panic(err)
		}
		_, _ = f.Write(append(line, '\n'))
		_ = f.Close()
	}
	lease := filepath.Join(conf.Leases, id)
	if conf.Leases != "" {
		switch verb {
		case "ADD":
			_ = os.WriteFile(lease, nil, 0o600)
		case "DEL":
			defer os.Remove(lease)
		case "GC":
			valid := map[string]bool{}
			for _, a := range conf.Valid {
				valid[a.ContainerID] = true
			}
			entries, _ := os.ReadDir(conf.Leases)
			for _, e := range entries {
				if !valid[e.Name()] {
					_ = os.Remove(filepath.Join(conf.Leases, e.Name()))
				}
			}
		}
	}
	return misbehave(conf, verb, lease)
}

func misbehave(conf pluginConf, verb, lease string) int {
	fault, rest, _ := strings.Cut(conf.Faults[verb], ":")
	switch fault {
	case "hang":
		child := exec.Command("/proc/self/exe", "hold-stdout")
		child.Stdout, child.Env = os.Stdout, []string{"CHILD=1"}
		_ = child.Start()
		time.Sleep(time.Hour)
	case "daemonize": // answers, and leaves a child that holds stdout
		child := exec.Command("/proc/self/exe", "hold-stdout")
		child.Stdout, child.Env = os.Stdout, []string{"CHILD=1"}
		child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		_ = child.Start()
		_ = os.WriteFile(rest, fmt.Append(nil, child.Process.Pid), 0o600)
	case "error":
		fmt.Print(`{"cniVersion":"1.0.0","code":999,"msg":"failed to allocate for range 0: no IP addresses available in range set","details":"10.0.0.1-10.0.0.6"}`)
		os.Remove(lease + ".none")
		return 1
	case "later":
		fmt.Print(`{"code":11,"msg":"agent is starting"}`)
		return 1
	case "silent":
		return 1
	case "stderr":
		fmt.Fprint(os.Stderr, "modprobe: not found\n")
		return 1
	case "garbage":
		fmt.Print("panic: \x00\xff everything is fine")
	case "null":
		fmt.Print("null")
	case "list":
		fmt.Print("[1,2]")
	case "empty":
	case "flood":
		block := []byte(strings.Repeat("x", 1<<20))
		for range 100 {
			if _, err := os.Stdout.Write(block); err != nil {
				return 1
			}
		}
	case "no-ips":
		fmt.Printf(`{"cniVersion":%q,"interfaces":[{"name":"eth0","sandbox":"/ns"}]}`, conf.CNIVersion)
	case "v6":
		fmt.Printf(`{"cniVersion":%q,"interfaces":[{"name":"br0"},{"name":"eth0","mac":"02:00:00:00:00:01","sandbox":"/ns"}],"ips":[{"address":"fd00::5/64","interface":1}]}`, conf.CNIVersion)
	case "dual":
		fmt.Printf(`{"cniVersion":%q,"interfaces":[{"name":"br0"},{"name":"eth0","mac":"02:00:00:00:00:01","sandbox":"/ns"}],"ips":[{"address":"fd00::5/64","interface":1},{"address":"10.1.0.5/16","interface":1}],"dns":{"nameservers":["10.1.0.1"]}}`, conf.CNIVersion)
	case "version":
		fmt.Print(`{"cniVersion":"9.9.9","ips":[{"address":"10.1.0.5/16"}]}`)
	case "times": // fails as often as the file has bytes
		left, _ := os.ReadFile(rest)
		if len(left) > 0 {
			_ = os.WriteFile(rest, left[1:], 0o600)
			fmt.Print(`{"code":5,"msg":"iptables is locked"}`)
			return 1
		}
	default:
		if verb == "ADD" {
			if conf.PrevResult != nil {
				out, _ := json.Marshal(conf.PrevResult)
				fmt.Printf("%s", out)
			} else {
				fmt.Printf(`{"cniVersion":%q,"interfaces":[{"name":"eth0","mac":"02:00:00:00:00:01","sandbox":"/ns"}],"ips":[{"address":"10.1.0.5/16","interface":0}]}`, conf.CNIVersion)
			}
		}
	}
	return 0
}

// world is a configuration directory, a bin dir and a cache of a test's own.
type world struct {
	t                              testing.TB
	confDir, binDir, cache, leases string
	log                            string
}

func newWorld(t testing.TB, plugins ...string) *world {
	dir := t.TempDir()
	w := &world{t: t, confDir: dir + "/net.d", binDir: dir + "/bin", cache: dir + "/cache", leases: dir + "/leases", log: dir + "/calls"}
	for _, d := range []string{w.confDir, w.binDir, w.leases} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range plugins {
		if err := os.Symlink(exe, filepath.Join(w.binDir, p)); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// conf writes a network of the given plugins: "type" or "type VERB=fault ...".
func (w *world) conf(file, name, version string, plugins ...string) {
	w.t.Helper()
	var list []map[string]any
	for i, p := range plugins {
		words := strings.Fields(p)
		faults := map[string]string{}
		for _, f := range words[1:] {
			verb, fault, _ := strings.Cut(f, "=")
			faults[verb] = fault
		}
		c := map[string]any{"type": words[0], "faults": faults, "log": w.log, "tag": words[0],
			"capabilities": map[string]bool{"portMappings": true, "bandwidth": i > 0, "dns": true, "io.kubernetes.cri.pod-annotations": true, "cgroupPath": true}}
		if i == 0 {
			c["leases"] = w.leases
		}
		list = append(list, c)
	}
	data, err := json.Marshal(map[string]any{"cniVersion": version, "name": name, "plugins": list})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.confDir, file), data, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) networks(timeout time.Duration) *Networks {
	w.t.Helper()
	n, err := New(Config{ConfDir: w.confDir, BinDirs: []string{w.binDir}, CacheDir: w.cache, Timeout: timeout, Owned: "/ours", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

func (w *world) calls() []call {
	w.t.Helper()
	data, err := os.ReadFile(w.log)
	if err != nil && !os.IsNotExist(err) {
		w.t.Fatal(err)
	}
	var out []call
	for line := range strings.Lines(string(data)) {
		var c call
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			w.t.Fatal(err)
		}
		out = append(out, c)
	}
	return out
}

// verbs is the story of all calls, such as "ADD a, ADD b, DEL b, DEL a".
func (w *world) verbs() string {
	var out []string
	for _, c := range w.calls() {
		if c.Verb != "STATUS" {
			out = append(out, c.Verb+" "+c.Tag)
		}
	}
	return strings.Join(out, ", ")
}

// nothingLeft fails if a lease or a kept record is left.
func (w *world) nothingLeft() {
	w.t.Helper()
	for _, dir := range []string{w.leases, w.cache + "/results"} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			w.t.Errorf("left in %s: %s", filepath.Base(dir), e.Name())
		}
	}
}

func pod(id string) Attachment {
	return Attachment{ID: id, NetNS: "/ours/" + id + "/net", Name: "web-0", Namespace: "default", UID: "u-1"}
}
