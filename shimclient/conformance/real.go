package conformance

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	oci "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/crid-project/crid/shimclient"
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
	hush    func() // ends the serving of events
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
	if err := os.WriteFile(w.program, program(t), 0o755); err != nil {
		t.Fatal(err)
	}
	w.wrap(t, runc)
	w.Restart(t)
	return w
}

// Restart puts a new host in the place of the old one, as a new daemon would.
func (w *Real) Restart(t testing.TB) {
	t.Helper()
	if w.hush != nil {
		w.hush()
	}
	host, err := shimclient.NewHost(w.Config)
	if err != nil {
		t.Fatal(err)
	}
	w.Host = host
	t.Cleanup(func() { host.Close() })
	w.serve(t)
}

// serve takes events from shims, as a daemon that is up.
func (w *Real) serve(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- w.Host.Serve(ctx) }()
	w.hush = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve events: %v", err)
		}
	})
	t.Cleanup(w.hush)
}

// Launch implements World.
func (w *Real) Launch(t *testing.T, id string) shimclient.Tasks {
	t.Helper()
	l := w.Pod(t, id)
	shim, err := w.Host.Launch(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shim.Close() })
	return shim
}

// Pod implements World. No shim of that id is left at the end of the test.
func (w *Real) Pod(t testing.TB, id string) shimclient.Launch {
	l := shimclient.Launch{ID: id, Bundle: w.bundle(t, id, id, nil, "sleep"), Runtime: w.Runtime}
	t.Cleanup(func() { w.end(t, w.Host.Predict(l)) })
	return l
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
	return w.container(t, group, id, nil, args...)
}

func (w *Real) container(t *testing.T, group, id string, change func(*oci.Spec), args ...string) shimclient.Create {
	t.Helper()
	c := shimclient.Create{ID: id, Bundle: w.bundle(t, group, id, change, args...), Runtime: w.Runtime}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_ = w.DeleteTask(ctx, c) // most are gone by now
	})
	return c
}

func (w *Real) bundle(t testing.TB, group, id string, change func(*oci.Spec), args ...string) string {
	t.Helper()
	bundle := filepath.Join(w.bundles, id)
	rootfs := filepath.Join(bundle, "rootfs")
	for _, dir := range []string{filepath.Join(rootfs, "proc"), filepath.Join(rootfs, "dev")} {
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
	if change != nil {
		change(&spec)
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

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	if os.Getenv("CRID_TEST_LOG") != "" {
		os.Stderr.Write(p) // not t.Log: a shim may still say something when the test is over
	}
	return len(p), nil
}
