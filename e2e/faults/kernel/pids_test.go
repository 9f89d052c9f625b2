//go:build e2e

package kernel

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/crid-project/crid/e2e/faults/inject"
	"github.com/crid-project/crid/e2e/faults/watch"
	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/story"
)

// F56 and row 25: while crid is down the pids of a container and of its shim are given to strangers. The container has exited, and nobody is hurt.
// Everything runs in a process namespace of its own.
func TestF56PidsAreGivenAway(t *testing.T) {
	if !inject.InOwnPids(t) {
		return
	}
	s := alone(t)
	p, other := s.Pod("pids"), s.Pod("other")
	c := p.Go(story.Shell("c", deaf))
	d := other.Go(story.Shell("d", deaf)) // only its own pid is given away: its shim lives
	c.Heard("ready")
	d.Heard("ready")
	lost := []int{c.Pid(), c.ShimPid(), d.Pid()}
	inject.Crash(s)
	for _, pid := range lost {
		inject.Signal(t, pid, syscall.SIGKILL)
	}
	strangers := map[int]string{}
	for _, pid := range lost {
		s.Eventually("it is reaped", 15*time.Second, func() bool { return inject.State(pid) == "" })
		inject.GivePid(t, pid)
		strangers[pid] = inject.StartTime(t, pid)
	}
	inject.Again(s)
	if got := inject.States(s); got["c"] != exited || got["d"] != exited {
		t.Errorf("the first list: %v", got)
	}
	if st := d.Status(); st.GetExitCode() != 137 {
		t.Errorf("the shim of d lives and knows: code %d", st.GetExitCode())
	}
	s.Eventually("the pod whose shim died is not ready", 10*time.Second, func() bool { return p.Status().GetState() == notReady })
	for _, c := range []*story.Container{c, d} {
		c.Stop(0)
		c.Remove()
	}
	inject.Clear(s, p, 20*time.Second)
	inject.Clear(s, other, 20*time.Second)
	for pid, began := range strangers {
		if inject.StartTime(t, pid) != began || inject.State(pid) == "Z" {
			t.Errorf("the stranger with pid %d was killed", pid)
		}
	}
}

// F58: no process can be made in the pod's cgroup. Starts and execs fail with a reason, and work again when they can.
func TestF58AFullPidsCgroup(t *testing.T) {
	t.Parallel()
	s := alone(t)
	watch.Others(s)
	p := s.Pod("full")
	a := p.Go(story.Shell("a", polite))
	a.Heard("ready")
	limit := filepath.Join(filepath.Dir(a.CgroupDir("pids")), "pids.max")
	if _, err := os.Stat(limit); err != nil {
		t.Skipf("needs the pids controller: %v", err)
	}
	inject.Write(t, limit, "1")
	b := p.Make(story.Sleeper("b"))
	start := time.Now()
	err := s.StartContainer(t.Context(), b.ID)
	if err == nil {
		t.Error("a container starts where no process may be made")
	} else if len(err.Error()) > 8<<10 {
		t.Errorf("an error of %d bytes", len(err.Error()))
	}
	t.Logf("the start: %.300v", err)
	inject.Within(t, "the failing start", time.Since(start), 30*time.Second)
	start = time.Now()
	// To join a full cgroup is allowed, to make a process in it is not.
	r, err := s.Exec(t.Context(), a.ID, "sh", "-c", "sleep 0 & wait $! && echo made")
	if err == nil && strings.Contains(string(r.GetStdout()), "made") {
		t.Error("an exec makes a process where none may be made")
	}
	inject.Within(t, "the failing exec", time.Since(start), 35*time.Second)
	a.WantState(running)
	inject.Write(t, limit, "max")
	a.Sh("true")
	b.Remove()
	p.Go(story.Sleeper("b")).Sh("true")
	a.Stop(10)
	if st := a.WantState(exited); st.GetExitCode() != 5 {
		t.Errorf("code %d", st.GetExitCode())
	}
}

// F58: the same for crid itself and all that it starts. Whatever becomes of the calls (or of crid, if the kernel refuses its language's runtime a
// thread), nothing that runs is hurt, and everything works again when there is room.
func TestF58CridMayMakeNoProcess(t *testing.T) {
	t.Parallel()
	if story.V2() {
		t.Skip("needs cgroup v1, where a process can be put into another controller's cgroup by itself")
	}
	s := alone(t)
	p := s.Pod("before")
	a := p.Go(story.Shell("a", polite))
	a.Heard("ready")
	dir := filepath.Join("/sys/fs/cgroup/pids", s.Home.Cgroup, "crid-itself")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("needs the pids controller: %v", err)
	}
	inject.Write(t, filepath.Join(dir, "cgroup.procs"), strconv.Itoa(s.Daemon.Pid()))
	inject.Write(t, filepath.Join(dir, "pids.max"), strconv.Itoa(watch.Field(t, s.Daemon.Pid(), "Threads")+1))
	for n := range 3 {
		id, err := s.RunPod(t.Context(), s.Home.Pod(fmt.Sprintf("new-%d", n)), "")
		if err == nil {
			t.Errorf("pod %s runs where no process may be made", id)
		} else if len(err.Error()) > 8<<10 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
		t.Logf("%.300v", err)
		if watch.Code(err) == codes.Unavailable && ends(s) {
			break
		}
		a.WantState(running)
	}
	inject.Write(t, filepath.Join(dir, "pids.max"), "max")
	t.Logf("crid lives: %t", s.Running())
	if !s.Running() {
		inject.Crash(s) // lets go of the connection
		inject.Again(s)
	}
	a.WantState(running)
	a.Sh("true")
	s.Eventually("nothing of the failed pods is listed", 20*time.Second, func() bool {
		pods, err := s.Pods(t.Context())
		return err == nil && len(pods) == 1
	})
	q := s.Pod("after")
	q.Go(story.Sleeper("c")).Sh("true")
	a.Stop(10)
	inject.Clear(s, q, 20*time.Second)
	inject.Clear(s, p, 20*time.Second)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		for _, pid := range pidsIn(dir) { // crid, if it lives, and who holds the output of containers
			_ = os.WriteFile("/sys/fs/cgroup/pids/cgroup.procs", []byte(strconv.Itoa(pid)), 0o600) // it may just have ended
		}
		err := syscall.Rmdir(dir)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// ends tells whether crid has ended, or does within a moment.
func ends(s *story.Story) bool {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if !s.Running() {
			return true
		}
	}
	return false
}

// F41: the OCI runtime is gone, ends with 127, dies, or leaves a log that is none. The error is bounded, nothing is left, and what runs can be ended.
func TestF41RuncThatIsNone(t *testing.T) {
	t.Parallel()
	runc := inject.Runc(t)
	s := story.Alone(t, harness.Crid{Config: runc.Table()})
	watch.Others(s)
	p := inject.Pod(s, "none")
	a := p.Go(story.Shell("a", polite))
	a.Heard("ready")
	failing := func(what string) {
		t.Helper()
		c := p.Make(story.Sleeper(what))
		start := time.Now()
		err := s.StartContainer(t.Context(), c.ID)
		if err == nil || len(err.Error()) > 8<<10 {
			t.Errorf("%s: an error of %d bytes: %.200v", what, len(fmt.Sprint(err)), err)
		}
		t.Logf("%s, after %s: %.300v", what, time.Since(start).Round(time.Millisecond), err)
		inject.Within(t, what+": the failing start", time.Since(start), 20*time.Second)
		if st := c.Status(); st.GetState() == running {
			t.Errorf("%s: it is %s", what, st.GetState())
		}
		start = time.Now()
		c.Remove()
		inject.Within(t, what+": the removal", time.Since(start), 31*time.Second)
	}
	garbage := strings.Repeat("\x00{\"level\":\"error\",\"msg\":\n", 100000)
	for what, act := range map[string]inject.Act{
		"exit-127": {Exit: inject.Code(127)},
		"segv":     {Segv: true},
		"log":      {Exit: inject.Code(1), Log: garbage},
		"words":    {Exit: inject.Code(1), Log: `{"level":"error","msg":"` + strings.Repeat("no ", 500000) + `"}`},
		"lies":     {Exit: inject.Code(0)}, // it says that all went well and made nothing
	} {
		runc.Do(map[string]inject.Act{"create": act})
		failing(what)
		runc.Well()
	}
	if err := os.Rename(runc.Path, runc.Path+".gone"); err != nil {
		t.Fatal(err)
	}
	failing("missing")
	r, err := s.Exec(t.Context(), a.ID, "true")
	if err == nil && r.GetExitCode() == 0 {
		t.Error("an exec without a runtime")
	}
	inject.Within(t, "a stop without a runtime", a.Stop(10), 15*time.Second)
	if st := a.WantState(exited); st.GetExitCode() != 5 {
		t.Errorf("code %d", st.GetExitCode())
	}
	inject.Clear(s, p, 60*time.Second)
	if err := os.Rename(runc.Path+".gone", runc.Path); err != nil {
		t.Fatal(err)
	}
	q := inject.Pod(s, "well")
	q.Go(story.Sleeper("c")).Sh("true")
	inject.Clear(s, q, 20*time.Second)
}
