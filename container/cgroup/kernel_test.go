package cgroup

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	oci "github.com/opencontainers/runtime-spec/specs-go"
)

// inKernel makes a cgroup of this test's own in the given tree of the running
// kernel and removes it after.
func inKernel(t testing.TB, tr *tree) *Cgroup {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: makes cgroups")
	}
	c := load(tr, fmt.Sprintf("/crid-test-%d/%s", os.Getpid(), filepath.Base(t.TempDir())))
	if err := c.Ensure(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Kill(); err != nil {
			t.Errorf("clean up: %v", err)
		}
		empty(t, c)
		if err := c.Remove(context.Background()); err != nil {
			t.Errorf("clean up: %v", err)
		}
		for _, root := range tr.roots() {
			_ = os.Remove(filepath.Join(root, filepath.Dir(c.Path())))
		}
	})
	return c
}

// trees are those that this machine can show: its own, and the cgroup2 part
// of a hybrid host taken as if it were all there is.
func trees(t *testing.T, fn func(t *testing.T, tr *tree)) {
	own := theTree()
	t.Run("own", func(t *testing.T) { fn(t, own) })
	if !own.v2 && own.unified != "" {
		t.Run("unified", func(t *testing.T) { fn(t, &tree{v2: true, unified: own.unified}) })
		t.Run("v1", func(t *testing.T) { fn(t, &tree{v1: own.v1}) })
	}
}

// run starts a command inside the cgroup and reaps it.
func run(t testing.TB, c *Cgroup, argv ...string) (pid int, done <-chan struct{}) {
	t.Helper()
	cmd := exec.Command("sh", append([]string{"-c", `read x; exec "$@"`, "sh"}, argv...)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range c.dirs() {
		if err := writeFile(dir+"/cgroup.procs", strconv.Itoa(cmd.Process.Pid)); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Fprintln(in, "go")
	ch := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ch) }()
	return cmd.Process.Pid, ch
}

// empty waits until nobody is left.
func empty(t testing.TB, c *Cgroup) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if p, err := c.Populated(); err == nil && !p {
			return
		} else if time.Now().After(end) {
			t.Fatalf("still populated: %v", err)
		}
	}
}

func TestKillEndsEverybodyFrozenOnesAndForkersToo(t *testing.T) {
	trees(t, func(t *testing.T, tr *tree) {
		c := inKernel(t, tr)
		// Two leaves: cgroup2 admits no process above an enabled controller.
		beside, below := load(tr, c.Path()+"/one"), load(tr, c.Path()+"/inner")
		for _, x := range []*Cgroup{beside, below} {
			if err := x.Ensure(); err != nil {
				t.Fatal(err)
			}
		}
		_, one := run(t, beside, "sleep", "100")
		_, two := run(t, below, "sh", "-c", "while :; do sleep 100 & sleep 0.01; done")
		if p, err := c.Populated(); err != nil || !p {
			t.Fatalf("Populated = %v, %v", p, err)
		}
		if err := below.Freeze(); err != nil {
			t.Fatal(err)
		}
		if f, err := below.Frozen(); err != nil || !f {
			t.Fatalf("Frozen = %v, %v", f, err)
		}
		if err := c.Kill(); err != nil {
			t.Fatal(err)
		}
		for _, done := range []<-chan struct{}{one, two} {
			select {
			case <-done:
			case <-time.After(5 * time.Second):
				t.Fatal("a process survived")
			}
		}
		empty(t, c)
	})
}

func TestKillLeavesTheNeighbourAlone(t *testing.T) {
	trees(t, func(t *testing.T, tr *tree) {
		c := inKernel(t, tr)
		us, them := load(tr, c.Path()+"/us"), load(tr, c.Path()+"/us2")
		for _, x := range []*Cgroup{us, them} {
			if err := x.Ensure(); err != nil {
				t.Fatal(err)
			}
		}
		_, gone := run(t, us, "sleep", "100")
		pid, stays := run(t, them, "sleep", "100")
		if err := us.Kill(); err != nil {
			t.Fatal(err)
		}
		<-gone
		select {
		case <-stays:
			t.Fatal("the neighbour died")
		default:
		}
		if pids, err := them.Procs(); err != nil || len(pids) != 1 || pids[0] != pid {
			t.Errorf("Procs = %v, %v; want %d", pids, err, pid)
		}
	})
}

func TestKillRefusesItsOwnProcess(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: makes cgroups")
	}
	p, err := OfPid(os.Getpid())
	if err != nil || p == "/" {
		t.Skipf("this process is at the root: %v", err)
	}
	if err := Load(p).Kill(); !errdefs.IsFailedPrecondition(err) {
		t.Fatalf("got %v, want a refusal", err)
	}
}

func TestRemoveGoesDeepAndIsIdempotentAndRefusesTheBusy(t *testing.T) {
	trees(t, func(t *testing.T, tr *tree) {
		c := inKernel(t, tr)
		deep := load(tr, c.Path()+"/a/b/c")
		if err := deep.Ensure(); err != nil {
			t.Fatal(err)
		}
		_, done := run(t, deep, "sleep", "100")
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if err := c.Remove(ctx); err == nil {
			t.Fatal("removed with a process in it")
		}
		if err := deep.Kill(); err != nil {
			t.Fatal(err)
		}
		<-done
		for range 2 {
			if err := c.Remove(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if c.Exists() {
			t.Error("it is there still")
		}
		if _, err := c.Stats(t.Context()); !errdefs.IsNotFound(err) {
			t.Errorf("Stats: %v, want not found", err)
		}
	})
}

func TestThawReleasesWhatSomebodyElseFroze(t *testing.T) {
	trees(t, func(t *testing.T, tr *tree) {
		c := inKernel(t, tr)
		_, done := run(t, c, "sleep", "0.05")
		if err := c.Freeze(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-done:
			t.Skip("it ended before it froze")
		case <-time.After(100 * time.Millisecond):
		}
		if err := c.Thaw(); err != nil {
			t.Fatal(err)
		}
		if f, err := c.Frozen(); err != nil || f {
			t.Errorf("Frozen = %v, %v", f, err)
		}
		<-done
	})
}

func TestStatsOfARunningProcess(t *testing.T) {
	c := inKernel(t, theTree())
	_, _ = run(t, c, "sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exec sleep 100")
	var s *Stats
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		var err error
		if s, err = c.Stats(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s.CPU != nil && s.CPU.Usage > 0 && (s.Memory == nil || s.Memory.RSS > 0) {
			break
		}
	}
	have := map[string]bool{}
	for _, name := range Controllers() {
		have[name] = true
	}
	if (have["cpu"] || have["cpuacct"]) && (s.CPU == nil || s.CPU.Usage == 0) {
		t.Errorf("no cpu usage: %+v", s.CPU)
	}
	if have["memory"] && (s.Memory == nil || s.Memory.Usage == 0 || s.Memory.WorkingSet == 0 || s.Memory.Limit != Unlimited) {
		t.Errorf("memory: %+v", s.Memory)
	}
	if s.Pids == nil || s.Pids.Processes != 1 || s.Pids.Threads != 1 {
		t.Errorf("pids: %+v", s.Pids)
	}
}

func TestLimitsAreSeenInTheStatistics(t *testing.T) {
	c := inKernel(t, theTree())
	const mib = 1 << 20
	set := func(limit, swap int64) {
		t.Helper()
		err := c.Set(&oci.LinuxResources{
			CPU:    &oci.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(20000)), Period: ptr(uint64(50000))},
			Memory: &oci.LinuxMemory{Limit: &limit, Swap: &swap},
			Pids:   &oci.LinuxPids{Limit: ptr(int64(33))},
		})
		if errdefs.IsFailedPrecondition(err) {
			t.Skipf("needs the cpu, memory and pids controllers: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, mem := range []int64{64 * mib, 128 * mib, 32 * mib} { // set, grow, shrink
		set(mem, mem)
		s, err := c.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if s.Memory.Limit != uint64(mem) || s.Pids.Limit != 33 || s.CPU.Quota != 20000 || s.CPU.Period != 50000 {
			t.Errorf("memory %d, pids %d, cpu %d/%d", s.Memory.Limit, s.Pids.Limit, s.CPU.Quota, s.CPU.Period)
		}
		if s.Swap != nil && s.Swap.Limit != 0 {
			t.Errorf("swap limit %d, want none allowed", s.Swap.Limit)
		}
	}
	if err := c.Set(&oci.LinuxResources{Memory: &oci.LinuxMemory{Limit: ptr(int64(-1))}}); err != nil {
		t.Fatal(err)
	}
	if s, err := c.Stats(t.Context()); err != nil || s.Memory.Limit != Unlimited {
		t.Errorf("limit %d, %v; want none", s.Memory.Limit, err)
	}
}

func TestOOMKillsCounts(t *testing.T) {
	c := inKernel(t, theTree())
	if n, err := c.OOMKills(); errdefs.IsNotFound(err) {
		t.Skip("needs the memory controller")
	} else if err != nil || n != 0 {
		t.Fatalf("OOMKills = %d, %v", n, err)
	}
	limit := int64(8 << 20)
	if err := c.Set(&oci.LinuxResources{Memory: &oci.LinuxMemory{Limit: &limit, Swap: &limit}}); err != nil {
		t.Fatal(err)
	}
	_, done := run(t, c, "tail", "/dev/zero")
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("the limit did not end it")
	}
	if n, err := c.OOMKills(); err != nil || n != 1 {
		t.Errorf("OOMKills = %d, %v; want 1", n, err)
	}
}

func TestStatsWithAnEndedContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := load(theTree(), "/").Stats(ctx); err == nil {
		t.Error("read with an ended context")
	}
}

func BenchmarkStats(b *testing.B) {
	c := inKernel(b, theTree())
	_, _ = run(b, c, "sleep", "100")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Stats(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
