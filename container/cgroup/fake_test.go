package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	oci "github.com/opencontainers/runtime-spec/specs-go"
)

// fakeV2 is a directory that looks like a cgroup2 mount with one cgroup in it.
func fakeV2(t *testing.T, files map[string]string) (*Cgroup, string) {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, "pod", "ctr")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return load(&tree{v2: true, unified: root}, "/pod/ctr"), dir
}

func TestStatsV2(t *testing.T) {
	c, _ := fakeV2(t, map[string]string{
		"cpu.stat": "usage_usec 1000\nuser_usec 600\nsystem_usec 400\nnr_periods 10\nnr_throttled 3\nthrottled_usec 77\n",
		"cpu.max":  "50000 100000\n", "cpu.weight": "100\n",
		"cpu.pressure":   "some avg10=1.50 avg60=0.10 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.25 total=7\n",
		"memory.current": "1000\n", "memory.max": "5000\n", "memory.peak": "2000\n",
		"memory.stat":         "anon 300\nfile 600\ninactive_file 400\npgfault 9\npgmajfault 2\n",
		"memory.events":       "low 0\nhigh 0\nmax 4\noom 1\noom_kill 1\n",
		"memory.swap.current": "10\n", "memory.swap.max": "max\n",
		"pids.current": "5\n", "pids.max": "max\n", "cgroup.procs": "11\n12\n",
		"io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n8:16 rbytes=7\n",
	})
	s, err := c.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cpu := *s.CPU
	if cpu.Usage != 1e6 || cpu.User != 6e5 || cpu.System != 4e5 || cpu.Periods != 10 || cpu.Throttled != 3 || cpu.ThrottledTime != 77000 ||
		cpu.Quota != 50000 || cpu.Period != 100000 || WeightOf(cpu.Shares) != 100 || cpu.At == 0 {
		t.Errorf("cpu %+v", cpu)
	}
	if p := cpu.Pressure; p == nil || p.Some.Avg10 != 1.5 || p.Some.TotalNanoseconds != 12000 || p.Full.Avg300 != 0.25 {
		t.Errorf("cpu pressure %+v", p)
	}
	m := *s.Memory
	if m.Usage != 1000 || m.WorkingSet != 600 || m.RSS != 300 || m.Cache != 600 || m.Limit != 5000 || m.Available != 4400 ||
		m.MaxUsage != 2000 || m.PageFaults != 9 || m.MajorPageFaults != 2 || m.FailCount != 4 || m.OOMKills != 1 || m.Pressure != nil {
		t.Errorf("memory %+v", m)
	}
	if w := *s.Swap; w.Usage != 10 || w.Limit != Unlimited || w.Available != Unlimited {
		t.Errorf("swap %+v", w)
	}
	if p := *s.Pids; p.Threads != 5 || p.Processes != 2 || p.Limit != Unlimited {
		t.Errorf("pids %+v", p)
	}
	if len(s.IO.Devices) != 2 || s.IO.Devices[0] != (DeviceIO{Major: 8, ReadBytes: 1, WriteBytes: 2, ReadOps: 3, WriteOps: 4, DiscardBytes: 5, DiscardOps: 6}) {
		t.Errorf("io %+v", s.IO)
	}
	if n, err := c.OOMKills(); err != nil || n != 1 {
		t.Errorf("OOMKills = %d, %v", n, err)
	}
}

func TestWorkingSetNeverGoesBelowZero(t *testing.T) {
	c, _ := fakeV2(t, map[string]string{"memory.current": "10\n", "memory.max": "max\n", "memory.stat": "inactive_file 4096\n"})
	s, err := c.Stats(t.Context())
	if err != nil || s.Memory.WorkingSet != 0 || s.Memory.Available != Unlimited {
		t.Errorf("%+v, %v", s.Memory, err)
	}
}

func TestMissingControllersAreNilPartsNotErrors(t *testing.T) {
	c, _ := fakeV2(t, map[string]string{"cpu.stat": "usage_usec 1\n"})
	s, err := c.Stats(t.Context())
	if err != nil || s.CPU == nil || s.Memory != nil || s.Swap != nil || s.Pids != nil || s.IO != nil {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestStatsOfADeletedCgroupAreNotFound(t *testing.T) {
	c := load(&tree{v2: true, unified: t.TempDir()}, "/nobody")
	if _, err := c.Stats(t.Context()); !errdefs.IsNotFound(err) {
		t.Errorf("got %v, want not found", err)
	}
	if ok, err := c.Populated(); ok || err != nil {
		t.Errorf("Populated = %v, %v", ok, err)
	}
	if c.Exists() {
		t.Error("it exists")
	}
	if _, err := c.OOMKills(); !errdefs.IsNotFound(err) {
		t.Errorf("OOMKills: %v, want not found", err)
	}
	if err := c.Kill(); err != nil {
		t.Errorf("Kill of nothing: %v", err)
	}
}

func TestSetV2(t *testing.T) {
	blank := map[string]string{"cpu.weight": "100", "cpu.max": "max 100000", "memory.max": "max", "memory.swap.max": "max", "pids.max": "max", "memory.low": "0", "memory.high": "max"}
	for _, tc := range []struct {
		name string
		r    oci.LinuxResources
		want map[string]string
		err  error
	}{
		{"shares become weight", oci.LinuxResources{CPU: &oci.LinuxCPU{Shares: ptr(uint64(1024))}}, map[string]string{"cpu.weight": "100"}, nil},
		{"quota keeps the period", oci.LinuxResources{CPU: &oci.LinuxCPU{Quota: ptr(int64(5000))}}, map[string]string{"cpu.max": "5000 100000"}, nil},
		{"no quota", oci.LinuxResources{CPU: &oci.LinuxCPU{Quota: ptr(int64(-1)), Period: ptr(uint64(5000))}}, map[string]string{"cpu.max": "max 5000"}, nil},
		{"swap counts memory in", oci.LinuxResources{Memory: &oci.LinuxMemory{Limit: ptr(int64(100)), Swap: ptr(int64(150))}}, map[string]string{"memory.max": "100", "memory.swap.max": "50"}, nil},
		{"no swap", oci.LinuxResources{Memory: &oci.LinuxMemory{Limit: ptr(int64(100)), Swap: ptr(int64(100))}}, map[string]string{"memory.max": "100", "memory.swap.max": "0"}, nil},
		{"unlimited", oci.LinuxResources{Memory: &oci.LinuxMemory{Limit: ptr(int64(-1))}}, map[string]string{"memory.max": "max", "memory.swap.max": "max"}, nil},
		{"swap below memory", oci.LinuxResources{Memory: &oci.LinuxMemory{Limit: ptr(int64(100)), Swap: ptr(int64(50))}}, nil, errdefs.ErrInvalidArgument},
		{"unified", oci.LinuxResources{Unified: map[string]string{"memory.high": "77"}}, map[string]string{"memory.high": "77"}, nil},
		{"unified upwards", oci.LinuxResources{Unified: map[string]string{"memory../../memory.max": "1"}}, nil, errdefs.ErrInvalidArgument},
		{"unified core file", oci.LinuxResources{Unified: map[string]string{"cgroup.kill": "1"}}, nil, errdefs.ErrInvalidArgument},
		{"missing file", oci.LinuxResources{Unified: map[string]string{"rdma.max": "1"}}, nil, errdefs.ErrFailedPrecondition},
		{"unknown huge page size", oci.LinuxResources{HugepageLimits: []oci.LinuxHugepageLimit{{Pagesize: "3MB"}}}, nil, errdefs.ErrInvalidArgument},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, dir := fakeV2(t, blank)
			err := c.Set(&tc.r)
			if tc.err != nil {
				if err == nil || !strings.Contains(err.Error(), "/pod/ctr") || !errors.Is(err, tc.err) {
					t.Fatalf("got %v, want %v naming the cgroup", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range tc.want {
				got, _ := os.ReadFile(filepath.Join(dir, name))
				// The fake does not truncate, as the kernel's files do not.
				if !strings.HasPrefix(string(got), want) {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestSetV1GrowsSwapFirstAndShrinksItLast(t *testing.T) {
	root := t.TempDir()
	for _, f := range []string{"memory.limit_in_bytes", "memory.memsw.limit_in_bytes"} {
		if err := os.WriteFile(filepath.Join(root, f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, "c"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := load(&tree{v1: []v1Mount{{dir: root, controllers: []string{"memory"}}}}, "/c")
	err := c.Set(&oci.LinuxResources{Memory: &oci.LinuxMemory{Limit: ptr(int64(4096)), Swap: ptr(int64(8192))}})
	if err == nil || !strings.Contains(err.Error(), "memory.memsw.limit_in_bytes") {
		t.Errorf("growing: %v; want memsw to be written (and fail) first", err)
	}
	if err := c.Set(&oci.LinuxResources{Unified: map[string]string{"memory.max": "1"}}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("unified on v1: %v", err)
	}
}

func ptr[T any](v T) *T { return &v }
