//go:build e2e

package host

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/faults/inject"
	"github.com/crid-project/crid/e2e/faults/watch"
	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/story"
)

// The daemon may open no more files: calls are refused, it goes on accepting when there are files again, and everything works.
func TestF69NoMoreFiles(t *testing.T) {
	t.Parallel()
	s := story.Alone(t, harness.Crid{})
	p := s.Pod("files")
	c := p.Go(story.Sleeper("c"))
	pid := s.Pid()
	var old unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &old); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	rooms := []int{0, 12, 3, 25}
	for _, room := range rooms[:watch.Times(2, len(rooms))] {
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(len(entries) + room), Max: old.Max}, nil); err != nil {
			t.Fatal(err)
		}
		for what, call := range map[string]func(context.Context) error{
			"RunPodSandbox": func(ctx context.Context) error { _, err := s.RunPod(ctx, s.Home.Pod("none"), ""); return err },
			"CreateContainer": func(ctx context.Context) error {
				_, err := s.Create(ctx, p.ID, story.Sleeper("none"), p.Config)
				return err
			},
			"ExecSync":       func(ctx context.Context) error { _, err := s.Exec(ctx, c.ID, "true"); return err },
			"PullImage":      func(ctx context.Context) error { _, err := s.Pull(ctx, "quay.io/crid/forms:oci-gzip"); return err },
			"ListContainers": func(ctx context.Context) error { _, err := s.Containers(ctx); return err },
			"ListContainerStats": func(ctx context.Context) error {
				_, err := s.Runtime.ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{})
				return err
			},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			err := call(ctx)
			cancel()
			t.Logf("%s with room for %d files: %.200v", what, room, err)
			if strings.HasPrefix(what, "List") && err != nil {
				t.Errorf("%s with room for %d files: %v", what, room, err)
			}
		}
		var more []*harness.CRI
		for range 8 { // connections that cannot be accepted
			cri, err := harness.Dial(s.Home.Socket())
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			_, _ = cri.Runtime.Version(ctx, &runtimeapi.VersionRequest{})
			cancel()
			more = append(more, cri)
		}
		if s.Pid() != pid {
			t.Fatal("the daemon has ended")
		}
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &old, nil); err != nil {
			t.Fatal(err)
		}
		for _, cri := range more {
			cri.Close()
		}
		start := time.Now()
		s.Eventually("a new connection is served", 10*time.Second, func() bool {
			cri, err := harness.Dial(s.Home.Socket())
			if err != nil {
				return false
			}
			defer cri.Close()
			_, err = cri.Version(t.Context())
			return err == nil
		})
		t.Logf("served again after %s", time.Since(start))
		c.WantState(running)
		c.Sh("true")
		id, err := s.RunPod(t.Context(), s.Home.Pod("again"), "")
		if err != nil {
			t.Errorf("with files again: %v", err)
		} else if err := s.RemovePodFully(t.Context(), id); err != nil {
			t.Error(err)
		}
		s.Eventually("what was begun without files is gone", 30*time.Second, func() bool {
			pods, err := s.Pods(t.Context())
			list, err2 := s.Containers(t.Context())
			for _, p := range list { // a create whose caller had gone may have been finished
				if p.GetMetadata().GetName() == "none" {
					_ = s.RemoveContainer(t.Context(), p.GetId())
				}
			}
			for _, p := range pods {
				if p.GetMetadata().GetName() == "none" {
					_ = s.RemovePodFully(t.Context(), p.GetId())
				}
			}
			return err == nil && err2 == nil && len(pods) == 1 && len(list) == 1
		})
		s.Eventually("nor is anything being given back", time.Minute, func() bool {
			left, err := os.ReadDir(filepath.Join(s.Home.State(), "pods"))
			return err == nil && len(left) == 1
		})
	}
}

// The daemon has 128 MiB: many containers listed by many, pulls of many layers, execs with much output. It lives through it.
func TestF70LittleMemory(t *testing.T) {
	t.Parallel()
	if story.V2() {
		t.Skip("sets a limit of cgroup v1's memory controller")
	}
	group := filepath.Join("/sys/fs/cgroup/memory", "crid-faults-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // after the daemon and its shims, which are in it, have ended
		for end := time.Now().Add(10 * time.Second); os.Remove(group) != nil; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Errorf("%s is left", group)
				return
			}
		}
	})
	s := story.Alone(t, harness.Crid{Level: "info"})
	pid := s.Pid()
	put := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0); err != nil {
			t.Fatal(err)
		}
	}
	put(group+"/memory.limit_in_bytes", "128M")
	put(group+"/cgroup.procs", strconv.Itoa(pid))
	p := s.Pod("many")
	var made []*story.Container
	for i := range watch.Times(40, 500) {
		made = append(made, p.Make(story.Shell(fmt.Sprintf("c%d", i), "true")))
	}
	talker := p.Go(story.Sleeper("talker"))
	var all sync.WaitGroup
	end := make(chan struct{})
	for range 20 {
		all.Go(func() {
			cri, err := harness.Dial(s.Home.Socket())
			if err != nil {
				t.Error(err)
				return
			}
			defer cri.Close()
			for {
				select {
				case <-end:
					return
				default:
				}
				list, err := cri.Containers(t.Context())
				if err != nil || len(list) != len(made)+1 {
					t.Errorf("%d containers listed (%v)", len(list), err)
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	var work sync.WaitGroup
	for n := range 5 {
		work.Go(func() {
			for _, form := range []string{"oci-gzip", "oci-zstd", "oci-tar", "docker-gzip"} {
				if _, err := s.Pull(t.Context(), "quay.io/crid/forms:"+form); err != nil {
					t.Errorf("pull %d: %v", n, err)
				}
			}
		})
	}
	for range watch.Times(20, 100) {
		work.Go(func() {
			r, err := s.Exec(t.Context(), talker.ID, "sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x")
			if err != nil || len(r.GetStdout()) != 300000 {
				t.Errorf("exec: %d bytes (%v)", len(r.GetStdout()), err)
			}
		})
	}
	work.Wait()
	close(end)
	all.Wait()
	text, err := os.ReadFile(group + "/memory.oom_control")
	if err != nil || !strings.Contains(string(text), "oom_kill 0") {
		t.Errorf("%s (%v)", text, err)
	}
	peak, _ := os.ReadFile(group + "/memory.max_usage_in_bytes")
	t.Logf("peak with file cache: %s bytes; of its own %d KiB", strings.TrimSpace(string(peak)), watch.Field(t, pid, "VmHWM"))
	if s.Pid() != pid {
		t.Error("the daemon has ended")
	}
}

// strained is crid with one processor, a garbage collector that never rests, and goroutines that are not interrupted.
type strained struct{ harness.Crid }

// Env is read by the harness.
func (strained) Env() []string {
	return []string{"GOGC=1", "GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1"}
}

// The daemon is slow, and then stands still for longer than any of its deadlines: nothing is killed for that.
func TestF71ADaemonThatStandsStill(t *testing.T) {
	t.Parallel()
	s := story.Alone(t, harness.Crid{})
	inject.Crash(s)
	s.Daemon.Kind = strained{}
	again(s)
	p := s.Pod("still")
	c := p.Go(story.Sleeper("c"))
	ends := p.Go(story.Shell("ends", "sleep 2; exit 4"))
	var churn sync.WaitGroup
	stop := make(chan struct{})
	for n := range 3 {
		churn.Go(func() {
			forgiven := false // what was being asked of a shim when all stood still may be an error, once, and works when it is asked again
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				config := s.Home.Pod(fmt.Sprintf("churn-%d-%d", n, i))
				id, err := s.RunPod(t.Context(), config, "")
				if err == nil {
					_, err = s.Run(t.Context(), id, story.Sleeper("x"), config)
				}
				if err == nil {
					err = s.RemovePodFully(t.Context(), id)
				}
				if err != nil && !forgiven && (status.Code(err) == codes.Unavailable || status.Code(err) == codes.DeadlineExceeded) {
					forgiven, err = true, nil
					if id != "" {
						err = s.RemovePodFully(t.Context(), id)
					} else {
						i--
					}
				}
				if err != nil {
					t.Errorf("churn: %v", err)
					return
				}
			}
		})
	}
	time.Sleep(time.Second)
	if err := syscall.Kill(s.Pid(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Duration(watch.Times(12, 35)) * time.Second)
	if err := syscall.Kill(s.Pid(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	close(stop)
	churn.Wait()
	c.WantState(running)
	c.Sh("true")
	if st := ends.Exited(); st.GetExitCode() != 4 {
		t.Errorf("what ended meanwhile ended with %d", st.GetExitCode())
	}
}

// otherTime is crid in a time namespace of its own, a day ahead.
type otherTime struct{ harness.Crid }

// Prepare implements harness.Kind.
func (k otherTime) Prepare(h *harness.Home) (string, []string, error) {
	program, args, err := k.Crid.Prepare(h)
	if err != nil {
		return "", nil, err
	}
	return "/usr/bin/unshare", append([]string{"--time", "--monotonic", "86400", "--boottime", "86400", "--fork", "--kill-child", program}, args...), nil
}

// The clocks that count from the boot are a day ahead: stops keep their grace, and times are in order.
func TestF73ClocksOfAnotherTimeNamespace(t *testing.T) {
	t.Parallel()
	s := story.Alone(t, harness.Crid{})
	inject.Crash(s)
	s.Daemon.Kind = otherTime{}
	if err := s.Daemon.Start(t.Context()); err != nil {
		t.Skipf("no time namespaces here: %v", err)
	}
	p := s.Pod("ahead")
	c := p.Go(story.Shell("c", "trap '' TERM; while :; do sleep 0.2; done"))
	c.Sh("true")
	if took := c.Stop(2); took < 1900*time.Millisecond || took > 20*time.Second {
		t.Errorf("a stop with two seconds of grace took %s", took)
	}
	st := c.WantState(exited)
	if age := time.Since(time.Unix(0, st.GetFinishedAt())); age < 0 || age > time.Minute || st.GetStartedAt() > st.GetFinishedAt() {
		t.Errorf("started %d, finished %d, now %d", st.GetStartedAt(), st.GetFinishedAt(), time.Now().UnixNano())
	}
	if err := s.RemovePodFully(t.Context(), p.ID); err != nil {
		t.Error(err)
	}
	inject.Crash(s)
	s.Daemon.Kind = harness.Crid{}
	again(s)
}
