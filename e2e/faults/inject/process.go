package inject

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/story"
)

// Signal sends a signal to a process that the test knows to be its own: a shim or a container's first process.
func Signal(t testing.TB, pid int, sig syscall.Signal) {
	t.Helper()
	if pid < 2 {
		t.Fatalf("no process %d of a test's own", pid)
	}
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatalf("%s to %d: %v", sig, pid, err)
	}
}

// Stop stops a process until the end of the test, or until it is continued before.
func Stop(t testing.TB, pid int) {
	t.Helper()
	start := StartTime(t, pid)
	Signal(t, pid, syscall.SIGSTOP)
	t.Cleanup(func() {
		if harness.Alive(pid) && StartTime(t, pid) == start {
			_ = syscall.Kill(pid, syscall.SIGCONT) // it may just have ended
		}
	})
}

// StartTime tells one process from another that got the same pid; empty if there is none.
func StartTime(t testing.TB, pid int) string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	return strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))[19]
}

// State is the kernel's letter for what a process does: R, S, D, T, Z; empty if there is none.
func State(pid int) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	return strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))[0]
}

// Crash ends the daemon without a word.
func Crash(s *story.Story) {
	s.T.Helper()
	if err := s.Kill(); err != nil {
		s.T.Fatal(err)
	}
}

// Again starts it, and tells how long that took.
func Again(s *story.Story) time.Duration {
	s.T.Helper()
	start := time.Now()
	if err := s.Daemon.Start(s.T.Context()); err != nil {
		s.T.Fatal(err)
	}
	return time.Since(start)
}

// Procs are the processes of a container in one v1 controller, or on v2.
func Procs(c *story.Container, controller string) []int {
	c.Pod.T.Helper()
	data, err := os.ReadFile(filepath.Join(c.CgroupDir(controller), "cgroup.procs"))
	if err != nil {
		c.Pod.T.Fatal(err)
	}
	var pids []int
	for f := range strings.FieldsSeq(string(data)) {
		if pid, err := strconv.Atoi(f); err == nil && pid > 1 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Write writes a file of the kernel's, such as a cgroup's.
func Write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// traced tells whether all threads of a process have a tracer.
func traced(pid int) bool {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(files) == 0 {
		return false
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err == nil && strings.Contains(string(data), "TracerPid:\t0\n") {
			return false
		}
	}
	return true
}
