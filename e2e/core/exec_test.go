//go:build e2e

package core

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/story"
)

func execSync(s *story.Story, id string, timeout int64, cmd ...string) (*runtimeapi.ExecSyncResponse, error) {
	return s.Runtime.ExecSync(s.T.Context(), &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: cmd, Timeout: timeout})
}

func TestExitCodesOfExec(t *testing.T) {
	s := story.Begin(t)
	c := s.Pod("exec").Go(story.Sleeper("c"))
	for line, want := range map[string]int32{"exit 0": 0, "exit 1": 1, "exit 255": 255, "kill -9 $$": 137, "kill -15 $$": 143} {
		r, err := execSync(s, c.ID, 10, "sh", "-c", "echo o; echo e >&2; "+line)
		if err != nil || r.GetExitCode() != want || string(r.GetStdout()) != "o\n" || string(r.GetStderr()) != "e\n" {
			t.Errorf("%s: %d, %q, %q (%v)", line, r.GetExitCode(), r.GetStdout(), r.GetStderr(), err)
		}
	}
	if _, err := execSync(s, c.ID, 10, "/no/such/program"); err == nil {
		t.Error("a program that is not there runs")
	}
	if _, err := execSync(s, unknown, 10, "true"); err == nil {
		t.Error("exec in a container that is not there")
	} else {
		s.WantCode("exec in no container", err, codes.NotFound)
	}
	r, err := execSync(s, c.ID, 10, "sh", "-c", "id -u; pwd; cat; echo $PATH")
	if err != nil || !strings.HasPrefix(string(r.GetStdout()), "0\n/\n/") {
		t.Errorf("user, directory, empty input, path: %q (%v)", r.GetStdout(), err)
	}
}

// A probe that hangs must end: the kubelet's worker would hang with it, and the process would stay for ever.
func TestExecEndsAtItsTimeout(t *testing.T) {
	s := story.Begin(t)
	c := s.Pod("timeout").Go(story.Sleeper("c"))
	start := time.Now()
	_, err := execSync(s, c.ID, 1, "sh", "-c", "trap '' TERM; exec sleep 7777")
	s.WantCode("an exec over its time", err, codes.DeadlineExceeded)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("a second of timeout took %s", took)
	}
	s.Eventually("the process is gone", 5*time.Second, func() bool { n, _ := c.Try("pgrep -f '^sleep 7777'"); return n != 0 })
	c.WantState(running)
}

// A process that a probe leaves behind holds the pipes open; the answer must not wait for it.
func TestAChildInTheBackgroundDoesNotHoldTheAnswer(t *testing.T) {
	s := story.Begin(t)
	c := s.Pod("background").Go(story.Sleeper("c"))
	start := time.Now()
	r, err := execSync(s, c.ID, 20, "sh", "-c", "sleep 30 & echo started")
	if err != nil || string(r.GetStdout()) != "started\n" || r.GetExitCode() != 0 {
		t.Errorf("%d, %q (%v)", r.GetExitCode(), r.GetStdout(), err)
	}
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("the answer took %s: it waited for the child", took)
	}
	c.Sh("pkill -f '^sleep 30'; true")
}

// Output is bounded at 16 MiB in all: a probe that prints for ever must cost neither the daemon's memory nor the answer.
func TestMuchOutputOfExecIsCut(t *testing.T) {
	s := story.Begin(t)
	c := s.Pod("cap").Go(story.Sleeper("c"))
	r, err := execSync(s, c.ID, 60, "sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x")
	if err != nil || len(r.GetStdout()) != 3000000 || bytes.Count(r.GetStdout(), []byte("x")) != 3000000 {
		t.Errorf("3000000 bytes: %d came (%v)", len(r.GetStdout()), err)
	}
	r, err = execSync(s, c.ID, 60, "sh", "-c", "head -c 40000000 /dev/zero; exit 3")
	if n := len(r.GetStdout()); err != nil || n > 16<<20 || n < 15<<20 || r.GetExitCode() != 3 {
		t.Errorf("40000000 bytes: %d came, exit code %d (%v)", n, r.GetExitCode(), err)
	}
}

func TestManyExecsAtOnce(t *testing.T) {
	s := story.Begin(t)
	c := s.Pod("many").Go(story.Sleeper("c"))
	for _, err := range story.AtOnce(24, func(n int) error {
		r, err := execSync(s, c.ID, 30, "sh", "-c", fmt.Sprintf("echo %d; exit %d", n, n))
		if err == nil && (string(r.GetStdout()) != fmt.Sprintf("%d\n", n) || r.GetExitCode() != int32(n)) {
			err = fmt.Errorf("exec %d answers %d, %q", n, r.GetExitCode(), r.GetStdout())
		}
		return err
	}) {
		if err != nil {
			t.Error(err)
		}
	}
}

// The end of the container is the end of its execs.
func TestExecEndsWithItsContainer(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("end")
	c := p.Go(story.Sleeper("c"))
	answer := make(chan error, 1)
	go func() {
		r, err := execSync(s, c.ID, 60, "sleep", "50")
		if err == nil && r.GetExitCode() == 0 {
			err = fmt.Errorf("it says it ended well")
		} else {
			err = nil
		}
		answer <- err
	}()
	s.Eventually("the exec runs", 5*time.Second, func() bool { n, _ := c.Try("pgrep -f '^sleep 50'"); return n == 0 })
	c.Stop(1)
	select {
	case err := <-answer:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("an exec outlives its container")
	}
	_, err := execSync(s, c.ID, 5, "true")
	s.WantCode("exec in an exited container", err, codes.FailedPrecondition)
	made := p.Make(story.Sleeper("made"))
	_, err = execSync(s, made.ID, 5, "true")
	s.WantCode("exec in a container that was not started", err, codes.FailedPrecondition)
}

// An exec runs as the container does.
func TestExecHasTheContainersRights(t *testing.T) {
	s := story.Begin(t)
	config := story.Sleeper("c")
	config.Envs = []*runtimeapi.KeyValue{{Key: "MINE", Value: []byte("yes")}}
	config.WorkingDir = "/tmp"
	sc := config.Linux.SecurityContext
	sc.RunAsUser, sc.RunAsGroup, sc.SupplementalGroups, sc.NoNewPrivs = &runtimeapi.Int64Value{Value: 1234}, &runtimeapi.Int64Value{Value: 2345}, []int64{77}, true
	sc.Capabilities = &runtimeapi.Capability{DropCapabilities: []string{"ALL"}}
	c := s.Pod("rights").Go(config)
	got := c.Sh("id -u; id -g; id -G; pwd; echo $MINE; grep -E 'CapBnd|NoNewPrivs|^Seccomp:' /proc/self/status")
	for _, want := range []string{"1234\n2345\n", "77", "/tmp\nyes\n", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"} {
		if !strings.Contains(got, want) {
			t.Errorf("an exec lacks %q: %q", want, got)
		}
	}
}
