package inject

import (
	"context"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"

	"github.com/crid-project/crid/e2e/story"
)

// Tasks talks to the shim of a container behind crid's back, as any root process can.
func Tasks(c *story.Container) task.TTRPCTaskService {
	c.Pod.T.Helper()
	address, _ := c.Info("shimAddress").(string)
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(c.Pod.T.Context(), "unix", strings.TrimPrefix(address, "unix://"))
	if err != nil {
		c.Pod.T.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	c.Pod.T.Cleanup(func() { client.Close() })
	return task.NewTTRPCTaskClient(client)
}

// Slow makes a process slow in one kind of system call, until the end of the test or of the function that is answered. The test is skipped where
// that is not possible.
func Slow(t testing.TB, pid int, call string, delay time.Duration) (end func()) {
	t.Helper()
	program, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("needs strace, to slow a system call down")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, "-f", "-q", "-o", "/dev/null", "-e", "trace="+call,
		"-e", "inject="+call+":delay_enter="+strconv.FormatInt(delay.Microseconds(), 10), "-p", strconv.Itoa(pid))
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) } // it lets go of the process
	cmd.WaitDelay = delay + 10*time.Second
	if err := cmd.Start(); err != nil {
		cancel()
		t.Skipf("needs strace, to slow a system call down: %v", err)
	}
	end = func() { cancel(); _ = cmd.Wait() } // it was told to end
	t.Cleanup(end)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if traced(pid) {
			return end
		}
		if cmd.ProcessState != nil || time.Now().After(deadline) {
			t.Skip("needs leave to trace processes, to slow a system call down")
		}
	}
}
