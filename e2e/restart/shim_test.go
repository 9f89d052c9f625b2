//go:build e2e

package restart

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/faults/inject"
	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/story"
)

// A dead shim takes its pod with it: pipes and codes of the containers are lost, so they are ended, and nobody needs to ask for that.
// The zombie this prevents: containerd leaves the processes running and calls them exited.
func TestAShimIsKilled(t *testing.T) {
	s := alone(t)
	p, other := s.Pod("victim"), s.Pod("other")
	a, b := p.Go(story.Sleeper("a")), p.Go(story.Shell("b", "trap '' TERM; while :; do sleep 1; done"))
	made := p.Make(story.Sleeper("made"))
	done := p.Go(story.Shell("done", "exit 5"))
	bystander := other.Go(story.Sleeper("bystander"))
	done.Exited()
	pids := []int{a.Pid(), b.Pid()}
	inject.Signal(t, a.ShimPid(), syscall.SIGKILL)
	s.Eventually("the containers are dead and said to be, without a call", 10*time.Second, func() bool {
		got := inject.States(s)
		return got["a"] == exited && got["b"] == exited
	})
	for _, pid := range pids {
		if harness.Alive(pid) {
			t.Errorf("process %d of a container that is told to have exited lives", pid)
		}
	}
	if st := a.Status(); st.GetExitCode() != 137 || st.GetReason() == "OOMKilled" {
		t.Errorf("a: code %d, reason %q", st.GetExitCode(), st.GetReason())
	}
	if st := done.Status(); st.GetExitCode() != 5 {
		t.Errorf("what had ended before now has code %d", st.GetExitCode())
	}
	s.Eventually("the pod is not ready", 5*time.Second, func() bool { return p.Status().GetState() == notReady })
	if err := s.StartContainer(t.Context(), made.ID); err == nil {
		t.Error("a container starts in a pod without a shim")
	}
	bystander.WantState(running)
	bystander.Sh("true")
	if err := s.RemovePodFully(t.Context(), p.ID); err != nil {
		t.Error(err)
	}
}

// While a shim does not answer, its containers are what the kernel says, nobody else waits, and a stop comes through all the same.
func TestAShimHangs(t *testing.T) {
	s := alone(t)
	p, other := s.Pod("hung"), s.Pod("other")
	a, b := p.Go(story.Sleeper("a")), p.Go(story.Sleeper("b"))
	bystander := other.Go(story.Sleeper("bystander"))
	shim, pid := a.ShimPid(), b.Pid()
	inject.Signal(t, shim, syscall.SIGSTOP)
	for range 20 {
		start := time.Now()
		if got := inject.States(s); got["a"] != running || got["b"] != running {
			t.Fatalf("a hung shim is no death: %v", got)
		}
		inject.Within(t, "a list", time.Since(start), time.Second)
	}
	bystander.Sh("true")
	start := time.Now()
	if _, err := s.Runtime.ListContainerStats(t.Context(), &runtimeapi.ListContainerStatsRequest{}); err != nil {
		t.Errorf("statistics: %v", err)
	}
	inject.Within(t, "the statistics", time.Since(start), 5*time.Second)
	start = time.Now()
	_, err := s.Runtime.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: a.ID, Cmd: []string{"true"}, Timeout: 5})
	s.WantCode("exec through a hung shim", err, codes.DeadlineExceeded, codes.Unavailable)
	inject.Within(t, "the answer of exec", time.Since(start), 20*time.Second)

	inject.Signal(t, pid, syscall.SIGKILL) // the kernel's word is enough for an end
	s.Eventually("b's end, without its shim", 5*time.Second, func() bool { return inject.States(s)["b"] == exited })
	if st := b.Status(); st.GetExitCode() != 137 {
		t.Errorf("b ended with %d", st.GetExitCode())
	}
	inject.Within(t, "the stop", a.Stop(2), 35*time.Second)
	a.WantState(exited)
	start = time.Now()
	if err := s.RemovePodFully(t.Context(), p.ID); err != nil {
		t.Error(err)
	}
	inject.Within(t, "the removal", time.Since(start), 60*time.Second)
	if harness.Alive(shim) {
		t.Error("the hung shim lives on")
	}
}

// A shim that hangs when crid starts costs its own pod only.
func TestAHungShimAtTheStart(t *testing.T) {
	s := alone(t)
	p, other := s.Pod("hung"), s.Pod("other")
	a, bystander := p.Go(story.Sleeper("a")), other.Go(story.Sleeper("bystander"))
	shim := a.ShimPid()
	inject.Crash(s)
	inject.Signal(t, shim, syscall.SIGSTOP)
	inject.Within(t, "the start", inject.Again(s), 5*time.Second)
	if got := inject.States(s); got["a"] != running || got["bystander"] != running {
		t.Errorf("the first list: %v", got)
	}
	bystander.Sh("true")
	inject.Signal(t, shim, syscall.SIGCONT)
	s.Eventually("exec, now that the shim is back", 15*time.Second, func() bool {
		r, err := s.Exec(t.Context(), a.ID, "true")
		return err == nil && r.GetExitCode() == 0
	})
	a.Stop(2)
}

// The shim dies while nobody looks.
func TestAShimDiesWhileCridIsDown(t *testing.T) {
	s := alone(t)
	p := s.Pod("both")
	a := p.Go(story.Sleeper("a"))
	done := p.Go(story.Shell("done", "sleep 0.5; exit 7"))
	shim, pid := a.ShimPid(), a.Pid()
	inject.Crash(s)
	time.Sleep(time.Second)
	inject.Signal(t, shim, syscall.SIGKILL)
	inject.Again(s)
	s.Eventually("a is dead and said to be", 10*time.Second, func() bool { return inject.States(s)["a"] == exited && !harness.Alive(pid) })
	if got := inject.States(s)["done"]; got != exited {
		t.Errorf("done is %s", got)
	}
	if st := done.Status(); st.GetExitCode() == 0 {
		t.Errorf("done has code 0: its own was 7, and what nobody knows is 255")
	}
	s.Eventually("the pod is not ready", 5*time.Second, func() bool { return p.Status().GetState() == notReady })
	if err := s.RemovePodFully(t.Context(), p.ID); err != nil {
		t.Error(err)
	}
}

// Somebody tidies up /run: without the shim's socket the pod can still be stopped and removed.
func TestAShimsSocketIsGone(t *testing.T) {
	s := alone(t)
	p := s.Pod("socket")
	a := p.Go(story.Sleeper("a"))
	address, _ := a.Info("shimAddress").(string)
	path := strings.TrimPrefix(address, "unix://")
	if !strings.HasPrefix(path, s.Home.Dir) {
		t.Skipf("the shim's socket is not a file in the home: %q", address)
	}
	inject.Crash(s)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	inject.Within(t, "the start", inject.Again(s), 5*time.Second)
	if got := inject.States(s)["a"]; got != running {
		t.Errorf("a is %s, and the kernel says it runs", got)
	}
	inject.Within(t, "the stop", a.Stop(1), 35*time.Second)
	a.WantState(exited)
	if err := s.RemovePodFully(t.Context(), p.ID); err != nil {
		t.Error(err)
	}
}

// A record nobody can read, nor its copy, is put aside, its container's remains are swept, and everything else goes on.
func TestRecordsAreCorrupted(t *testing.T) {
	s := alone(t)
	p, other := s.Pod("corrupt"), s.Pod("other")
	a := p.Go(story.Sleeper("a"))
	p.Go(story.Sleeper("b"))
	bystander := other.Go(story.Sleeper("bystander"))
	pid := a.Pid()
	inject.Crash(s)
	for _, dir := range []string{filepath.Join(s.Home.Root(), "ledger"), filepath.Join(s.Home.State(), "records")} {
		hit := 0
		err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() || !strings.Contains(path, a.ID) {
				return err
			}
			hit++
			return os.WriteFile(path, []byte("\x00not a record\xff"), 0o600)
		})
		if err != nil || hit == 0 {
			t.Fatalf("found %d files of the container's record below %s: %v", hit, dir, err)
		}
	}
	inject.Within(t, "the start", inject.Again(s), 5*time.Second)
	got := inject.States(s)
	if got["b"] != running || got["bystander"] != running {
		t.Errorf("others after that: %v", got)
	}
	if _, there := got["a"]; !there {
		s.Eventually("the container that nobody knows is ended", 15*time.Second, func() bool { return !harness.Alive(pid) })
	}
	bystander.Sh("true")
	// the name can be used again
	if id, err := s.Run(t.Context(), p.ID, story.Sleeper("a"), p.Config); err != nil {
		t.Errorf("a container of that name: %v", err)
	} else if id == a.ID {
		t.Error("it has the id of the lost one")
	}
	if quarantined(t, s) == 0 {
		t.Error("the bad record is nowhere: it should be kept aside for people to look at")
	}
	clearQuarantine(t, s)
	inject.Crash(s)
	inject.Again(s)
}

func quarantined(t *testing.T, s *story.Story) int { t.Helper(); return len(aside(t, s)) }

func aside(t *testing.T, s *story.Story) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(s.Home.Root(), func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() && strings.Contains(path, "quarantine") {
			found = append(found, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// clearQuarantine is what a person does after a look; `crid check` reminds until then.
func clearQuarantine(t *testing.T, s *story.Story) {
	t.Helper()
	for _, f := range aside(t, s) {
		if err := os.Remove(f); err != nil {
			t.Error(err)
		}
		_ = os.Remove(filepath.Dir(f)) // fails while another one is there
	}
}

// All state is lost, as after a boot whose /run is empty: the daemon comes up, ends what it finds of its own, and starts anew.
func TestTheStateFolderIsLost(t *testing.T) {
	s := alone(t)
	p := s.Pod("reboot")
	a := p.Go(story.Sleeper("a"))
	shim, pid := a.ShimPid(), a.Pid()
	inject.Crash(s)
	inject.Signal(t, shim, syscall.SIGKILL)
	inject.Signal(t, pid, syscall.SIGKILL)
	if err := s.Home.LoseState(); err != nil {
		t.Fatal(err)
	}
	inject.Within(t, "the start", inject.Again(s), 5*time.Second)
	if got := inject.States(s); got["a"] != exited {
		t.Errorf("a container whose machine was lost is %s", got["a"])
	}
	s.Eventually("the pod is not ready", 10*time.Second, func() bool { return p.Status().GetState() == notReady })
	if err := s.RemovePodFully(t.Context(), p.ID); err != nil {
		t.Error(err)
	}
	q := s.Pod("reboot")
	q.Go(story.Sleeper("a")).Sh("true")
}
