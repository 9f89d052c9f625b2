package cni

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

func TestAddAndDel(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://user:secret@proxy")
	w := newWorld(t, "a", "b")
	w.conf("10-net.conflist", "net", "1.0.0", "a ADD=dual", "b")
	n := w.networks(0)
	a := pod("p1")
	a.Ports = []Port{{Protocol: "TCP", ContainerPort: 80, HostPort: 8080, HostIP: "127.0.0.1"}, {Protocol: "UDP", ContainerPort: 53}}
	a.Ingress = 1000000
	a.Args = map[string]string{"EXTRA": "1", "K8S_POD_NAME": "somebody-else"}
	a.Annotations = map[string]string{"k": "v"}
	a.DNS = &DNS{Servers: []string{"10.0.0.10"}}
	a.CgroupPath = "/kubepods/pod1"

	res, err := n.Add(t.Context(), a, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(res.IPs); got != "[10.1.0.5 fd00::5]" {
		t.Errorf("IPs %s, want the IPv4 address first", got)
	}
	if len(res.Interfaces) != 1 || res.Interfaces[0].Name != "eth0" || res.Interfaces[0].MAC != "02:00:00:00:00:01" || len(res.Interfaces[0].IPs) != 2 {
		t.Errorf("interfaces %+v", res.Interfaces)
	}
	if res.DNS.Servers[0] != "10.1.0.1" || res.Network != "net" {
		t.Errorf("%+v", res)
	}
	calls := w.calls()
	if calls[0].Args != "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=p1;K8S_POD_UID=u-1;EXTRA=1" {
		t.Errorf("CNI_ARGS %q", calls[0].Args)
	}
	if calls[0].IfName != "eth0" || calls[0].NetNS != a.NetNS || calls[0].Path != w.binDir {
		t.Errorf("%+v", calls[0])
	}
	for _, kv := range calls[0].Env {
		if !strings.HasPrefix(kv, "CNI_") && !strings.HasPrefix(kv, "PATH=") {
			t.Errorf("the plugin was given %q", kv)
		}
	}
	ports := fmt.Sprint(calls[0].Runtime["portMappings"])
	if ports != "[map[containerPort:80 hostIP:127.0.0.1 hostPort:8080 protocol:tcp]]" {
		t.Errorf("portMappings %s", ports)
	}
	if _, given := calls[0].Runtime["bandwidth"]; given {
		t.Error("a capability was given to a plugin that does not have it")
	}
	if fmt.Sprint(calls[1].Runtime["bandwidth"]) != "map[ingressBurst:4.294967295e+09 ingressRate:1e+06]" {
		t.Errorf("bandwidth %v", calls[1].Runtime["bandwidth"])
	}
	for _, key := range []string{"dns", "cgroupPath", "io.kubernetes.cri.pod-annotations"} {
		if calls[0].Runtime[key] == nil {
			t.Errorf("%s was not given", key)
		}
	}
	if calls[0].Prev || !calls[1].Prev {
		t.Error("prevResult is for the second plugin only")
	}
	if again, err := n.ResultOf(res.Saved); err != nil || fmt.Sprint(again.IPs) != fmt.Sprint(res.IPs) {
		t.Errorf("the record says %+v, %v", again, err)
	}
	if err := n.Check(t.Context(), res.Saved); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := n.Del(t.Context(), a, res.Saved); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.verbs(); got != "ADD a, ADD b, CHECK a, CHECK b, DEL b, DEL a, DEL b, DEL a" {
		t.Error(got)
	}
	if c := w.calls(); !c[len(c)-1].Prev || fmt.Sprint(c[len(c)-1].Runtime["portMappings"]) != ports {
		t.Errorf("DEL was not given what ADD was: %+v", c[len(c)-1])
	}
	w.nothingLeft()
}

// A failed ADD leaves nothing, whatever the plugin does (F77, F78).
func TestAddFails(t *testing.T) {
	for fault, want := range map[string]string{
		"hang":    "did not end in time",
		"error":   "no IP addresses available in range set (code 999): 10.0.0.1-10.0.0.6",
		"later":   "agent is starting (code 11)",
		"silent":  "exit status 1 without a message",
		"stderr":  "modprobe: not found",
		"garbage": "no CNI result",
		"null":    "no CNI result: it is null",
		"list":    "no CNI result",
		"empty":   "no CNI result: it is empty",
		"flood":   "wrote more than 1048576 bytes",
		"no-ips":  "no plugin gave the pod's interface an address",
		"version": "no CNI result",
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "a", "b")
			w.conf("10-net.conflist", "net", "1.0.0", "a", "b ADD="+fault)
			n := w.networks(2 * time.Second)
			start := time.Now()
			_, err := n.Add(t.Context(), pod("p1"), nil)
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "net") {
				t.Errorf("error %v, want %q", err, want)
			}
			if hangs := fault == "hang"; errors.Is(err, ErrDelOwed) != hangs {
				t.Errorf("DEL is owed: %v", err)
			} else if hangs {
				if err := n.Del(t.Context(), pod("p1"), nil); err != nil {
					t.Error(err)
				}
			}
			if fault == "hang" && !errors.Is(err, context.DeadlineExceeded) || fault == "later" && !errdefs.IsUnavailable(err) {
				t.Errorf("error is not typed: %v", err)
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("took %v", took)
			}
			if got := w.verbs(); got != "ADD a, ADD b, DEL b, DEL a" {
				t.Error(got)
			}
			for _, c := range w.calls() {
				if err := syscall.Kill(-c.Pid, 0); !errors.Is(err, syscall.ESRCH) && c.Verb == "ADD" && fault == "hang" {
					if !onlyZombies(c.Pid) {
						t.Errorf("the process group of %s %s is still there", c.Verb, c.Tag)
					}
				}
			}
			w.nothingLeft()
		})
	}
}

// onlyZombies is true if nobody lives in the group; orphans are reaped by the
// machine's first process, which may take its time.
func onlyZombies(pgid int) bool {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		var state string
		var ppid, group int
		_, rest, _ := strings.Cut(string(data), ") ")
		if _, err := fmt.Sscan(rest, &state, &ppid, &group); err == nil && group == pgid && state != "Z" && state != "X" {
			return false
		}
	}
	return true
}

func TestIPv6Only(t *testing.T) {
	w := newWorld(t, "a")
	w.conf("10-net.conflist", "net", "1.0.0", "a ADD=v6")
	res, err := w.networks(0).Add(t.Context(), pod("p1"), nil)
	if err != nil || fmt.Sprint(res.IPs) != "[fd00::5]" {
		t.Errorf("%+v, %v", res, err)
	}
}

// A DHCP client stays, holding the plugin's output: neither waited for nor killed.
func TestAPluginMayLeaveADaemonBehind(t *testing.T) {
	w := newWorld(t, "a")
	pidFile := filepath.Join(t.TempDir(), "pid")
	w.conf("10-net.conflist", "net", "1.0.0", "a ADD=daemonize:"+pidFile)
	start := time.Now()
	_, err := w.networks(20*time.Second).Add(t.Context(), pod("p1"), nil)
	if err == nil || !strings.Contains(err.Error(), "it is empty") { // the fake answers nothing
		t.Error(err)
	}
	if time.Since(start) > 10*time.Second {
		t.Errorf("waited %v for a child that holds the output", time.Since(start))
	}
	data, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	var child int
	fmt.Sscan(string(data), &child)
	if err := syscall.Kill(child, syscall.SIGKILL); err != nil {
		t.Errorf("the daemon was killed with its parent: %v", err)
	}
}

func TestCallersDeadlineEndsTheAddWhichIsUndoneLater(t *testing.T) {
	w := newWorld(t, "a")
	w.conf("10-net.conflist", "net", "1.0.0", "a ADD=hang")
	n := w.networks(0)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := n.Add(ctx, pod("p1"), nil); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrDelOwed) {
		t.Error(err)
	}
	if err := n.Del(t.Context(), pod("p1"), nil); err != nil {
		t.Error(err)
	}
	if got := w.verbs(); got != "ADD a, DEL a" {
		t.Error(got)
	}
	w.nothingLeft()
}

// F85: what makes ADD hang makes DEL hang as well. The answer comes when the time
// for ADD is up, and what is owed is not lost to GC nor to a DEL without a record.
func TestAddThatHangsIsAnsweredBeforeItsDel(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.conf("10-net.conflist", "net", "1.1.0", "a", "b ADD=hang DEL=hang")
	n := w.networks(time.Second)
	start := time.Now()
	_, err := n.Add(t.Context(), pod("p1"), nil)
	if !errors.Is(err, ErrPluginSlow) || !errors.Is(err, ErrDelOwed) {
		t.Error(err)
	}
	if got := w.verbs(); got != "ADD a, ADD b" {
		t.Errorf("after %v: %s", time.Since(start), got)
	}
	if err := n.Del(t.Context(), pod("p1"), nil); !errors.Is(err, ErrPluginSlow) {
		t.Errorf("a DEL that hangs: %v", err)
	}
	w.conf("10-net.conflist", "net", "1.1.0", "a", "b")
	n.Reload()
	live, open, err := n.gate.close(t.Context())
	if err != nil || len(live) != 1 || live[0] != "p1" {
		t.Errorf("GC is to take the pod for gone: %v, %v", live, err)
	}
	if open != nil {
		open()
	}
}

// F79: the first plugin's work must be undone although the second never ran.
func TestSecondPluginMissing(t *testing.T) {
	w := newWorld(t, "a")
	w.conf("10-net.conflist", "net", "1.0.0", "a", "b")
	n := w.networks(0)
	if ok, reason := n.Ready(); ok || !strings.Contains(reason, `"b" not found`) {
		t.Errorf("ready %v %q", ok, reason)
	}
	intent, err := n.Prepare(pod("p1"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = n.Add(t.Context(), pod("p1"), intent)
	if !errors.Is(err, ErrPluginMissing) || errors.Is(err, ErrDelOwed) {
		t.Error(err)
	}
	if got := w.verbs(); got != "ADD a, DEL a" {
		t.Error(got)
	}
	w.nothingLeft()
	// After a crash in the middle only the intent is known: same outcome.
	if err := n.Del(t.Context(), pod("p1"), intent); err != nil {
		t.Error(err)
	}
	if got := w.verbs(); got != "ADD a, DEL a, DEL a" {
		t.Error(got)
	}
}

func TestAPluginThatVanishedAfterAddIsAnError(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.conf("10-net.conflist", "net", "1.0.0", "a", "b")
	n := w.networks(0)
	res, err := n.Add(t.Context(), pod("p1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(w.binDir, "b")); err != nil {
		t.Fatal(err)
	}
	if err := n.Del(t.Context(), pod("p1"), res.Saved); !errors.Is(err, ErrPluginMissing) {
		t.Error(err)
	}
	if got := w.verbs(); got != "ADD a, ADD b, DEL a" {
		t.Errorf("the other plugin was not called: %s", got)
	}
}

// F80.
func TestDelFailsThreeTimes(t *testing.T) {
	w := newWorld(t, "a", "b")
	count := filepath.Join(t.TempDir(), "count")
	if err := os.WriteFile(count, []byte("xxx"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.conf("10-net.conflist", "net", "1.0.0", "a", "b DEL=times:"+count)
	n := w.networks(0)
	res, err := n.Add(t.Context(), pod("p1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := n.Del(t.Context(), pod("p1"), res.Saved); err == nil || !strings.Contains(err.Error(), "iptables is locked") {
			t.Fatalf("try %d: %v", i, err)
		}
	}
	if err := n.Del(t.Context(), pod("p1"), res.Saved); err != nil {
		t.Error(err)
	}
	w.nothingLeft()
}

func TestDelHangs(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.conf("10-net.conflist", "net", "1.0.0", "a", "b DEL=hang")
	n := w.networks(time.Second)
	res, err := n.Add(t.Context(), pod("p1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Del(t.Context(), pod("p1"), res.Saved); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	// A failed ADD whose undoing fails too says that DEL is still owed.
	w.conf("10-net.conflist", "net", "1.0.0", "a ADD=error DEL=error")
	n.Reload()
	if _, err := n.Add(t.Context(), pod("p2"), nil); !errors.Is(err, ErrDelOwed) || !strings.Contains(err.Error(), "no IP addresses") {
		t.Error(err)
	}
}

// F81.
func TestDelUsesTheNetworkAsItWasAtAdd(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.conf("10-net.conflist", "net", "1.0.0", "a", "b")
	n := w.networks(0)
	one, err := n.Add(t.Context(), pod("p1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Add(t.Context(), pod("p2"), nil); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(w.confDir, "10-net.conflist")); err != nil {
		t.Fatal(err)
	}
	n.Reload()
	if err := n.Del(t.Context(), pod("p1"), one.Saved); err != nil {
		t.Error(err)
	}
	w.conf("10-net.conflist", "net", "1.0.0", "c")
	n.Reload()
	if err := n.Del(t.Context(), pod("p2"), nil); err != nil { // the record was lost: the copy is used
		t.Error(err)
	}
	if got := w.verbs(); got != "ADD a, ADD b, ADD a, ADD b, DEL b, DEL a, DEL b, DEL a" {
		t.Error(got)
	}
	w.nothingLeft()
}

// F84: the daemon died between the end of ADD and its record.
func TestCrashBetweenAddAndSave(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.conf("10-net.conflist", "net", "1.0.0", "a", "b")
	before := w.networks(0)
	for i := range 5 {
		a := pod(fmt.Sprint("p", i))
		intent, err := before.Prepare(a)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := before.Add(t.Context(), a, intent); err != nil {
			t.Fatal(err)
		}
		after := w.networks(0)
		if err := after.Del(t.Context(), a, intent); err != nil {
			t.Error(err)
		}
		w.nothingLeft()
	}
}

func TestDelWithoutAnythingKnown(t *testing.T) {
	w := newWorld(t, "a")
	n := w.networks(0)
	if err := n.Del(t.Context(), pod("p1"), nil); err != nil {
		t.Errorf("no network, no record: %v", err)
	}
	w.conf("10-net.conflist", "net", "0.3.1", "a")
	n.Reload()
	if err := n.Del(t.Context(), pod("p1"), nil); err != nil {
		t.Error(err)
	}
	if got := w.verbs(); got != "DEL a" {
		t.Error(got)
	}
	if c := w.calls()[0]; c.NetNS == pod("p1").NetNS {
		t.Errorf("a namespace that is gone was given: %q", c.NetNS)
	}
}

func TestDelWaitsForTheAddItUndoes(t *testing.T) {
	w := newWorld(t, "a")
	w.conf("10-net.conflist", "net", "1.0.0", "a ADD=hang")
	n := w.networks(time.Second)
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = n.Add(t.Context(), pod("p1"), nil) })
	for len(w.calls()) == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := n.Del(t.Context(), pod("p1"), nil); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if got := w.verbs(); got != "ADD a, DEL a" {
		t.Error(got)
	}
	w.nothingLeft()
}

func TestHostileArguments(t *testing.T) {
	w := newWorld(t, "a")
	w.conf("10-net.conflist", "net", "1.0.0", "a")
	n := w.networks(0)
	for name, change := range map[string]func(*Attachment){
		"id is a path":      func(a *Attachment) { a.ID = "../../etc" },
		"no id":             func(a *Attachment) { a.ID = "" },
		"name injects args": func(a *Attachment) { a.Name = "x;K8S_POD_NAMESPACE=kube-system" },
		"arg injects args":  func(a *Attachment) { a.Args = map[string]string{"A;B": "1"} },
		"port out of range": func(a *Attachment) { a.Ports = []Port{{HostPort: 70000}} },
	} {
		a := pod("p1")
		change(&a)
		if _, err := n.Add(t.Context(), a, nil); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, saved := range map[string]string{
		"no JSON":     "{",
		"other kind":  `{"kind":"x"}`,
		"id is path":  `{"kind":"cniCacheV1","containerId":"../x","ifName":"eth0","networkName":"net","config":"e30="}`,
		"no config":   `{"kind":"cniCacheV1","containerId":"x","ifName":"eth0","networkName":"net"}`,
		"empty conf":  `{"kind":"cniCacheV1","containerId":"x","ifName":"eth0","networkName":"net","config":"e30="}`,
		"iface is up": `{"kind":"cniCacheV1","containerId":"x","ifName":"../up","networkName":"net","config":"e30="}`,
	} {
		if err := n.Check(t.Context(), []byte(saved)); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := w.verbs(); got != "" {
		t.Errorf("a plugin was run: %s", got)
	}
}

func TestGC(t *testing.T) {
	w := newWorld(t, "a")
	w.conf("10-net.conflist", "net", "1.1.0", "a")
	n := w.networks(0)
	for _, id := range []string{"live", "orphan"} {
		if _, err := n.Add(t.Context(), pod(id), nil); err != nil {
			t.Fatal(err)
		}
	}
	other := pod("other-runtimes")
	other.NetNS = "/var/run/netns/cni-1"
	if _, err := n.Add(t.Context(), other, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.leases, "leaked"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n = w.networks(0) // the daemon's next run: only its records tell what lives
	if _, err := n.Add(t.Context(), pod("new"), nil); err != nil {
		t.Fatal(err) // after the caller of GC made its list
	}
	for range 2 {
		if err := n.GC(t.Context(), []Attachment{pod("live")}); err != nil {
			t.Fatal(err)
		}
	}
	var left []string
	entries, _ := os.ReadDir(w.leases)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if !slices.Equal(left, []string{"live", "new", "other-runtimes"}) {
		t.Errorf("leases left: %v", left)
	}
	if got := w.verbs(); got != "ADD a, ADD a, ADD a, ADD a, DEL a, GC a, GC a" {
		t.Error(got)
	}
}

func TestStatusVerb(t *testing.T) {
	w := newWorld(t, "a")
	w.conf("10-net.conflist", "net", "1.1.0", "a STATUS=error")
	n := w.networks(0)
	if err := n.Status(t.Context()); err == nil {
		t.Error("status of a plugin that is not ready")
	}
	if ok, reason := n.Ready(); ok || !strings.Contains(reason, "no IP addresses") {
		t.Errorf("ready %v %q", ok, reason)
	}
	w.conf("10-net.conflist", "net", "1.1.0", "a")
	n.Reload()
	if err := n.Status(t.Context()); err != nil {
		t.Error(err)
	}
	if ok, reason := n.Ready(); !ok {
		t.Error(reason)
	}
}

func TestManyPodsAtOnce(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.conf("10-net.conflist", "net", "1.0.0", "a", "b")
	n := w.networks(0)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			a := pod(fmt.Sprint("p", i))
			res, err := n.Add(t.Context(), a, nil)
			if err != nil {
				t.Error(err)
				return
			}
			if !bytes.Contains(res.Saved, []byte(`"`+a.ID+`"`)) {
				t.Error("somebody else's record")
			}
			if err := n.Del(t.Context(), a, res.Saved); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	w.nothingLeft()
	if len(n.busy) != 0 {
		t.Errorf("locks left: %d", len(n.busy))
	}
}

func TestSkipIdle(t *testing.T) {
	w := newWorld(t, "a", "portmap")
	w.conf("10-net.conflist", "net", "1.0.0", "a", "portmap")
	n := w.networks(0)
	n.cfg.SkipIdle = true
	for _, ports := range [][]Port{nil, {{Protocol: "tcp", ContainerPort: 80, HostPort: 80}}} {
		a := pod("p1")
		a.Ports = ports
		res, err := n.Add(t.Context(), a, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Del(t.Context(), a, res.Saved); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.verbs(); got != "ADD a, DEL a, ADD a, ADD portmap, DEL portmap, DEL a" {
		t.Error(got)
	}
	if err := os.Remove(filepath.Join(w.binDir, "portmap")); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Add(t.Context(), pod("p2"), nil); !errors.Is(err, ErrPluginMissing) {
		t.Error(err)
	}
}

// A damaged record must not keep the pod from going.
func TestDelWithADamagedRecord(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.conf("10-net.conflist", "net", "1.0.0", "a")
	n := w.networks(0)
	res, err := n.Add(t.Context(), pod("p1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	w.conf("10-net.conflist", "net", "1.0.0", "b")
	n.Reload()
	if err := n.Del(t.Context(), pod("p1"), res.Saved[:20]); err != nil {
		t.Error(err)
	}
	badResult := bytes.Replace(res.Saved, []byte(`"cniVersion":"1.0.0"`), []byte(`"cniVersion":"7.0.0"`), 1)
	if err := n.Del(t.Context(), pod("p1"), badResult); err != nil {
		t.Error(err)
	}
	if got := w.verbs(); got != "ADD a, DEL a, DEL a" {
		t.Error(got)
	}
	if err := n.Del(t.Context(), pod("p2"), res.Saved); !errdefs.IsInvalidArgument(err) {
		t.Errorf("another pod's record: %v", err)
	}
	w.nothingLeft()
}

// A lease in the making must not look like one of nobody's.
func TestGCAndAddKeepApart(t *testing.T) {
	w := newWorld(t, "a")
	w.conf("10-net.conflist", "net", "1.1.0", "a")
	n := w.networks(0)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if _, err := n.Add(t.Context(), pod(fmt.Sprint("p", i)), nil); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if err := n.GC(t.Context(), nil); err != nil && !errdefs.IsUnavailable(err) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if entries, _ := os.ReadDir(w.leases); len(entries) != 20 {
		t.Errorf("%d leases of 20 pods", len(entries))
	}
}
