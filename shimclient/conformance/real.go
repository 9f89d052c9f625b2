package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	oci "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/pidfd"
)

// Real is a world of real shims and runc, for root only. Everything it makes is
// gone at the end of the test.
type Real struct {
	Host    *shimclient.Host
	Config  shimclient.HostConfig
	Runtime shimclient.Runtime

	dir     string
	bundles string
	program string
	cgroup  string
}

// Binary returns the path of a binary the tests need, from $CRID_TEST_BIN or
// the project's bin directory, or skips the test by name and reason.
func Binary(t testing.TB, name string) string {
	t.Helper()
	dirs := []string{os.Getenv("CRID_TEST_BIN")}
	if _, file, _, ok := runtime.Caller(0); ok {
		dirs = append(dirs, filepath.Join(filepath.Dir(file), "..", "..", "bin"))
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		if fi, err := os.Stat(path); dir != "" && err == nil && fi.Mode().IsRegular() {
			return path
		}
	}
	t.Skipf("needs %s: not in $CRID_TEST_BIN nor in bin (make builds it)", name)
	return ""
}

// NewReal makes a world, or skips the test.
func NewReal(t testing.TB) *Real {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: shims and runc make containers")
	}
	shim, runc := Binary(t, "containerd-shim-runc-v2"), Binary(t, "runc")
	// Not t.TempDir: a socket's path has to be short.
	dir, err := os.MkdirTemp("", "crid")
	if err != nil {
		t.Fatal(err)
	}
	w := &Real{
		dir: dir, bundles: filepath.Join(dir, "b"), program: filepath.Join(dir, "task"),
		cgroup: "/crid-test-" + filepath.Base(dir),
		Config: shimclient.HostConfig{
			State: dir, Address: filepath.Join(dir, "crid.sock"), Namespace: "crid-test",
			Log: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
		},
		Runtime: shimclient.Runtime{
			Name: "runc", Type: "io.containerd.runc.v2", Path: shim,
			Options: map[string]any{"BinaryName": runc, "Root": filepath.Join(dir, "runc")},
		},
	}
	t.Cleanup(func() { w.cleanup(t) })
	build := exec.CommandContext(t.Context(), "go", "build", "-o", w.program, "github.com/crid-project/crid/shimclient/conformance/task")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the containers' program: %v\n%s", err, out)
	}
	w.Restart(t)
	return w
}

// Restart puts a new host in the place of the old one, as a new daemon would.
func (w *Real) Restart(t testing.TB) {
	t.Helper()
	host, err := shimclient.NewHost(w.Config)
	if err != nil {
		t.Fatal(err)
	}
	w.Host = host
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- host.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve events: %v", err)
		}
		host.Close()
	})
}

// Launch implements World.
func (w *Real) Launch(t *testing.T, id string) shimclient.Tasks {
	t.Helper()
	l := w.Pod(t, id)
	t.Cleanup(func() { w.end(t, w.Host.Predict(l)) })
	shim, err := w.Host.Launch(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shim.Close() })
	return shim
}

// Pod makes the bundle of a shim and says how to launch it.
func (w *Real) Pod(t testing.TB, id string) shimclient.Launch {
	return shimclient.Launch{ID: id, Bundle: w.bundle(t, id, id, []string{"sleep"}), Runtime: w.Runtime}
}

// Adopt implements World.
func (w *Real) Adopt(ctx context.Context, ref shimclient.Ref) (shimclient.Tasks, error) {
	s, err := w.Host.Adopt(ctx, ref)
	if s == nil {
		return nil, err
	}
	return s, err
}

// Container implements World.
func (w *Real) Container(t *testing.T, group, id string, args ...string) shimclient.Create {
	t.Helper()
	c := shimclient.Create{ID: id, Bundle: w.bundle(t, group, id, args), Runtime: w.Runtime}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_ = w.DeleteTask(ctx, c) // most are gone by now
	})
	return c
}

func (w *Real) bundle(t testing.TB, group, id string, args []string) string {
	t.Helper()
	bundle := filepath.Join(w.bundles, id)
	rootfs := filepath.Join(bundle, "rootfs")
	for _, dir := range []string{rootfs, filepath.Join(rootfs, "proc"), filepath.Join(rootfs, "dev")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(w.program, filepath.Join(rootfs, "task")); err != nil && !os.IsExist(err) {
		t.Fatal(err)
	}
	spec := oci.Spec{
		Version: oci.Version,
		Process: &oci.Process{Args: append([]string{"/task"}, args...), Cwd: "/", Env: []string{"GOMAXPROCS=1"}},
		Root:    &oci.Root{Path: "rootfs"},
		Mounts: []oci.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=755"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666"}},
		},
		Annotations: map[string]string{"io.kubernetes.cri.sandbox-id": group},
		Linux: &oci.Linux{
			CgroupsPath: w.cgroup + "/" + id,
			Namespaces: []oci.LinuxNamespace{
				{Type: oci.PIDNamespace}, {Type: oci.IPCNamespace}, {Type: oci.UTSNamespace},
				{Type: oci.MountNamespace}, {Type: oci.NetworkNamespace},
			},
		},
	}
	b, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return bundle
}

// Process is what an exec of args needs.
func Process(args ...string) *oci.Process {
	return &oci.Process{Args: append([]string{"/task"}, args...), Cwd: "/", Env: []string{"GOMAXPROCS=1"}}
}

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

// end makes sure that no shim is left.
func (w *Real) end(t testing.TB, ref shimclient.Ref) {
	if err := w.Host.Kill(context.Background(), ref); err != nil {
		t.Errorf("clean up: %v", err)
	}
}

func (w *Real) cleanup(t testing.TB) {
	hierarchies, _ := filepath.Glob("/sys/fs/cgroup/*" + w.cgroup)
	for _, top := range append(hierarchies, "/sys/fs/cgroup"+w.cgroup) {
		w.removeCgroup(t, top)
	}
	if err := os.RemoveAll(w.dir); err != nil {
		t.Errorf("clean up: %v", err)
	}
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

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	if os.Getenv("CRID_TEST_LOG") != "" {
		os.Stderr.Write(p) // not t.Log: a shim may still say something when the test is over
	}
	return len(p), nil
}
