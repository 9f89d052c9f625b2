package conformance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	oci "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/pidfd"
)

// Signal implements World.
func (w *Real) Signal(t *testing.T, pid int, sig unix.Signal) {
	t.Helper()
	p, err := pidfd.Identify(pid)
	if err != nil {
		t.Fatal(err)
	}
	h, err := pidfd.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.Signal(sig); err != nil {
		t.Fatal(err)
	}
	if sig != unix.SIGSTOP {
		return
	}
	// Each thread stops when it gets to it, and until then goes on.
	for end := time.Now().Add(10 * time.Second); running(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("pid %d does not stop", pid)
		}
	}
}

// running tells whether any thread of a process is not stopped.
func running(pid int) bool {
	for _, path := range glob(fmt.Sprintf("/proc/%d/task/*/stat", pid)) {
		b, _ := os.ReadFile(path)
		_, rest, ok := strings.Cut(string(b), ") ")
		if ok && rest[0] != 'T' {
			return true
		}
	}
	return false
}

// Alive implements World.
func (w *Real) Alive(pid int) bool {
	_, err := pidfd.Identify(pid)
	return err == nil
}

// DeleteTask implements World.
func (w *Real) DeleteTask(ctx context.Context, c shimclient.Create) error {
	return w.Host.DeleteTask(ctx, w.Runtime, c.Bundle, c.ID)
}

// ForgetRuntimeState implements World.
func (w *Real) ForgetRuntimeState(t *testing.T, id string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(w.dir, "runc", w.Config.Namespace, id)); err != nil {
		t.Fatal(err)
	}
}

// Events implements World.
func (w *Real) Events() <-chan shimclient.Event { return w.Host.Events() }

// Shims implements World.
func (w *Real) Shims() shimclient.Shims { return w.Host.Shims() }

// Shared implements World.
func (w *Real) Shared(t *testing.T, group, id string, args ...string) shimclient.Create {
	t.Helper()
	return w.container(t, group, id, share, args...)
}

func share(s *oci.Spec) {
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n oci.LinuxNamespace) bool { return n.Type == oci.PIDNamespace })
}

// Stuck implements World.
func (w *Real) Stuck(t *testing.T, group, id string, shared bool, args ...string) (c shimclient.Create, hangs func(int) bool, let func()) {
	t.Helper()
	h := newHungFile(t)
	c = w.container(t, group, id, func(s *oci.Spec) {
		s.Mounts = append(s.Mounts, oci.Mount{Destination: "/hung", Type: "bind", Source: h.path, Options: []string{"bind"}})
		if shared {
			share(s)
		}
	}, args...)
	t.Cleanup(h.release) // before the container is cleaned away
	return c, func(int) bool { return h.reads.Load() > 0 }, h.release
}

// Identify implements World.
func (w *Real) Identify(pid int) (pidfd.Process, error) { return pidfd.Identify(pid) }

// Open implements World.
func (w *Real) Open(p pidfd.Process) (Handle, error) {
	h, err := pidfd.Open(p)
	if err != nil {
		return nil, err
	}
	return h, nil
}

// Freeze implements World.
func (w *Real) Freeze(t *testing.T, id string, frozen bool) {
	t.Helper()
	path := filepath.Join("/sys/fs/cgroup/freezer", w.cgroup, id, "freezer.state")
	if _, err := os.Stat(path); err != nil {
		t.Skip("needs the freezer of cgroup version 1: one of version 2 lets SIGKILL through, so that the fake's is the worse")
	}
	state := map[bool]string{true: "FROZEN", false: "THAWED"}[frozen]
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if err := os.WriteFile(path, []byte(state), 0); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(path); err != nil || strings.TrimSpace(string(b)) == state {
			return
		} else if time.Now().After(end) {
			t.Fatalf("%s says %s", path, b)
		}
	}
}

// Uproot implements World.
func (w *Real) Uproot(t *testing.T, id string) {
	t.Helper()
	for _, dir := range append(glob("/sys/fs/cgroup/*"+w.cgroup+"/"+id), glob("/sys/fs/cgroup"+w.cgroup+"/"+id)...) {
		if err := os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("THAWED"), 0); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
			t.Fatal(err)
		}
		b, err := os.ReadFile(dir + "/cgroup.procs")
		if err != nil {
			t.Fatal(err)
		}
		top := filepath.Dir(dir)
		if strings.Contains(dir, "/cpuset/") { // this one's parent has no processors of its own
			top = "/sys/fs/cgroup/cpuset"
		}
		for _, pid := range strings.Fields(string(b)) {
			if err := os.WriteFile(top+"/cgroup.procs", []byte(pid), 0); err != nil {
				t.Fatal(err)
			}
		}
		for end := time.Now().Add(10 * time.Second); os.Remove(dir) != nil; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("cgroup %s stays", dir)
			}
		}
	}
}

// Deaf implements World.
func (w *Real) Deaf(t *testing.T) (hear func()) {
	t.Helper()
	w.hush() // the socket's file stays, as after a SIGKILL
	return func() { w.serve(t) }
}

// Reboot implements World, as far as it can: the kernel goes on, and so do its
// pids.
func (w *Real) Reboot(t *testing.T) {
	t.Helper()
	hear := w.Deaf(t)
	for _, bundle := range glob(w.bundles + "/*") {
		ref := w.Host.Predict(shimclient.Launch{ID: filepath.Base(bundle), Bundle: bundle, Runtime: w.Runtime})
		w.end(t, ref)
	}
	w.removeCgroups(t)
	for _, dir := range glob(w.dir + "/*") {
		if dir == w.hands() || dir == w.program {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	hear()
	w.Restart(t) // makes the folder of the sockets
}

// RemoveBundle implements World.
func (w *Real) RemoveBundle(c shimclient.Create) error { return os.RemoveAll(c.Bundle) }

// Ready implements World.
func (w *Real) Ready(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return err == nil && strings.TrimSpace(string(b)) == "ready"
}
