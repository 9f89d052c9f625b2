package netns

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func needsRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: makes and pins namespaces")
	}
}

// pinned makes the namespaces of spec for one test.
func pinned(t testing.TB, spec Spec) (string, Pinned) {
	t.Helper()
	needsRoot(t)
	dir := filepath.Join(t.TempDir(), "ns")
	t.Cleanup(func() {
		if err := Unpin(dir); err != nil {
			t.Errorf("unpin: %v", err)
		}
	})
	p, err := New(dir, spec)
	if err != nil {
		t.Fatalf("new: %v", err)
	}
	return dir, p
}

func inode(t testing.TB, path string) uint64 {
	t.Helper()
	n, err := Inode(path)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func own(t testing.TB, name string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/"+name, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// inside reads a file of /proc as the namespaces of p see it.
func inside(t testing.TB, p Pinned, path string) string {
	t.Helper()
	var out string
	err := onThread(func() error {
		if err := enter(p); err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		out = strings.TrimSpace(string(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestNewGivesNamespacesOfTheirOwn(t *testing.T) {
	spec := Spec{Net: true, IPC: true, UTS: true, Hostname: "web-0", Sysctls: map[string]string{
		"net.ipv4.ip_unprivileged_port_start": "0",
		"net/ipv4/ping_group_range":           "0 1000",
		"kernel.shm_rmid_forced":              "1",
		"fs.mqueue.msg_max":                   "20",
		"net.ipv4.conf.eth0.rp_filter":        "2", // not there yet: not an error
	}}
	before := map[string]uint64{"net": own(t, "net"), "ipc": own(t, "ipc"), "uts": own(t, "uts")}
	_, p := pinned(t, spec)

	if p != Paths(filepath.Dir(p.Net), spec) {
		t.Errorf("made %+v, predicted %+v", p, Paths(filepath.Dir(p.Net), spec))
	}
	for name, path := range map[string]string{"net": p.Net, "ipc": p.IPC, "uts": p.UTS} {
		if inode(t, path) == before[name] {
			t.Errorf("%s is the test's own namespace", name)
		}
		if own(t, name) != before[name] {
			t.Errorf("the test's first thread moved to another %s namespace", name)
		}
		if fi, err := os.Lstat(path); err != nil || !fi.Mode().IsRegular() {
			t.Errorf("%s: %v %v", path, fi, err)
		}
	}
	for path, want := range map[string]string{
		"/proc/sys/kernel/hostname":                     "web-0",
		"/proc/sys/net/ipv4/ip_unprivileged_port_start": "0",
		"/proc/sys/net/ipv4/ping_group_range":           "0\t1000",
		"/proc/sys/kernel/shm_rmid_forced":              "1",
		"/proc/sys/fs/mqueue/msg_max":                   "20",
	} {
		if got := inside(t, p, path); got != want {
			t.Errorf("%s = %q, want %q", path, got, want)
		}
	}
	err := Do(p.Net, func() error {
		lo, err := net.InterfaceByName("lo")
		if err != nil {
			return err
		}
		if lo.Flags&net.FlagUp == 0 {
			return errors.New("lo is down")
		}
		addrs, err := lo.Addrs()
		if err != nil {
			return err
		}
		if !strings.Contains(fmt.Sprint(addrs), "127.0.0.1/8") {
			return fmt.Errorf("lo has %v", addrs)
		}
		ifaces, err := net.Interfaces()
		for _, i := range ifaces {
			if i.Flags&net.FlagUp != 0 && i.Name != "lo" {
				return fmt.Errorf("%s is up in a fresh namespace", i.Name)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestNoGoroutineIsLeftInsideAPodsNetwork(t *testing.T) {
	// The classic leak: a thread that ran in a pod's namespace goes back to the
	// pool, and the daemon's registry client then dials from inside the pod.
	pinned(t, Spec{Net: true})
	want := own(t, "net")
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			var st unix.Stat_t
			if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil || st.Ino != want {
				t.Errorf("a goroutine runs in namespace %d (%v)", st.Ino, err)
			}
		})
	}
	wg.Wait()
}

func TestInterfaceSysctlsAreWrittenLater(t *testing.T) {
	all := map[string]string{"net.ipv4.conf.eth0.rp_filter": "2", "net.ipv4.ip_forward": "1", "net/ipv4/conf/eth0.7/rp_filter": "1"}
	if got := WaitForInterface(all); len(got) != 2 {
		t.Errorf("waits for %v", got)
	}
	_, p := pinned(t, Spec{Net: true})
	err := WriteSysctls(p, map[string]string{"net.ipv4.conf.eth0.rp_filter": "2"})
	if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "eth0") {
		t.Errorf("a key of a missing interface: %v", err)
	}
	if err := WriteSysctls(p, map[string]string{"net.ipv4.conf.lo.rp_filter": "2"}); err != nil {
		t.Fatal(err)
	}
	if got := inside(t, p, "/proc/sys/net/ipv4/conf/lo/rp_filter"); got != "2" {
		t.Errorf("rp_filter = %q", got)
	}
}

func TestASysctlThatWouldChangeTheNodeIsRefused(t *testing.T) {
	for key, spec := range map[string]Spec{
		"kernel.panic":             {Net: true, IPC: true, UTS: true},
		"vm.swappiness":            {Net: true, IPC: true, UTS: true},
		"fs.file-max":              {Net: true, IPC: true, UTS: true},
		"net.ipv4.ip_forward":      {IPC: true, UTS: true}, // host network
		"kernel.shmmax":            {Net: true, UTS: true}, // host IPC
		"kernel.domainname":        {Net: true, IPC: true},
		"net/../kernel/panic":      {Net: true},
		"net//ipv4":                {Net: true},
		"net.ipv4./../../vm/panic": {Net: true},
		"":                         {Net: true},
	} {
		t.Run(key, func(t *testing.T) {
			spec.Sysctls = map[string]string{key: "1"}
			dir := filepath.Join(t.TempDir(), "ns")
			if _, err := New(dir, spec); !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Fatalf("answered %v", err)
			}
			if _, err := os.Lstat(dir); err == nil {
				t.Error("something was made")
			}
		})
	}
}

func TestAFailureLeavesNothing(t *testing.T) {
	needsRoot(t)
	dir := filepath.Join(t.TempDir(), "ns")
	_, err := New(dir, Spec{Net: true, Sysctls: map[string]string{"net.ipv4.no_such_key": "1"}})
	if err == nil {
		t.Fatal("an unknown sysctl was accepted")
	}
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
	// A target that cannot be made, halfway: net is pinned first, ipc fails.
	if err := os.MkdirAll(filepath.Join(dir, "ipc"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := New(dir, Spec{Net: true, IPC: true}); err == nil {
		t.Fatal("a directory in the pin's place was accepted")
	}
	if ok, _ := IsPinned(filepath.Join(dir, "net")); ok {
		t.Error("net is still pinned")
	}
}

func TestUnpin(t *testing.T) {
	dir, p := pinned(t, Spec{Net: true, UTS: true})
	if _, err := New(dir, Spec{Net: true}); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("second New: %v", err)
	}
	// A crash between mount and record may stack pins.
	if err := unix.Mount(p.UTS, p.Net, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	held, err := os.Open(p.Net) // somebody looks at it
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	other := filepath.Join(dir, "shm")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", other, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(other, unix.MNT_DETACH)
	if err := os.WriteFile(filepath.Join(other, "sentinel"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := Unpin(dir); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{p.Net, p.UTS} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
		if _, err := Inode(path); err == nil {
			t.Errorf("%s is still pinned", path)
		}
	}
	if _, err := os.Stat(filepath.Join(other, "sentinel")); err != nil {
		t.Errorf("a mount that is not a pin was touched: %v", err)
	}
	if err := Unpin(filepath.Join(dir, "never", "was")); err != nil {
		t.Errorf("unpin of nothing: %v", err)
	}
}

func TestUnpinLeavesForeignMountsAlone(t *testing.T) {
	needsRoot(t)
	dir := t.TempDir()
	mine := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(mine, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(dir, "net")
	if err := os.WriteFile(target, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(mine, target, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(target, unix.MNT_DETACH)
	if err := Unpin(dir); err == nil {
		t.Error("a foreign mount in the pin's place was no error")
	}
	if data, err := os.ReadFile(target); err != nil || string(data) != "precious" {
		t.Errorf("the foreign mount is gone: %q %v", data, err)
	}
	// A symlink is removed, never followed.
	dir2 := t.TempDir()
	if err := os.Symlink(target, filepath.Join(dir2, "net")); err != nil {
		t.Fatal(err)
	}
	if err := Unpin(dir2); err != nil {
		t.Error(err)
	}
	if data, err := os.ReadFile(target); err != nil || string(data) != "precious" {
		t.Errorf("a symlink was followed: %q %v", data, err)
	}
}

func TestAPlainFileIsNoPin(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "net")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if ok, err := IsPinned(path); ok || err != nil {
		t.Errorf("plain file: %v %v", ok, err)
	}
	if ok, err := IsPinned(path + "-missing"); ok || err != nil {
		t.Errorf("missing file: %v %v", ok, err)
	}
	if err := Do(path, func() error { return nil }); !errors.Is(err, ErrNotPinned) {
		t.Errorf("entering it: %v", err)
	}
}

func TestUserNamespaceOwnsTheOthers(t *testing.T) {
	ids := []oci.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 65536}}
	_, p := pinned(t, Spec{Net: true, IPC: true, UTS: true, Hostname: "mapped", IDMap: &IDMap{UIDs: ids, GIDs: ids},
		Sysctls: map[string]string{"net.ipv4.ip_unprivileged_port_start": "0", "kernel.shm_rmid_forced": "1"}})
	for name, path := range map[string]string{"net": p.Net, "ipc": p.IPC, "uts": p.UTS} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		owner, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_USERNS)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(owner, &st); err != nil {
			t.Fatal(err)
		}
		unix.Close(owner)
		if st.Ino != inode(t, p.User) {
			t.Errorf("%s is owned by user namespace %d, not by the pod's %d", name, st.Ino, inode(t, p.User))
		}
	}
	if got := inside(t, p, "/proc/sys/kernel/hostname"); got != "mapped" {
		t.Errorf("hostname %q", got)
	}
	if got := inside(t, p, "/proc/sys/net/ipv4/ip_unprivileged_port_start"); got != "0" {
		t.Errorf("sysctl %q", got)
	}
	if err := Do(p.Net, func() error {
		lo, err := net.InterfaceByName("lo")
		if err == nil && lo.Flags&net.FlagUp == 0 {
			return errors.New("lo is down")
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	noChildren(t)
}

func TestUserNamespaceAlone(t *testing.T) {
	ids := []oci.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 1}}
	_, p := pinned(t, Spec{IDMap: &IDMap{UIDs: ids, GIDs: ids}})
	if p.Net != "" || p.User == "" || inode(t, p.User) == own(t, "user") {
		t.Errorf("%+v", p)
	}
}

func TestAFailureWithAUserNamespaceReapsItsProcess(t *testing.T) {
	needsRoot(t)
	dir := filepath.Join(t.TempDir(), "ns")
	ids := []oci.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 65536}}
	if _, err := New(dir, Spec{Net: true, IDMap: &IDMap{UIDs: ids, GIDs: ids}, Sysctls: map[string]string{"net.ipv4.nope": "1"}}); err == nil {
		t.Error("an unknown sysctl was accepted")
	}
	overlapping := append(ids, ids...)
	if _, err := New(dir, Spec{Net: true, IDMap: &IDMap{UIDs: overlapping, GIDs: ids}}); err == nil {
		t.Error("an overlapping mapping was accepted")
	}
	if _, err := New(dir, Spec{Net: true, IDMap: &IDMap{}}); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("an empty mapping: %v", err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
	noChildren(t)
}

// noChildren fails if a namespace process was left, running or unreaped.
func noChildren(t *testing.T) {
	t.Helper()
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, task := range tasks {
		if data, err := os.ReadFile(task); err == nil && strings.TrimSpace(string(data)) != "" {
			t.Errorf("children left: %s", data)
		}
	}
}

// Where `/` is shared (systemd), other mount namespaces receive a copy of each
// pin; Unpin must take it back, or the network namespace lives for ever.
func TestPinsUnderASharedMount(t *testing.T) {
	needsRoot(t)
	base := t.TempDir()
	err := onThread(func() error {
		// A world of our own, so that the machine's mounts are not touched.
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			return err
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", base, "tmpfs", 0, "size=1m"); err != nil {
			return err
		}
		if err := unix.Mount("", base, "", unix.MS_SHARED, ""); err != nil {
			return err
		}
		peer := filepath.Join(base, "..", "peer")
		if err := os.MkdirAll(peer, 0o700); err != nil {
			return err
		}
		if err := unix.Mount(base, peer, "", unix.MS_BIND, ""); err != nil {
			return err
		}
		dir := filepath.Join(base, "pod")
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		if err := makeOnThread(dir, Spec{Net: true, UTS: true}); err != nil {
			return err
		}
		if ok, err := IsPinned(filepath.Join(peer, "pod", "net")); !ok || err != nil {
			return fmt.Errorf("the test's world is not shared: %v %w", ok, err)
		}
		if err := Unpin(dir); err != nil {
			return err
		}
		if ok, err := IsPinned(filepath.Join(peer, "pod", "net")); ok || err != nil {
			return fmt.Errorf("a pin is left in the peer: %w", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestManyAtOnce(t *testing.T) {
	needsRoot(t)
	base := t.TempDir()
	var wg sync.WaitGroup
	start := time.Now()
	for i := range 32 {
		wg.Go(func() {
			dir := filepath.Join(base, fmt.Sprint(i))
			defer func() {
				if err := Unpin(dir); err != nil {
					t.Error(err)
				}
			}()
			if _, err := New(dir, Spec{Net: true, IPC: true, UTS: true, Hostname: fmt.Sprint("h", i)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	t.Logf("32 pods' namespaces, made and removed, in %v", time.Since(start))
}

func BenchmarkNew(b *testing.B) { benchmark(b, nil) }

func BenchmarkNewWithUserNamespace(b *testing.B) {
	ids := []oci.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 65536}}
	benchmark(b, &IDMap{UIDs: ids, GIDs: ids})
}

func benchmark(b *testing.B, ids *IDMap) {
	needsRoot(b)
	dir := filepath.Join(b.TempDir(), "ns")
	var unpinned time.Duration
	for b.Loop() {
		if _, err := New(dir, Spec{Net: true, IPC: true, UTS: true, Hostname: "bench", IDMap: ids,
			Sysctls: map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"}}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		start := time.Now()
		if err := Unpin(dir); err != nil {
			b.Fatal(err)
		}
		unpinned += time.Since(start)
		b.StartTimer()
	}
	b.ReportMetric(float64(unpinned.Microseconds())/float64(b.N), "unpin-µs/op")
}

func TestThreadsAreThrownAway(t *testing.T) {
	needsRoot(t)
	threads := func() int {
		entries, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	dir := filepath.Join(t.TempDir(), "ns")
	cycle := func() {
		if _, err := New(dir, Spec{Net: true}); err != nil {
			t.Fatal(err)
		}
		if err := Unpin(dir); err != nil {
			t.Fatal(err)
		}
	}
	cycle()
	before := threads()
	for range 50 {
		cycle()
	}
	deadline := time.Now().Add(5 * time.Second)
	for threads() > before+3 {
		if time.Now().After(deadline) {
			t.Fatalf("%d threads, %d before", threads(), before)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestTemporary(t *testing.T) {
	needsRoot(t)
	var path string
	err := Temporary(loopbackUp, func(p string) error {
		path = p
		var st unix.Stat_t
		if err := unix.Stat(p, &st); err != nil {
			return err
		}
		if st.Ino == own(t, "net") {
			return errors.New("it is the test's own namespace")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	boom := errors.New("boom")
	if err := Temporary(func() error { return boom }, func(string) error { t.Error("used"); return nil }); !errors.Is(err, boom) {
		t.Error(err)
	}
	if err := Temporary(loopbackUp, func(string) error { return boom }); !errors.Is(err, boom) {
		t.Error(err)
	}
	deadline := time.Now().Add(5 * time.Second)
	for {
		if _, err := os.Stat(path); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the namespace outlives its call")
		}
		time.Sleep(time.Millisecond)
	}
}

func FuzzSysctlPath(f *testing.F) {
	f.Add("net.ipv4.conf.eth0/1.forwarding")
	f.Add("net/ipv4/../../kernel/panic")
	f.Add("kernel.shmmax")
	f.Fuzz(func(t *testing.T, key string) {
		path, err := sysctlPath(key, "1", true, true, true)
		if err != nil {
			return
		}
		if path != filepath.Clean(path) || !strings.HasPrefix(path, "/proc/sys/net/") &&
			!strings.HasPrefix(path, "/proc/sys/kernel/") && !strings.HasPrefix(path, "/proc/sys/fs/mqueue/") {
			t.Fatalf("%q became %s", key, path)
		}
	})
}
