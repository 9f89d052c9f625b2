package conformance

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/pidfd"
)

// end makes sure that no shim is left.
func (w *Real) end(t testing.TB, ref shimclient.Ref) {
	if err := w.Host.Kill(context.Background(), ref); err != nil {
		t.Errorf("clean up: %v", err)
	}
}

func (w *Real) cleanup(t testing.TB) {
	w.removeCgroups(t)
	if err := os.RemoveAll(w.dir); err != nil {
		t.Errorf("clean up: %v", err)
	}
}

// removeCgroups ends all processes of the world's containers.
func (w *Real) removeCgroups(t testing.TB) {
	for _, top := range append(glob("/sys/fs/cgroup/*"+w.cgroup), "/sys/fs/cgroup"+w.cgroup) {
		w.removeCgroup(t, top)
	}
}

func glob(pattern string) []string {
	found, _ := filepath.Glob(pattern)
	return found
}

func (w *Real) removeCgroup(t testing.TB, top string) {
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		children, _ := filepath.Glob(top + "/*/cgroup.procs")
		for _, procs := range append(children, top+"/cgroup.procs") {
			killAll(procs)
			os.Remove(filepath.Dir(procs))
		}
		if _, err := os.Stat(top); err != nil {
			return
		}
		if time.Now().After(end) {
			t.Errorf("clean up: cgroup %s stays", top)
			return
		}
	}
}

func killAll(procs string) {
	b, _ := os.ReadFile(procs)
	var pid int
	for rest := string(b); ; {
		n, err := fmt.Sscanf(rest, "%d\n", &pid)
		if n != 1 || err != nil {
			return
		}
		rest = rest[len(fmt.Sprintf("%d\n", pid)):]
		if p, err := pidfd.Identify(pid); err == nil {
			if h, err := pidfd.Open(p); err == nil {
				_ = h.Signal(unix.SIGKILL)
				h.Close()
			}
		}
	}
}
