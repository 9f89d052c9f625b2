//go:build e2e

package kernel

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/faults/inject"
	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/project"
	"github.com/crid-project/crid/e2e/story"
)

func lines(text string) []string { return strings.Split(strings.TrimSpace(text), "\n") }

// cut reads a line of /proc/PID/cgroup.
func cut(line string) (controllers map[string]bool, path string, ok bool) {
	f := strings.SplitN(line, ":", 3)
	if len(f) != 3 {
		return nil, "", false
	}
	controllers = map[string]bool{}
	for name := range strings.SplitSeq(strings.TrimPrefix(f[1], "name="), ",") {
		controllers[name] = true
	}
	return controllers, f[2], true
}

func pidsIn(dir string) []int {
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil
	}
	var pids []int
	for f := range strings.FieldsSeq(string(data)) {
		if pid, err := strconv.Atoi(f); err == nil && pid > 1 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// F52 and row 26: in a process namespace that the pod shares, children outlive the main process and hold its output. They are the container all
// the same, and end with it.
func TestF52ChildrenThatOutliveTheMainProcess(t *testing.T) {
	t.Parallel()
	s := alone(t)
	p := s.Pod("shared", func(c *runtimeapi.PodSandboxConfig) { harness.SharedPID(c) })
	shared := func(c *runtimeapi.ContainerConfig) *runtimeapi.ContainerConfig {
		c.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
		return c
	}
	bystander := p.Go(shared(story.Sleeper("bystander")))
	for n, line := range []string{
		"nohup sleep 4141 & (trap '' TERM HUP; exec sleep 4142) & echo started; sleep 1; exit 3",
		"for i in 1 2 3 4 5; do (trap '' TERM HUP; while :; do sleep 0.2; echo still; done) & done; echo started; sleep 1; exit 3",
	} {
		c := p.Go(shared(story.Shell(fmt.Sprintf("c%d", n), line)))
		c.Heard("started")
		pids := inject.Procs(c, "freezer")
		start := time.Now()
		st := c.Exited()
		for _, pid := range pids { // in the first moment in which it is told
			if harness.Alive(pid) {
				t.Errorf("it is told as exited, and its process %d lives", pid)
			}
		}
		inject.Within(t, "the end", time.Since(start), 10*time.Second)
		if st.GetExitCode() != 3 || st.GetReason() != "Error" {
			t.Errorf("code %d, reason %q", st.GetExitCode(), st.GetReason())
		}
		if left := inject.Count(s, "process in a cgroup: ", "sleep 414") + inject.Count(s, "process in a cgroup: ", "still"); left != 0 {
			t.Errorf("it is told as exited, and %d of its processes live", left)
		}
		if said := c.Said("stdout"); !strings.HasPrefix(said, "started\n") {
			t.Errorf("its log: %q", said)
		}
		// nobody holds its output any more
		s.Eventually("its pipes are closed", 10*time.Second, func() bool { return inject.Count(s, "open file ", c.ID) == 0 })
		c.Remove()
	}
	bystander.WantState(running)
	bystander.Sh("true")
}

// Row 31: a process comes into the cgroup of a container that was told as exited. It cannot become a container that runs again.
func TestAProcessInTheCgroupOfAnExitedContainer(t *testing.T) {
	t.Parallel()
	runc := inject.Runc(t)
	s := story.Alone(t, harness.Crid{Config: runc.Table()})
	p := inject.Pod(s, "contradiction")
	c := p.Go(story.Shell("c", polite))
	c.Heard("ready")
	dirs := map[string]bool{}
	for _, line := range lines(c.Proc("cgroup")) {
		if controllers, path, ok := cut(line); ok && filepath.Base(path) == c.ID {
			for name := range controllers {
				dirs[filepath.Join("/sys/fs/cgroup", name, path)] = true
			}
		}
	}
	stray := exec.Command("sleep", "1000")
	if err := stray.Start(); err != nil {
		t.Fatal(err)
	}
	dead := make(chan struct{})
	go func() { _ = stray.Wait(); close(dead) }()
	defer func() { _ = stray.Process.Kill(); <-dead }()
	runc.Do(map[string]inject.Act{"delete": {Before: 3 * time.Second}}) // the cgroup stays a while
	c.Stop(10)
	st := c.WantState(exited)
	in := 0
	for dir := range dirs {
		if os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(stray.Process.Pid)), 0o600) == nil {
			in++
		}
	}
	if in == 0 {
		t.Fatal("the cgroup is gone already: this proves nothing")
	}
	runc.Well()
	select {
	case <-dead:
	case <-time.After(60 * time.Second):
		t.Error("the process lives on in the cgroup of an exited container")
	}
	if now := c.WantState(exited); now.GetExitCode() != 5 || now.GetFinishedAt() != st.GetFinishedAt() {
		t.Errorf("what was told has changed: %v", now)
	}
	inject.Clear(s, p, 60*time.Second)
}

// Row 36: the sandbox process of a pod ends, its containers live. The pod is not ready at once, and each of them can be stopped.
func TestTheSandboxProcessIsKilled(t *testing.T) {
	t.Parallel()
	shim, err := project.Bin("containerd-shim-runc-v2")
	if err != nil {
		t.Fatal(err)
	}
	runc, err := project.Bin("runc")
	if err != nil {
		t.Fatal(err)
	}
	s := story.Alone(t, harness.Crid{Config: fmt.Sprintf("[runtimes.%s]\ntype = \"io.containerd.runc.v2\"\nsandbox = \"pause\"\npath = %q\noptions = { BinaryName = %q, SystemdCgroup = false }\n", inject.Handler, shim, runc)})
	for _, down := range []bool{false, true} {
		p := inject.Pod(s, "paused")
		a, b := p.Go(story.Shell("a", polite)), p.Go(story.Shell("b", deaf))
		a.Heard("ready")
		b.Heard("ready")
		r, err := s.Runtime.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: p.ID, Verbose: true})
		if err != nil {
			t.Fatal(err)
		}
		var info struct{ Pid int }
		if err := json.Unmarshal([]byte(r.GetInfo()["info"]), &info); err != nil || info.Pid < 2 {
			t.Fatalf("the sandbox process: %v (%v)", r.GetInfo(), err)
		}
		if down {
			inject.Crash(s)
		}
		inject.Signal(t, info.Pid, syscall.SIGKILL)
		if down {
			inject.Again(s)
		}
		s.Eventually("the pod is not ready", 4*time.Second, func() bool { return p.Status().GetState() == notReady })
		a.WantState(running)
		b.WantState(running)
		a.Sh("true")
		a.Stop(10)
		inject.Within(t, "the stop", b.Stop(1), 31*time.Second)
		if x, y := a.WantState(exited).GetExitCode(), b.WantState(exited).GetExitCode(); x != 5 || y != 137 {
			t.Errorf("codes %d and %d", x, y)
		}
		inject.Clear(s, p, 30*time.Second)
	}
}

// Whatever many callers ask at once, a container is sent its stop signal once, and killed once its grace is over.
func TestThirtyTwoCallersAndOneSignal(t *testing.T) {
	t.Parallel()
	s := alone(t)
	p := s.Pod("callers")
	c := p.Go(story.Shell("c", "trap 'echo term' TERM; echo ready; while :; do sleep 1 & wait $!; done"))
	c.Heard("ready")
	start := time.Now()
	answers := make(chan error, 32)
	for n := range 32 {
		go func() { answers <- s.StopContainer(t.Context(), c.ID, int64(4+n%7)) }()
	}
	for range 32 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(start); took < 3500*time.Millisecond || took > 15*time.Second {
		t.Errorf("the shortest grace was 4 seconds, and it took %s", took)
	}
	if st := c.WantState(exited); st.GetExitCode() != 137 {
		t.Errorf("code %d", st.GetExitCode())
	}
	if said := c.Said("stdout"); strings.Count(said, "term\n") != 1 {
		t.Errorf("it was told %d times: %q", strings.Count(said, "term\n"), said)
	}
}
