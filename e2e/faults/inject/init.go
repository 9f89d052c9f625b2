package inject

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// InsideEnv is set in a test that runs in a process namespace of its own.
const InsideEnv = "CRID_FAULTS_INSIDE"

// InOwnPids runs the test anew in process and mount namespaces of its own, where pids can be given away at will, and tells whether the caller is
// the one inside. The one outside takes over its verdict. It starts at process 1's child: process 1 reaps orphans, as an init does.
func InOwnPids(t *testing.T) bool {
	t.Helper()
	if os.Getenv(InsideEnv) == t.Name() {
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: runs containers")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), asInit)
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), link, self, "-test.run", "^"+t.Name()+"$", "-test.v", "-test.timeout", "3m")
	cmd.Env = append(os.Environ(), InsideEnv+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	t.Logf("inside:\n%s", out)
	if err != nil {
		t.Errorf("inside: %v", err)
	}
	return false
}

// initProcess is process 1 of a namespace: it runs one program and reaps whoever ends.
func initProcess(args []string) int {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		fmt.Fprintln(os.Stderr, "init: make mounts private:", err)
		return 98
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		fmt.Fprintln(os.Stderr, "init: mount /proc:", err)
		return 98
	}
	child, err := syscall.ForkExec(args[0], args, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	if err != nil {
		fmt.Fprintln(os.Stderr, "init:", err)
		return 98
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			fmt.Fprintln(os.Stderr, "init: wait:", err)
			return 98
		case pid == child && status.Signaled():
			return 128 + int(status.Signal())
		case pid == child:
			return status.ExitStatus()
		}
	}
}

// GivePid makes the kernel give a pid of this process namespace to a new process, which sleeps until the end of the test. The pid must be free.
func GivePid(t *testing.T, pid int) *exec.Cmd {
	t.Helper()
	for range 50 {
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(fmt.Sprint(pid-1)), 0o600); err != nil {
			t.Skipf("needs leave to choose the next pid: %v", err)
		}
		cmd := exec.CommandContext(t.Context(), "sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { _ = cmd.Wait() }() // so that its death shows
		if cmd.Process.Pid == pid {
			t.Cleanup(func() { _ = cmd.Process.Kill() })
			return cmd
		}
		_ = cmd.Process.Kill() // somebody else was quicker
	}
	t.Fatalf("pid %d cannot be had", pid)
	return nil
}
