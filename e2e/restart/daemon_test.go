//go:build e2e

package restart

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/faults/inject"
	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/story"
)

// startTime tells one process from another that got the same pid.
func startTime(t *testing.T, pid int) string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))[19]
}

// What runs goes on, what ended meanwhile has its true code and time, what was only created can be started, and the first list says so.
func TestACrashHurtsNoWorkload(t *testing.T) {
	s := alone(t)
	p := s.Pod("crash")
	steady := p.Go(story.Shell("steady", "trap 'echo bye; exit 4' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"))
	brief := p.Go(story.Shell("brief", "while [ ! -e /end ]; do sleep 0.05; done; echo last words; exit 42"))
	killed := p.Go(story.Sleeper("killed"))
	gone := p.Go(story.Shell("gone", "exit 3"))
	made := p.Make(story.Sleeper("made"))
	gone.Exited()
	ended := gone.Status()
	pid, briefly := steady.Pid(), brief.Pid()
	began, victim := startTime(t, pid), killed.Pid()
	inject.Crash(s)
	down := time.Now()
	time.Sleep(300 * time.Millisecond)
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/root/end", briefly), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	inject.Signal(t, victim, 9)
	killedAt := time.Now()
	time.Sleep(1200 * time.Millisecond)
	inject.Within(t, "the start", inject.Again(s), 5*time.Second)

	got := inject.States(s)
	for name, want := range map[string]runtimeapi.ContainerState{"steady": running, "brief": exited, "killed": exited, "gone": exited, "made": created} {
		if got[name] != want {
			t.Errorf("the first list says %s is %s, not %s", name, got[name], want)
		}
	}
	if st := p.Status(); st.GetState() != ready || st.GetNetwork().GetIp() == "" {
		t.Errorf("the pod: %v", st)
	}
	if st := brief.Status(); st.GetExitCode() != 42 || !between(st.GetFinishedAt(), down, down.Add(1500*time.Millisecond)) {
		t.Errorf("brief: code %d at %s; down at %s", st.GetExitCode(), time.Unix(0, st.GetFinishedAt()), down)
	}
	if st := killed.Status(); st.GetExitCode() != 137 || !between(st.GetFinishedAt(), killedAt.Add(-time.Second), killedAt.Add(time.Second)) {
		t.Errorf("killed: code %d at %s; killed at %s", st.GetExitCode(), time.Unix(0, st.GetFinishedAt()), killedAt)
	}
	if now := gone.Status(); now.GetExitCode() != 3 || now.GetFinishedAt() != ended.GetFinishedAt() || now.GetStartedAt() != ended.GetStartedAt() {
		t.Errorf("what had ended before changed: %v, was %v", now, ended)
	}
	if brief.Said("stdout") != "last words\n" {
		t.Errorf("written while crid was away: %q", brief.Said("stdout"))
	}
	if steady.Pid() != pid || startTime(t, pid) != began {
		t.Error("steady was started again")
	}
	if out := steady.Sh("echo hi"); out != "hi" {
		t.Errorf("exec after the crash: %q", out)
	}
	made.Start()
	made.WantState(running)
	steady.Stop(10)
	if st := steady.WantState(exited); st.GetExitCode() != 4 {
		t.Errorf("steady ended with %d", st.GetExitCode())
	}
	counted(t, steady.Said("stdout"))
	p.Go(story.Sleeper("new"))
}

func between(at int64, from, to time.Time) bool {
	when := time.Unix(0, at)
	return !when.Before(from) && !when.After(to)
}

// counted fails unless the lines are 1, 2, 3 and so on, and "bye" at last.
func counted(t *testing.T, text string) {
	t.Helper()
	lines := strings.Fields(text)
	for n, line := range lines {
		if want := strconv.Itoa(n + 1); line != want && (line != "bye" || n != len(lines)-1) {
			t.Fatalf("line %d of the log is %q: something was lost or came twice", n+1, line)
		}
	}
}

// An upgrade: crid ends when told, workloads and their logs go on.
func TestAGracefulStopLeavesWorkloads(t *testing.T) {
	s := alone(t)
	p := s.Pod("upgrade")
	c := p.Go(story.Shell("c", "trap 'echo bye; exit 0' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done"))
	pid := c.Pid()
	for range 3 {
		start := time.Now()
		if err := s.Daemon.Stop(); err != nil {
			t.Fatal(err)
		}
		inject.Within(t, "the end of crid", time.Since(start), 5*time.Second)
		if !harness.Alive(pid) {
			t.Fatal("the container ended with crid")
		}
		inject.Again(s)
	}
	c.WantState(running)
	c.Stop(10)
	counted(t, c.Said("stdout"))
}

// Stops and removals of an earlier life are not forgotten: what was asked for is done.
func TestACrashInTheMiddleOfAStop(t *testing.T) {
	s := alone(t)
	p := s.Pod("midway")
	c := p.Go(story.Shell("deaf", "trap '' TERM; echo ready; while :; do sleep 1; done"))
	c.Heard("ready")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_ = s.StopContainer(ctx, c.ID, 2) // given up: that is what the test is about
	inject.Crash(s)
	inject.Again(s)
	if took := c.Stop(2); took > 6*time.Second {
		t.Errorf("the stop after the crash took %s", took)
	}
	c.WantState(exited)
}

// Many crashes at any moment: whatever was under way is whole or not there, and a retry works.
func TestCrashesAtAnyMoment(t *testing.T) {
	s := alone(t)
	for round := range 12 {
		config := s.Home.Pod(fmt.Sprintf("any-%d", round))
		done := make(chan struct{})
		cri := s.CRI
		go func() {
			defer close(done)
			pod, err := cri.RunPod(t.Context(), config, "")
			if err != nil {
				return
			}
			_, _ = cri.Run(t.Context(), pod, story.Sleeper("c"), config) // it may be cut off anywhere
		}()
		time.Sleep(time.Duration(round*17) * time.Millisecond)
		inject.Crash(s)
		<-done
		inject.Within(t, "the start", inject.Again(s), 5*time.Second)
		pod, err := s.RunPod(t.Context(), config, "")
		if err != nil {
			t.Fatalf("round %d: the retry of RunPodSandbox: %v", round, err)
		}
		ctr := only(s) // a kubelet looks first: what has started already is not created again
		if ctr == "" {
			if ctr, err = s.Create(t.Context(), pod, story.Sleeper("c"), config); err != nil {
				t.Fatalf("round %d: the retry of CreateContainer: %v", round, err)
			}
		}
		if st, err := s.Status(t.Context(), ctr); err == nil && st.GetState() != running {
			if err := s.StartContainer(t.Context(), ctr); err != nil {
				t.Errorf("round %d: the retry of StartContainer: %v", round, err)
			}
		}
		if r, err := s.Exec(t.Context(), ctr, "hostname"); err != nil || strings.TrimSpace(string(r.GetStdout())) != config.GetHostname() {
			t.Errorf("round %d: %q (%v)", round, r.GetStdout(), err)
		}
		if err := s.RemovePodFully(t.Context(), pod); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
	}
}

// only is the id of the one container there is; empty if none is.
func only(s *story.Story) string {
	s.T.Helper()
	list, err := s.Containers(s.T.Context())
	if err != nil || len(list) > 1 {
		s.T.Fatalf("%d containers (%v)", len(list), err)
	}
	for _, c := range list {
		return c.GetId()
	}
	return ""
}

// Also when the crash meets a removal.
func TestCrashesDuringRemoval(t *testing.T) {
	s := alone(t)
	for round := range 8 {
		p := s.Pod(fmt.Sprintf("removal-%d", round))
		p.Go(story.Sleeper("c"))
		cri := s.CRI
		done := make(chan struct{})
		go func() { defer close(done); _ = cri.RemovePodFully(t.Context(), p.ID) }()
		time.Sleep(time.Duration(round*20) * time.Millisecond)
		inject.Crash(s)
		<-done
		inject.Again(s)
		if err := s.RemovePodFully(t.Context(), p.ID); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		if pods, err := s.Pods(t.Context()); err != nil || len(pods) != 0 {
			t.Errorf("round %d leaves %v (%v)", round, pods, err)
		}
	}
}

// With many pods the first list is there at once, and right.
func TestManyPodsAfterACrash(t *testing.T) {
	s := alone(t)
	const n = 20
	for i := range n {
		p := s.Pod(fmt.Sprintf("many-%d", i))
		p.Go(story.Sleeper(fmt.Sprintf("c-%d", i)))
	}
	inject.Crash(s)
	inject.Within(t, "the start", inject.Again(s), 5*time.Second)
	got := inject.States(s)
	for i := range n {
		if name := fmt.Sprintf("c-%d", i); got[name] != running {
			t.Errorf("%s is %s", name, got[name])
		}
	}
}

// Two daemons on one root would each be right alone, and wrong together: the second does not start, and the first does not notice.
func TestTwoDaemonsOnOneRoot(t *testing.T) {
	s := alone(t)
	p := s.Pod("owner")
	c := p.Go(story.Sleeper("c"))
	second := &harness.Daemon{Home: s.Home, Kind: harness.Crid{}}
	_ = second.Start(t.Context()) // the first one may answer in its place
	for deadline := time.Now().Add(5 * time.Second); second.Running() && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if second.Running() {
		t.Error("a second daemon runs on the same root")
	}
	if err := second.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := s.Version(t.Context()); err != nil {
		t.Errorf("the first one does not answer any more: %v", err)
	}
	c.WantState(running)
	c.Sh("true")
}
