package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"go.uber.org/goleak"

	"github.com/crid-project/crid/cni"
	"github.com/crid-project/crid/container"
	"github.com/crid-project/crid/container/plan"
	"github.com/crid-project/crid/image"
	"github.com/crid-project/crid/sandbox"
	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/pidfd"
	"github.com/crid-project/crid/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const boot = "this boot"

func id(n int) string { return fmt.Sprintf("%064x", n) }

type sealed []byte

func (s sealed) Marshal() ([]byte, error) { return s, nil }

// world is everything that a Reconciler looks at, and a diary of what it did.
type world struct {
	*Reconciler
	t           *testing.T
	state, root string
	ledgerDir   string

	closed sync.Once
	mu     sync.Mutex
	diary  []string
	rootfs []string
	// full are cgroups with a process in them, hardy those in which it survives SIGKILL.
	full, hardy map[string]bool
	gcErr       error
	repairs     []string
	born        func() // before root file systems are listed
}

func (w *world) did(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.diary = append(w.diary, fmt.Sprintf(format, args...))
}

// index is the place of an entry in the diary, -1 if it is not there.
func (w *world) index(entry string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Index(w.diary, entry)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{t: t, state: filepath.Join(dir, "state"), root: filepath.Join(dir, "root"), ledgerDir: filepath.Join(dir, "root", "ledger"),
		full: map[string]bool{}, hardy: map[string]bool{}}
	log := slog.New(slog.DiscardHandler)
	open := func(b []byte) (store.Sealed, error) { return sealed(b), nil }
	l, lost, err := store.Open(store.Config{Dir: w.ledgerDir, Boot: boot, OpenPod: open, OpenContainer: open, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	k := kernel{w}
	rt := shimclient.Runtime{Name: "runc", Options: map[string]any{"Root": filepath.Join(w.state, "runc")}}
	pods := sandbox.New(sandbox.Config{Ledger: l, Host: host{w}, Networks: networks{w}, Kernel: k, Handlers: handlers{rt}, StateDir: w.state,
		Handler: func(string) (sandbox.Handler, error) { return sandbox.Handler{Runtime: rt}, nil }, CgroupDriver: "cgroupfs", Log: log})
	containers := container.New(container.Config{Ledger: l, Shims: pods, Handlers: handlers{rt}, Images: images{w}, Kernel: k, StateDir: w.state,
		RootDir: w.root, CgroupDriver: "cgroupfs", Log: log})
	pods.Members = containers
	w.Reconciler = New(Config{Ledger: l, Lost: lost, Pods: pods, Containers: containers, Networks: networks{w}, Images: images{w}, Shims: host{w},
		Kernel: k, Runtimes: []shimclient.Runtime{rt}, StateDir: w.state, RootDir: w.root, CgroupParent: "/crid-no-such-parent",
		Repaired: func(kind string) { w.mu.Lock(); defer w.mu.Unlock(); w.repairs = append(w.repairs, kind) }, Log: log})
	t.Cleanup(w.close)
	return w
}

func (w *world) close() { w.closed.Do(w.doClose) }

func (w *world) doClose() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	w.Containers.Close(ctx)
	w.Pods.Close(ctx)
	w.Ledger.Close()
}

// folder makes a folder with a file in it.
func (w *world) folder(parts ...string) string {
	w.t.Helper()
	dir := filepath.Join(parts...)
	w.file(filepath.Join(dir, "file"), "content")
	return dir
}

func (w *world) file(path, content string) {
	w.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// bundle makes the bundle of a container that runs in a cgroup.
func (w *world) bundle(n int, cgroup string) string {
	w.t.Helper()
	dir := w.folder(w.state, "containers", id(n))
	w.file(filepath.Join(dir, "config.json"), `{"ociVersion":"1.2.0","linux":{"cgroupsPath":"`+cgroup+`"}}`)
	return dir
}

func (w *world) stays(paths ...string) {
	w.t.Helper()
	for _, p := range paths {
		if _, err := os.Lstat(p); err != nil {
			w.t.Errorf("%s is gone", strings.TrimPrefix(p, filepath.Dir(w.state)))
		}
	}
}

func (w *world) goes(paths ...string) {
	w.t.Helper()
	for _, p := range paths {
		if _, err := os.Lstat(p); err == nil {
			w.t.Errorf("%s is left", strings.TrimPrefix(p, filepath.Dir(w.state)))
		}
	}
}

// pod puts a pod on record, as change would have it.
func (w *world) pod(n int, change func(*store.Pod)) *store.Pod {
	w.t.Helper()
	p := &store.Pod{ID: id(n), Name: store.PodName{Name: id(n)}, Handler: "runc", Config: sealed("p")}
	w.Ledger.AddPod(p)
	p, err := w.Ledger.UpdatePod(p.ID, change)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

func (w *world) member(n, of int, change func(*store.Container)) *store.Container {
	w.t.Helper()
	c := &store.Container{ID: id(n), PodID: id(of), Name: store.ContainerName{Name: id(n)}, Handler: "runc", Config: sealed("c")}
	w.Ledger.AddContainer(c)
	c, err := w.Ledger.UpdateContainer(c.ID, change)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// dead is a process that was.
func dead() store.Process { return store.Process{Pid: 1 << 21, StartTime: 12345} }

// living is a process that lives until the end of the test.
func livingProcess(t *testing.T) store.Process {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	p, err := pidfd.Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return store.Process{Pid: p.Pid, StartTime: p.StartTime}
}

type handlers struct{ rt shimclient.Runtime }

func (h handlers) Runtime(string) (shimclient.Runtime, error) { return h.rt, nil }
func (handlers) Kernel(string) plan.Kernel                    { return plan.Kernel{} }

// kernel is a machine without mounts, whose cgroups are the world's; processes
// are the real ones.
type kernel struct{ w *world }

func (kernel) Identify(pid int) (pidfd.Process, error) { return pidfd.Identify(pid) }
func (kernel) Open(p pidfd.Process) (container.Proc, error) {
	h, err := pidfd.Open(p)
	if err != nil {
		return nil, err
	}
	return h, nil
}
func (kernel) Watch(container.Proc, func()) error { return nil } // every event is lost
func (k kernel) Cgroup(path string) container.Cgroup {
	return group{k.w, path}
}

func (k kernel) Unmount(path string) error {
	k.w.did("unmount %s", path)
	return nil
}
func (kernel) Mount([]image.Mount, string) error { return nil }
func (kernel) Mounts(string) ([]string, error)   { return nil, nil }
func (kernel) MakeCgroup(string) error           { return nil }
func (kernel) CgroupChildren(string) []string    { return nil }
func (kernel) RuntimeInit(int) bool              { return false }
func (kernel) Now() int64                        { return time.Now().UnixNano() }

type group struct {
	w    *world
	path string
}

func (g group) Populated() (bool, error) {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	return g.w.full[g.path], nil
}
func (g group) Procs() ([]int, error) { return nil, nil }
func (g group) Kill() error {
	g.w.did("kill %s", g.path)
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	if !g.w.hardy[g.path] {
		delete(g.w.full, g.path)
	}
	return nil
}
func (g group) Thaw() error               { return nil }
func (g group) OOMKills() (uint64, error) { return 0, nil }
func (g group) Remove(context.Context) error {
	g.w.did("rmdir %s", g.path)
	return nil
}

type networks struct{ w *world }

func (networks) Prepare(cni.Attachment) ([]byte, error) { return nil, nil }
func (networks) Add(context.Context, cni.Attachment, []byte) (*cni.Result, error) {
	return nil, errdefs.ErrNotImplemented
}
func (n networks) Del(_ context.Context, a cni.Attachment, _ []byte) error {
	n.w.did("del %s", a.ID)
	return nil
}

func (n networks) GC(_ context.Context, valid []cni.Attachment) error {
	ids := []string{"gc"}
	for _, a := range valid {
		ids = append(ids, a.ID)
	}
	slices.Sort(ids[1:])
	n.w.did("%s", strings.Join(ids, " "))
	return n.w.gcErr
}

type images struct{ w *world }

func (images) Resolve(string) (image.Image, error) { return image.Image{}, errdefs.ErrNotFound }
func (images) PrepareRootfs(context.Context, string, image.Image, image.RootfsOptions) (image.Rootfs, error) {
	return image.Rootfs{}, errdefs.ErrNotImplemented
}
func (images) MountImage(context.Context, string, image.Image, string, string) error {
	return errdefs.ErrNotImplemented
}
func (images) UnmountImage(context.Context, string) error { return nil }
func (i images) Rootfses() []string {
	if i.w.born != nil {
		i.w.born()
	}
	i.w.mu.Lock()
	defer i.w.mu.Unlock()
	return slices.Clone(i.w.rootfs)
}

func (i images) RemoveRootfs(_ context.Context, id string) error {
	i.w.did("rootfs %s", id)
	i.w.mu.Lock()
	defer i.w.mu.Unlock()
	i.w.rootfs = slices.DeleteFunc(i.w.rootfs, func(s string) bool { return s == id })
	return nil
}

type host struct{ w *world }

func (host) Predict(l shimclient.Launch) shimclient.Ref {
	return shimclient.Ref{ID: l.ID, Bundle: l.Bundle}
}
func (host) Launch(context.Context, shimclient.Launch) (shimclient.Tasks, error) {
	return nil, errdefs.ErrNotImplemented
}
func (host) Adopt(context.Context, shimclient.Ref) (shimclient.Tasks, error) {
	return nil, errors.New("no shim here")
}
func (host) DeleteTask(context.Context, shimclient.Runtime, string, string) error { return nil }
func (host) KillStuckCommands(context.Context, shimclient.Ref, string, time.Duration) (int, error) {
	return 0, nil
}
func (h host) Kill(_ context.Context, ref shimclient.Ref) error {
	h.w.did("shim %s", ref.ID)
	return nil
}
