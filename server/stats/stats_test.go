package stats

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"go.uber.org/goleak"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/container/cgroup"
	"github.com/crid-project/crid/server/internal/worldtest"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake answers made-up numbers; a cgroup in hang blocks until it is closed.
type fake struct {
	mu     sync.Mutex
	cgroup func(path string) (*cgroup.Stats, error)
	hang   map[string]chan struct{}
	layers int
	reads  map[string]int
}

func (f *fake) Cgroup(_ context.Context, path string) (*cgroup.Stats, error) {
	f.mu.Lock()
	if f.reads == nil {
		f.reads = map[string]int{}
	}
	f.reads[path]++
	wait, get := f.hang[path], f.cgroup
	f.mu.Unlock()
	if wait != nil {
		<-wait
	}
	if get != nil {
		return get(path)
	}
	return sample(), nil
}

func (f *fake) Network(_ context.Context, ns string) ([]Interface, error) {
	return []Interface{{Name: "lo", Loopback: true, RxBytes: 9}, {Name: "net1", RxBytes: 1}, {Name: "eth0", RxBytes: 2, TxErrors: 3}}, nil
}

func (f *fake) Layer(context.Context, string) (Layer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.layers++
	return Layer{Bytes: 4096, Inodes: 3}, nil
}

func (f *fake) Disk(context.Context) (Disk, error) {
	return Disk{Mountpoint: "/var/lib/crid", Device: "/dev/sda1", Bytes: 1 << 30, Inodes: 100, FreeNode: 60}, nil
}
func (f *fake) Handles(context.Context, string) (files, sockets uint64, err error) { return 9, 4, nil }
func (f *fake) OpenFiles(int) (uint64, error)                                      { return 1024, nil }

func sample() *cgroup.Stats {
	psi := &cgroup.Pressure{Some: cgroup.Stall{Avg10: 1, Avg60: 2, Avg300: 3, TotalNanoseconds: 7e9}, Full: cgroup.Stall{TotalNanoseconds: 5e9}}
	return &cgroup.Stats{
		CPU:     &cgroup.CPU{At: time.Now().UnixNano(), Usage: 10e9, User: 6e9, System: 4e9, Periods: 11, Throttled: 5, ThrottledTime: 3e9, Quota: 50000, Period: 100000, Shares: 512, Pressure: psi},
		Memory:  &cgroup.Memory{At: 1, Usage: 1000, WorkingSet: 900, RSS: 500, Cache: 300, Limit: cgroup.Unlimited, Available: cgroup.Unlimited, MaxUsage: 2000, PageFaults: 21, MajorPageFaults: 2, OOMKills: 1, Pressure: psi},
		Swap:    &cgroup.Swap{At: 1, Usage: 10, Limit: 100, Available: 90},
		Pids:    &cgroup.Pids{At: 1, Processes: 3, Threads: 8, Limit: cgroup.Unlimited},
		IO:      &cgroup.IO{At: 1, Devices: []cgroup.DeviceIO{{Major: 999, Minor: 1, ReadBytes: 1, WriteBytes: 2, ReadOps: 3, WriteOps: 4}}, Pressure: psi},
		Hugetlb: []cgroup.Hugetlb{{Size: "2MB", Usage: 1, Max: 2, FailCount: 3}},
	}
}

func setup(t *testing.T) (*store.Ledger, *fake, *Stats) {
	l, f := worldtest.Ledger(t), &fake{hang: map[string]chan struct{}{}}
	return l, f, New(Deps{Ledger: l, Source: f, Names: worldtest.Names, Deadline: 100 * time.Millisecond})
}

func TestEveryPartOfAContainersStatsIsTold(t *testing.T) {
	l, _, s := setup(t)
	p := worldtest.Pod(t, l, "p", nil)
	c := worldtest.Running(t, l, p.ID, "c", map[string]string{"app": "a"})
	r, err := s.ContainerStats(t.Context(), &cri.ContainerStatsRequest{ContainerId: c.ID[:12]})
	if err != nil {
		t.Fatal(err)
	}
	st := r.Stats
	if st.Attributes.Id != c.ID || st.Attributes.Labels["app"] != "a" || st.Cpu.UsageCoreNanoSeconds.Value != 10e9 || st.Cpu.UsageNanoCores != nil || st.Cpu.Timestamp == 0 {
		t.Errorf("cpu: %v", st.Cpu)
	}
	if st.Cpu.Psi.Full.Total != 5e9 || st.Cpu.Psi.Some.Avg300 != 3 || st.Memory.Psi == nil || st.Io.Psi == nil {
		t.Errorf("psi: %v %v %v", st.Cpu.Psi, st.Memory.Psi, st.Io.Psi)
	}
	if st.Memory.WorkingSetBytes.Value != 900 || st.Memory.AvailableBytes != nil || st.Memory.MajorPageFaults.Value != 2 {
		t.Errorf("memory: %v", st.Memory)
	}
	if st.Swap.SwapUsageBytes.Value != 10 || st.Swap.SwapAvailableBytes.Value != 90 {
		t.Errorf("swap: %v", st.Swap)
	}
	if w := st.WritableLayer; w.FsId.Mountpoint != "/var/lib/crid" || w.UsedBytes.Value != 4096 || w.InodesUsed.Value != 3 || w.Timestamp == 0 {
		t.Errorf("writable layer: %v", w)
	}
}

// A kubelet leaves Interfaces out of its summary if there is none beside the default one, and clients take that for a pod without a network; so
// the loopback is among them. It is never the default one: a pod on the loopback alone has no network.
func TestTheInterfacesOfAPod(t *testing.T) {
	lo, eth, other := Interface{Name: "lo", Loopback: true}, Interface{Name: "eth0"}, Interface{Name: "net7"}
	for _, c := range []struct {
		all    []Interface
		first  string
		others int
	}{{[]Interface{lo, eth}, "eth0", 1}, {[]Interface{lo, other}, "net7", 1}, {[]Interface{other, eth, lo}, "eth0", 2}, {[]Interface{lo}, "", 0}, {nil, "", 0}} {
		u := networkUsage(c.all)
		if u.GetDefaultInterface().GetName() != c.first || len(u.GetInterfaces()) != c.others {
			t.Errorf("of %v: %v", c.all, u)
		}
	}
}

func TestAPodsStats(t *testing.T) {
	l, _, s := setup(t)
	p := worldtest.Pod(t, l, "p", nil)
	worldtest.Running(t, l, p.ID, "c", nil)
	worldtest.Container(t, l, p.ID, "not-running", nil)
	r, err := s.PodSandboxStats(t.Context(), &cri.PodSandboxStatsRequest{PodSandboxId: p.ID})
	if err != nil {
		t.Fatal(err)
	}
	x := r.Stats.Linux
	if x.Network.DefaultInterface.Name != "eth0" || x.Network.DefaultInterface.TxErrors.Value != 3 || len(x.Network.Interfaces) != 2 || x.Network.Timestamp == 0 {
		t.Errorf("network: %v", x.Network)
	}
	if x.Process.ProcessCount.Value != 3 || x.Io == nil || x.Cpu == nil || x.Memory == nil || len(x.Containers) != 1 {
		t.Errorf("got %v", x)
	}
	list, err := s.ListPodSandboxStats(t.Context(), &cri.ListPodSandboxStatsRequest{})
	if err != nil || len(list.Stats) != 1 || len(list.Stats[0].Linux.Containers) != 1 {
		t.Errorf("list: %v, %v", list, err)
	}
}

// Stats of 60 containers hung for ever because of one on a dead disk.
func TestAStuckContainerCostsOnlyItself(t *testing.T) {
	l, f, s := setup(t)
	p := worldtest.Pod(t, l, "p", nil)
	for i := range 40 {
		worldtest.Running(t, l, p.ID, fmt.Sprint("c", i), nil)
	}
	release := make(chan struct{})
	f.mu.Lock()
	f.hang["/pods/x/c7"] = release
	f.mu.Unlock()
	for round := range 3 {
		began := time.Now()
		r, err := s.ListContainerStats(t.Context(), &cri.ListContainerStatsRequest{})
		if err != nil || len(r.Stats) != 39 {
			t.Fatalf("round %d: %d stats, %v", round, len(r.GetStats()), err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("round %d took %v", round, took)
		}
	}
	f.mu.Lock()
	if f.reads["/pods/x/c7"] != 1 {
		t.Errorf("the stuck one was read %d times", f.reads["/pods/x/c7"])
	}
	delete(f.hang, "/pods/x/c7")
	f.mu.Unlock()
	if s.Stuck() != 1 {
		t.Errorf("%d are stuck", s.Stuck())
	}
	close(release)
	for s.Stuck() > 0 {
		time.Sleep(time.Millisecond)
	}
	if r, err := s.ListContainerStats(t.Context(), &cri.ListContainerStatsRequest{}); err != nil || len(r.Stats) != 40 {
		t.Errorf("afterwards: %d stats, %v", len(r.GetStats()), err)
	}
}

func TestACgroupThatIsGoneIsNoError(t *testing.T) {
	l, f, s := setup(t)
	f.cgroup = func(string) (*cgroup.Stats, error) { return nil, errdefs.ErrNotFound }
	p := worldtest.Pod(t, l, "p", nil)
	c := worldtest.Running(t, l, p.ID, "c", nil)
	r, err := s.ContainerStats(t.Context(), &cri.ContainerStatsRequest{ContainerId: c.ID})
	if err != nil || r.Stats.Cpu != nil || r.Stats.Attributes == nil {
		t.Errorf("%v, %v", r, err)
	}
	e := worldtest.Exited(t, l, p.ID, "e", lifecycle.SeenExited{Source: lifecycle.Kernel})
	if r, err := s.ContainerStats(t.Context(), &cri.ContainerStatsRequest{ContainerId: e.ID}); err != nil || r.Stats.Cpu != nil {
		t.Errorf("exited: %v, %v", r, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.ListContainerStats(ctx, &cri.ListContainerStatsRequest{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that left: %v", err)
	}
}

func TestTheRateIsThatSinceTheLastCall(t *testing.T) {
	m := memory{kept: map[string]*past{}}
	const sec = int64(time.Second)
	steps := []struct {
		name string
		at   int64
		cpu  uint64
		want uint64
		ok   bool
	}{
		{"first", 10 * sec, 5e9, 0, false},
		{"too soon", 10*sec + 1, 6e9, 0, false},
		{"half a core over two seconds", 12 * sec, 6e9, 5e8, true},
		{"too soon keeps the last", 12*sec + sec/10, 9e9, 5e8, true},
		{"four cores", 13 * sec, 10e9, 4e9, true},
		{"the clock goes back", 5 * sec, 11e9, 4e9, true},
		{"and on from there", 6 * sec, 12e9, 1e9, true},
		{"the counter begins anew", 7 * sec, 1, 1e9, false},
		{"idle", 9 * sec, 1, 0, true},
	}
	for _, s := range steps {
		if got, ok := m.Rate("a", s.at, s.cpu); ok != s.ok || ok && got != s.want {
			t.Errorf("%s: %d %t, want %d %t", s.name, got, ok, s.want, s.ok)
		}
	}
	m.Rate("b", sec, 1)
	m.Forget("a")
	if m.size() != 1 {
		t.Errorf("%d remembered", m.size())
	}
	m.Keep(func(yield func(string)) { yield("c") })
	if m.size() != 0 {
		t.Errorf("%d remembered of what is no more", m.size())
	}
}

func TestNothingIsRememberedOfWhatIsNoMore(t *testing.T) {
	l, _, s := setup(t)
	p := worldtest.Pod(t, l, "p", nil)
	c := worldtest.Running(t, l, p.ID, "c", nil)
	if _, err := s.ListContainerStats(t.Context(), &cri.ListContainerStatsRequest{}); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		s.past.Rate(fmt.Sprint("gone", i), 1, 1)
	}
	if _, err := s.ListContainerStats(t.Context(), &cri.ListContainerStatsRequest{}); err != nil {
		t.Fatal(err)
	}
	if s.past.size() != 1 || s.past.kept[c.ID] == nil {
		t.Errorf("%d remembered", s.past.size())
	}
}

// Measuring a layer walks a file tree; a kubelet asks every ten seconds.
func TestALayerIsNotMeasuredAtEveryCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		s := New(Deps{Source: f})
		for range 5 {
			if _, _, ok := s.measure(t.Context(), "a"); !ok {
				t.Fatal("not measured")
			}
		}
		if f.layers != 1 {
			t.Errorf("measured %d times", f.layers)
		}
		time.Sleep(layerAge + time.Second)
		s.measure(t.Context(), "a")
		if f.layers != 2 {
			t.Errorf("measured %d times after it was old", f.layers)
		}
		s.past.SetLayer("a", Layer{}, time.Now(), 5*time.Second)
		time.Sleep(time.Minute)
		if s.measure(t.Context(), "a"); f.layers != 2 {
			t.Error("a measure that took long was made again at once")
		}
	})
}

// A kubelet ignores a series whose labels do not match its descriptor, and one
// that has none.
func TestEverySeriesMatchesItsDescriptor(t *testing.T) {
	l, _, s := setup(t)
	p := worldtest.Pod(t, l, "p", nil)
	c := worldtest.Running(t, l, p.ID, "c", nil)
	d, err := s.ListMetricDescriptors(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]*cri.MetricDescriptor{}
	for _, m := range d.Descriptors {
		if known[m.Name] != nil || m.Help == "" || !slices.Equal(m.LabelKeys[:6], []string{"container", "id", "image", "name", "namespace", "pod"}) {
			t.Errorf("descriptor %v", m)
		}
		known[m.Name] = m
	}
	r, err := s.ListPodSandboxMetrics(t.Context(), nil)
	if err != nil || len(r.PodMetrics) != 1 || len(r.PodMetrics[0].ContainerMetrics) != 1 {
		t.Fatalf("%v, %v", r, err)
	}
	values := map[string]uint64{}
	check := func(ms []*cri.Metric, who string) {
		for _, m := range ms {
			k := known[m.Name]
			if k == nil || len(k.LabelKeys) != len(m.LabelValues) || m.Timestamp != 0 {
				t.Errorf("%s: %v does not match %v", who, m, k)
				continue
			}
			if strings.HasSuffix(m.Name, "_total") != (m.MetricType == cri.MetricType_COUNTER) && !strings.HasSuffix(m.Name, "failcnt") && m.Name != "container_fs_inodes_total" {
				t.Errorf("%s is a %v", m.Name, m.MetricType)
			}
			values[who+m.Name+fmt.Sprint(m.LabelValues[6:])] = m.Value.Value
		}
	}
	check(r.PodMetrics[0].Metrics, "pod ")
	check(r.PodMetrics[0].ContainerMetrics[0].Metrics, "")
	base := r.PodMetrics[0].ContainerMetrics[0].Metrics[0].LabelValues
	if want := []string{"c", c.Cgroup, "docker.io/library/busybox:latest", c.ID, "ns", "p"}; !slices.Equal(base, want) {
		t.Errorf("labels %v, want %v", base, want)
	}
	for name, want := range map[string]uint64{
		"container_cpu_usage_seconds_total[total]": 10, "container_cpu_cfs_throttled_seconds_total[]": 3, "container_spec_cpu_quota[]": 50000,
		"container_memory_failures_total[pgmajfault container]": 2, "container_spec_memory_limit_bytes[]": 0, "container_spec_memory_swap_limit_bytes[]": 100,
		"container_hugetlb_failcnt[2MB]": 3, "container_pressure_io_waiting_seconds_total[]": 7, "container_pressure_cpu_stalled_seconds_total[]": 5,
		"container_fs_usage_bytes[/dev/sda1]": 4096, "container_fs_inodes_free[/dev/sda1]": 60, "container_blkio_device_usage_total[999:1 999 1 Write]": 2,
		"container_threads_max[]": 0, "container_sockets[]": 4, "container_ulimits_soft[max_open_files]": 1024, "container_oom_events_total[]": 1,
		"container_start_time_seconds[]": worldtest.Epoch + 2, "container_memory_total_inactive_file_bytes[]": 100, "container_memory_total_active_file_bytes[]": 200,
		"pod container_network_receive_bytes_total[eth0]": 2, "pod container_cpu_usage_seconds_total[total]": 10,
	} {
		if got, ok := values[name]; !ok || got != want {
			t.Errorf("%s is %d %t, want %d", name, got, ok, want)
		}
	}
	for name := range known {
		if !slices.ContainsFunc(slices.Collect(func(yield func(string) bool) {
			for k := range values {
				if !yield(k) {
					return
				}
			}
		}), func(k string) bool { return strings.Contains(k, name+"[") }) {
			t.Errorf("%s is described and never sent", name)
		}
	}
}

func TestTheRealKernelAnswers(t *testing.T) {
	k := &Kernel{Layers: t.TempDir(), Measure: func(string) (uint64, uint64, error) { return 1, 2, nil }}
	if d, err := k.Disk(t.Context()); err != nil || d.Bytes == 0 || d.Device == "" || d.Mountpoint != k.Layers {
		t.Errorf("disk: %+v, %v", d, err)
	}
	if n, err := k.OpenFiles(os.Getpid()); err != nil || n == 0 {
		t.Errorf("open files: %d, %v", n, err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if files, sockets := openFiles(os.Getpid(), 1<<20); files < 4 || sockets < 1 {
		t.Errorf("%d files, %d sockets", files, sockets)
	}
	if _, err := k.Cgroup(t.Context(), "/crid-test-that-is-not-there"); !errdefs.IsNotFound(err) {
		t.Errorf("a cgroup that is not there: %v", err)
	}
	if os.Getuid() != 0 {
		t.Skip("needs root: entering a network namespace")
	}
	if _, err := k.Network(t.Context(), "/proc/self/ns/net"); err != nil {
		t.Errorf("network: %v", err)
	}
}

func BenchmarkListContainerStats(b *testing.B) {
	l := worldtest.Ledger(b)
	p := worldtest.Pod(b, l, "p", nil)
	for i := range 60 {
		worldtest.Running(b, l, p.ID, fmt.Sprint("c", i), nil)
	}
	s := New(Deps{Ledger: l, Source: &fake{}, Names: worldtest.Names})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.ListContainerStats(b.Context(), &cri.ListContainerStatsRequest{}); err != nil {
			b.Fatal(err)
		}
	}
}
