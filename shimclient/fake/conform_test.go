package fake_test

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/conformance"
	"github.com/crid-project/crid/shimclient/fake"
	"github.com/crid-project/crid/shimclient/pidfd"
)

func TestFakeShimConforms(t *testing.T) {
	conformance.Run(t, synctest.Test, func(*testing.T) conformance.World {
		w := &world{World: fake.NewWorld(), slow: map[string]time.Duration{}, removed: map[string]bool{}}
		w.SetFault(w.fault)
		w.SetHooks(fake.Hooks{Bundle: w.there, Folder: w.there})
		return w
	})
}

// world is a fake one for the conformance suite, which has no use for accidents.
type world struct {
	*fake.World
	mu      sync.Mutex
	slow    map[string]time.Duration // by command and container
	removed map[string]bool          // bundles
}

func (w *world) there(bundle string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.removed[bundle]
}

func (w *world) fault(c fake.Call) fake.Fault {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := strings.ToLower(c.Method) + c.ID
	d := w.slow[key]
	delete(w.slow, key)
	return fake.Fault{Late: d}
}

func (w *world) Slow(_ *testing.T, command, id string, d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slow[command+id] = d
}

func (w *world) Pod(_ testing.TB, id string) shimclient.Launch {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.removed, "/b/"+id)
	return shimclient.Launch{ID: id, Bundle: "/b/" + id}
}

func (w *world) Launch(t *testing.T, id string) shimclient.Tasks {
	t.Helper()
	s, err := w.World.Launch(t.Context(), w.Pod(t, id))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (w *world) Adopt(ctx context.Context, ref shimclient.Ref) (shimclient.Tasks, error) {
	return w.Shims().Adopt(ctx, ref)
}

func (w *world) Container(t *testing.T, _, id string, args ...string) shimclient.Create {
	w.Pod(t, id)
	w.SetProgram(id, args...)
	return shimclient.Create{ID: id, Bundle: filepath.Join("/b", id)}
}

func (w *world) Shared(t *testing.T, group, id string, args ...string) shimclient.Create {
	w.SharePID(id)
	return w.Container(t, group, id, args...)
}

func (w *world) Stuck(t *testing.T, group, id string, shared bool, args ...string) (c shimclient.Create, hangs func(int) bool, let func()) {
	var p *fake.Process
	hangs = func(pid int) bool {
		p = w.Process(pid)
		p.Stick(true)
		return true
	}
	if shared {
		w.SharePID(id)
	}
	return w.Container(t, group, id, args...), hangs, func() { p.Stick(false) }
}

func (w *world) Orphan(t *testing.T, s shimclient.Tasks, c shimclient.Create) int {
	t.Helper()
	pid, err := s.Create(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	w.ForgetTask(c.ID)
	return pid
}

func (w *world) Signal(t *testing.T, pid int, sig unix.Signal) {
	t.Helper()
	if err := w.Process(pid).Signal(sig); err != nil {
		t.Fatal(err)
	}
}

func (w *world) Alive(pid int) bool {
	p := w.Process(pid)
	return p != nil && !p.Exited()
}

func (w *world) Ready(int) bool { return true }

func (w *world) Open(p pidfd.Process) (conformance.Handle, error) {
	h, err := w.World.Open(p)
	if err != nil {
		return nil, err
	}
	return h, nil
}

func (w *world) DeleteTask(ctx context.Context, c shimclient.Create) error {
	return w.World.DeleteTask(ctx, c.Bundle, c.ID)
}

func (w *world) RemoveBundle(c shimclient.Create) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.removed[c.Bundle] = true
	return nil
}

func (w *world) ForgetRuntimeState(_ *testing.T, id string) { w.World.ForgetRuntimeState(id) }

func (w *world) init(t *testing.T, id string) *fake.Process {
	t.Helper()
	s, err := w.FindUnrecorded(t.Context(), shimclient.Ref{ID: "pod1"})
	if err != nil {
		t.Fatal(err)
	}
	info, err := s.Connect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return w.Process(info.TaskPid)
}

func (w *world) Freeze(t *testing.T, id string, frozen bool) {
	t.Helper()
	w.init(t, id).Freeze(frozen)
}

// Uproot does nothing: this world has no cgroups.
func (w *world) Uproot(*testing.T, string) {}

func (w *world) Jam(_ *testing.T, _ shimclient.Tasks, id string) (release func()) {
	return w.World.Jam(id)
}

func (w *world) Deaf(*testing.T) (hear func()) {
	w.World.Deaf(true)
	return func() { w.World.Deaf(false) }
}

func (w *world) Reboot(*testing.T) {
	w.World.Deaf(true)
	w.World.Reboot()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range []string{"pod1", "app"} {
		w.removed["/b/"+id] = true
	}
	w.World.Deaf(false)
}
