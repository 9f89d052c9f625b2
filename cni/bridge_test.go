package cni

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/cni/netns"
)

// bridgeNode gives the test a network namespace that plays the node, and the
// standard plugins. The goroutine's thread is in it for the test's time and is
// then thrown away, so plugins started from it never see the machine's network.
func bridgeNode(t testing.TB, subnet string) (n *Networks, dir string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: runs real CNI plugins in a network namespace")
	}
	bin := os.Getenv("CNI_BIN")
	if bin == "" {
		bin, _ = filepath.Abs("../bin/cni") // where `make parts` puts them
	}
	if _, err := os.Stat(filepath.Join(bin, "bridge")); err != nil {
		t.Skipf("needs the standard CNI plugins (make parts, or set CNI_BIN): %v", err)
	}
	dir = t.TempDir()
	node := filepath.Join(dir, "node")
	pins, err := netns.New(node, netns.Spec{Net: true, Sysctls: map[string]string{"net.ipv4.ip_forward": "1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netns.Unpin(node); err != nil {
			t.Error(err)
		}
	})
	f, err := os.Open(pins.Net)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	runtime.LockOSThread() // never unlocked
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"t","plugins":[
	  {"type":"bridge","bridge":"t0","isGateway":true,"ipMasq":true,"hairpinMode":true,
	   "ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":%q}]],"routes":[{"dst":"0.0.0.0/0"}]}},
	  {"type":"portmap","capabilities":{"portMappings":true},"snat":true}]}`, dir+"/leases", subnet)
	if err := os.MkdirAll(dir+"/net.d", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/net.d/10-t.conflist", []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	n, err = New(Config{ConfDir: dir + "/net.d", BinDirs: []string{bin}, CacheDir: dir + "/cache", Owned: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return n, dir
}

func bridgePod(t testing.TB, dir, id string) (Attachment, func()) {
	t.Helper()
	pins, err := netns.New(filepath.Join(dir, "pods", id), netns.Spec{Net: true})
	if err != nil {
		t.Fatal(err)
	}
	a := pod(id)
	a.NetNS = pins.Net
	return a, func() {
		if err := netns.Unpin(filepath.Join(dir, "pods", id)); err != nil {
			t.Error(err)
		}
	}
}

func leases(t testing.TB, dir string) (out []string) {
	t.Helper()
	found, err := filepath.Glob(dir + "/leases/t/10.*")
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func rules(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("iptables-save").CombinedOutput()
	if err != nil {
		t.Skipf("needs iptables: %v", err)
	}
	var chains []string
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "CNI-") {
			chains = append(chains, line)
		}
	}
	return strings.Join(chains, "")
}

func TestRealBridge(t *testing.T) {
	n, dir := bridgeNode(t, "10.77.0.0/24")
	a, unpin := bridgePod(t, dir, "p1")
	defer unpin()
	a.Ports = []Port{{Protocol: "tcp", ContainerPort: 80, HostPort: 18080}}
	before := rules(t)
	res, err := n.Add(t.Context(), a, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(res.IPs) != 1 || len(leases(t, dir)) != 1 || rules(t) == before {
		t.Errorf("%+v, leases %v", res, leases(t, dir))
	}
	err = netns.Do(a.NetNS, func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err == nil && eth0.HardwareAddr.String() != res.Interfaces[0].MAC {
			return fmt.Errorf("mac %s, result says %s", eth0.HardwareAddr, res.Interfaces[0].MAC)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if err := n.Check(t.Context(), res.Saved); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := n.Del(t.Context(), a, res.Saved); err != nil {
			t.Fatal(err)
		}
	}
	if got := leases(t, dir); len(got) != 0 {
		t.Errorf("leases left: %v", got)
	}
	if after := rules(t); strings.Count(after, "CNI-DN-") > 0 || strings.Contains(after, "p1") {
		t.Errorf("rules left:\n%s", after)
	}
}

// F82: the sixth pod of a /29 (five addresses beside the gateway).
func TestRealExhaustion(t *testing.T) {
	n, dir := bridgeNode(t, "10.77.0.0/29")
	type attached struct {
		a Attachment
		r *Result
	}
	var pods []attached
	for i := range 5 {
		a, unpin := bridgePod(t, dir, fmt.Sprint("p", i))
		defer unpin()
		r, err := n.Add(t.Context(), a, nil)
		if err != nil {
			t.Fatal(err)
		}
		pods = append(pods, attached{a, r})
	}
	sixth, unpin := bridgePod(t, dir, "p6")
	defer unpin()
	_, err := n.Add(t.Context(), sixth, nil)
	if e := (*PluginError)(nil); !errors.As(err, &e) || !strings.Contains(err.Error(), "no IP addresses available") {
		t.Errorf("%v", err)
	}
	if err := n.Del(t.Context(), pods[2].a, pods[2].r.Saved); err != nil {
		t.Fatal(err)
	}
	r, err := n.Add(t.Context(), sixth, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Del(t.Context(), sixth, r.Saved); err != nil {
		t.Error(err)
	}
	if got := leases(t, dir); len(got) != 4 {
		t.Errorf("leases: %v", got)
	}
	next, err := New(n.cfg) // the daemon's next run, which lost all records
	if err != nil {
		t.Fatal(err)
	}
	if err := next.GC(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if got := leases(t, dir); len(got) != 0 {
		t.Errorf("leases after GC: %v", got)
	}
}

// A pod whose record is lost. (The standard plugins of 1.9 accept CNI 1.1's GC
// and do nothing: it is the kept copy that frees the lease.)
func TestRealGCAndStatus(t *testing.T) {
	n, dir := bridgeNode(t, "10.77.0.0/24")
	file := filepath.Join(dir, "net.d", "10-t.conflist")
	conf, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, bytes.Replace(conf, []byte(`"1.0.0"`), []byte(`"1.1.0"`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	n.Reload()
	if err := n.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ok, reason := n.Ready(); !ok {
		t.Fatal(reason)
	}
	kept, unpinKept := bridgePod(t, dir, "kept")
	defer unpinKept()
	lost, unpinLost := bridgePod(t, dir, "lost")
	defer unpinLost()
	for _, a := range []Attachment{kept, lost} {
		if _, err := n.Add(t.Context(), a, nil); err != nil {
			t.Fatal(err)
		}
	}
	next, err := New(n.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := next.GC(t.Context(), []Attachment{kept}); err != nil {
		t.Fatal(err)
	}
	if got := leases(t, dir); len(got) != 1 {
		t.Errorf("leases: %v", got)
	}
}

// F84: the daemon is killed anywhere in an ADD; the next one has only the intent.
func TestRealCrashInTheMiddleOfAdd(t *testing.T) {
	n, dir := bridgeNode(t, "10.77.0.0/24")
	before := rules(t)
	for i := range 12 {
		a, unpin := bridgePod(t, dir, fmt.Sprint("p", i))
		intent, err := n.Prepare(a)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "intent")
		if err := os.WriteFile(file, intent, 0o600); err != nil {
			t.Fatal(err)
		}
		daemon := exec.Command("/proc/self/exe", "add-from-intent", dir, file)
		daemon.Env = append(os.Environ(), "CNI_BIN="+n.cfg.BinDirs[0])
		out, err := daemon.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := daemon.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil { // it begins
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i) * 4 * time.Millisecond)
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
		time.Sleep(10 * time.Millisecond) // no daemon starts faster
		if err := n.Del(t.Context(), a, intent); err != nil {
			t.Errorf("killed after %d ms: %v", i*4, err)
		}
		unpin()
		if got := leases(t, dir); len(got) != 0 {
			t.Fatalf("killed after %d ms: leases left: %v", i*4, got)
		}
	}
	if after := rules(t); strings.Count(after, "\n") != strings.Count(before, "\n") {
		t.Errorf("rules left:\n%s", after)
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Name, "veth") {
			t.Errorf("interface left: %s", l.Name)
		}
	}
}

// addFromIntent is the daemon that is killed.
func addFromIntent(dir, file string) {
	intent, err := os.ReadFile(file)
	if err != nil {
		panic(err)
	}
	n, err := New(Config{ConfDir: dir + "/net.d", BinDirs: []string{os.Getenv("CNI_BIN")}, CacheDir: dir + "/cache", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	fmt.Print("+")
	_, _ = n.Add(context.Background(), Attachment{}, intent)
	time.Sleep(time.Minute)
}

// A namespace unmounted by hand, then StopPodSandbox.
func TestRealNamespaceGoneBeforeDel(t *testing.T) {
	n, dir := bridgeNode(t, "10.77.0.0/24")
	a, unpin := bridgePod(t, dir, "p1")
	before := rules(t)
	res, err := n.Add(t.Context(), a, nil)
	if err != nil {
		t.Fatal(err)
	}
	unpin()
	if err := n.Del(t.Context(), a, res.Saved); err != nil {
		t.Fatal(err)
	}
	if got := leases(t, dir); len(got) != 0 {
		t.Errorf("leases left: %v", got)
	}
	if after := rules(t); after != before {
		t.Errorf("rules left:\n%s", after)
	}
}

// Somebody has deleted the pod's interface: its masquerading rules go all the same.
func TestRealInterfaceGoneBeforeDel(t *testing.T) {
	n, dir := bridgeNode(t, "10.77.0.0/24")
	a, unpin := bridgePod(t, dir, "p1")
	defer unpin()
	before := rules(t)
	res, err := n.Add(t.Context(), a, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := netns.Do(a.NetNS, func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // and again, as a retry does
		if err := n.Del(t.Context(), a, res.Saved); err != nil {
			t.Fatal(err)
		}
	}
	if got := leases(t, dir); len(got) != 0 {
		t.Errorf("leases left: %v", got)
	}
	if after := rules(t); after != before {
		t.Errorf("rules left:\n%s", after)
	}
}

func BenchmarkAdd(b *testing.B) {
	n, dir := bridgeNode(b, "10.77.0.0/16")
	a, unpin := bridgePod(b, dir, "p1")
	defer unpin()
	var del time.Duration
	for b.Loop() {
		res, err := n.Add(b.Context(), a, nil)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		start := time.Now()
		if err := n.Del(b.Context(), a, res.Saved); err != nil {
			b.Fatal(err)
		}
		del += time.Since(start)
		b.StartTimer()
	}
	b.ReportMetric(float64(del.Microseconds())/float64(b.N), "del-µs/op")
}
