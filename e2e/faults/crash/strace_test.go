//go:build e2e

package crash

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crid-project/crid/e2e/harness"
)

// The program that users run has no failpoints. So a few crashes come from outside, without any help of its own: strace sends it SIGKILL at its first
// system call of a kind, which stands for the point named beside it. Only calls for which the daemon runs no program up to that moment: it would be
// followed, too.
var syscalls = []struct {
	rpc, syscall, point string
}{
	{"RunPodSandbox", "mount", "p7"},
	{"CreateContainer", "mount", "c3"},
	{"CreateContainer", "mknodat", "c5"},
	{"StartContainer", "pidfd_open", "s5"},
	{"StopContainer", "pidfd_send_signal", "t1"},
	{"RemoveContainer", "unlinkat", "r2"},
	{"PullImage", "renameat", "i4"},
	{"RemoveImage", "unlinkat", "j1"},
}

func TestTheReleasedProgramUnderStrace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: runs containers")
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("needs strace (make deps)")
	}
	if why := untraceable(t, strace); why != "" {
		t.Skip("processes may not be traced here: " + why)
	}
	chosen := syscalls
	if os.Getenv("CRID_FAULTS") != "all" {
		at := seed(t) % uint64(len(syscalls))
		chosen = syscalls[at : at+1]
	}
	var n *node
	defer func() { n.end(t) }()
	for _, c := range chosen {
		t.Run(c.rpc+"/"+c.syscall, func(t *testing.T) {
			n = n.ready(t, func(string) harness.Kind { return harness.Crid{} })
			n.traced(t, strace, c.syscall, run{rpc: c.rpc, at: pointOf(t, c.point), variant: kill})
		})
	}
}

func pointOf(t *testing.T, name string) point {
	t.Helper()
	for _, c := range calls {
		for _, p := range c.points {
			if p.name == name {
				return p
			}
		}
	}
	t.Fatalf("no point %s", name)
	return point{}
}

// untraceable tells why strace cannot follow a process and send it signals; empty if it can.
func untraceable(t *testing.T, strace string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), strace, "-qq", "-o", "/dev/null", "-e", "trace=chdir", "-e", "inject=chdir:signal=SIGKILL", "sh", "-c", "cd /").CombinedOutput()
	if err == nil {
		return "a signal that strace sends does nothing"
	}
	if text := strings.TrimSpace(string(out)); text != "" {
		return text
	}
	return ""
}

// traced has the daemon killed at its first system call of a kind during a call.
func (n *node) traced(t *testing.T, strace, syscall string, r run) {
	n.spoilt = true
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("killed at %s\nthe end of the daemon's log:\n%s", syscall, n.tail())
		}
	})
	s := scenes[r.rpc](n, r)
	s.set(t)
	var said bytes.Buffer
	cmd := exec.CommandContext(t.Context(), strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace="+syscall, "-e", "inject="+syscall+":signal=SIGKILL", "-p", fmt.Sprint(n.Pid()))
	cmd.Stderr, cmd.WaitDelay = &said, 5*time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	eventually(t, "strace follows the daemon "+said.String(), 20*time.Second, func() bool { return followed(n.Pid()) })
	answer, cancel := within(patience, s.call)
	defer cancel()
	n.dead(t)
	err := <-answer
	n.again(t)
	s.crashed(t, err == nil)
	if t.Failed() {
		return
	}
	repeat(t, s)
	s.done(t)
	n.clean(t)
	n.spoilt = t.Failed()
}

// followed tells whether every thread of a process has a tracer.
func followed(pid int) bool {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(files) == 0 {
		return false
	}
	for _, f := range files {
		if text := read(f); text != "" && strings.Contains(text, "TracerPid:\t0\n") {
			return false
		}
	}
	return true
}
