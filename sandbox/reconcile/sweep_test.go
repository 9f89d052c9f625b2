package reconcile

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/crid-project/crid/store"
)

// The sweep deletes, so what matters most is what it leaves alone.
func TestTheSweepTouchesOnlyItsOwn(t *testing.T) {
	w := newWorld(t)
	w.pod(1, func(p *store.Pod) { p.NetNS = "/ns" })
	w.member(11, 1, func(*store.Container) {})
	outside := w.folder(filepath.Dir(w.state), "elsewhere", id(9))
	link := filepath.Join(w.state, "containers", id(8))
	var stay, go_ []string
	for _, dir := range []string{filepath.Join(w.state, "containers"), filepath.Join(w.state, "fenced"), filepath.Join(w.root, "volumes"),
		filepath.Join(w.state, "pods")} {
		known := id(11)
		if filepath.Base(dir) == "pods" {
			known = id(1)
		}
		stay = append(stay, w.folder(dir, known), w.folder(dir, "somebody's folder"), w.folder(dir, id(5)[1:]), w.folder(dir, id(5)[1:]+"G"))
		go_ = append(go_, w.folder(dir, id(5)))
	}
	stay = append(stay, w.folder(w.state, id(6)), w.folder(w.root, id(6)), w.folder(w.state, "s"), outside, filepath.Join(outside, "file"))
	go_ = append(go_, link, w.folder(w.state, "runc", "crid", id(5)))
	stay = append(stay, w.folder(w.state, "runc", "crid", id(11)), w.folder(w.state, "runc", "k8s.io", id(5)))
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	w.rootfs = []string{id(5), id(11), id(12)}

	w.sweep(t.Context())

	w.stays(stay...)
	w.goes(go_...)
	if len(w.rootfs) != 1 || w.rootfs[0] != id(11) {
		t.Errorf("root file systems left: %v", w.rootfs)
	}
	for _, bad := range []string{"kill " + id(1), "shim " + id(1), "rootfs " + id(11)} {
		if w.index(bad) >= 0 {
			t.Errorf("did %q to what is on record", bad)
		}
	}
	if w.index("gc "+id(1)) < 0 {
		t.Errorf("leases of pods on record have to count as valid: %v", w.diary)
	}
	again := len(w.repairs)
	w.sweep(t.Context())
	if len(w.repairs) != again {
		t.Errorf("a second sweep found more: %v", w.repairs[again:])
	}
}

// The record of a running container was lost, and the kubelet had named its
// cgroup: only the bundle tells where its processes are.
func TestAStrayThatRunsIsEndedBeforeItsMountsGo(t *testing.T) {
	w := newWorld(t)
	cg := "/kubepods/pod1/" + id(5)
	dir := w.bundle(5, cg)
	pod := w.folder(w.state, "pods", id(6))
	w.full[cg] = true

	w.sweep(t.Context())

	w.goes(dir, pod)
	order := []int{w.index("shim " + id(6)), w.index("kill " + cg), w.index("rmdir " + cg), w.index("unmount " + dir), w.index("rootfs " + id(5))}
	if order[0] < 0 || !slices.IsSorted(order) {
		t.Errorf("shim, kill, rmdir, unmount, rootfs happened at %v: %v", order, w.diary)
	}
}

// What cannot be killed keeps its root file system, its volumes and its folder.
func TestAStrayThatDoesNotDieKeepsWhatItStandsOn(t *testing.T) {
	w := newWorld(t)
	cg := "/kubepods/pod1/" + id(5)
	dir := w.bundle(5, cg)
	volumes := w.folder(w.root, "volumes", id(5))
	other := w.bundle(7, "/kubepods/pod1/"+id(7))
	w.full[cg], w.hardy[cg] = true, true
	w.rootfs = []string{id(5)}

	synctest.Test(t, func(t *testing.T) { w.sweep(t.Context()) })

	w.stays(dir, filepath.Join(dir, "file"), volumes)
	w.goes(other) // delayed, not forgotten
	if w.index("unmount "+dir) >= 0 || len(w.rootfs) != 1 {
		t.Errorf("something was taken from under a live process: %v", w.diary)
	}

	w.hardy = map[string]bool{}
	w.sweep(t.Context())
	w.goes(dir, volumes)
}

// A bundle is not trusted to name anybody else's cgroup.
func TestABundleNamesItsOwnCgroupOrNone(t *testing.T) {
	w := newWorld(t)
	for cg, want := range map[string]bool{
		"/kubepods/pod1/" + id(5):               true,
		"kubepods-pod1.slice:crid:" + id(5):     true,
		"/kubepods/pod1/" + id(6):               false,
		"/":                                     false,
		"":                                      false,
		"/" + id(5) + "/..":                     false,
		"/kubepods/pod1/" + id(5) + "0":         false,
		"/system.slice/sshd.service":            false,
		"/kubepods/" + id(5) + "/" + id(5)[:20]: false,
		"/kubepods/pod1/" + id(5) + "/somebody's": false,
	} {
		dir := w.bundle(5, cg)
		if got := BundleCgroup(dir, id(5)); (got != "") != want {
			t.Errorf("%q is taken for %q", cg, got)
		}
	}
	dir := w.folder(w.state, "containers", id(7))
	if BundleCgroup(dir, id(7)) != "" {
		t.Error("a bundle without config.json names a cgroup")
	}
	w.file(filepath.Join(dir, "config.json"), `{"linux":{"cgroupsPath":`)
	if BundleCgroup(dir, id(7)) != "" {
		t.Error("a torn config.json names a cgroup")
	}
	good := filepath.Join(filepath.Dir(w.state), "elsewhere", "config.json")
	w.file(good, `{"linux":{"cgroupsPath":"/kubepods/`+id(7)+`"}}`)
	for _, p := range []string{good, "/dev/zero"} {
		_ = os.Remove(filepath.Join(dir, "config.json"))
		if err := os.Symlink(p, filepath.Join(dir, "config.json")); err != nil {
			t.Fatal(err)
		}
		if BundleCgroup(dir, id(7)) != "" {
			t.Error("a link was followed")
		}
	}
}

// Requests are served during the sweep: a folder made since the list of known
// ids was taken is nobody's stray.
func TestWhatIsBornDuringTheSweepIsNoStray(t *testing.T) {
	w := newWorld(t)
	pod, dir := w.folder(w.state, "pods", id(1)), w.folder(w.state, "containers", id(11))
	w.pod(1, func(*store.Pod) {})
	w.member(11, 1, func(*store.Container) {})
	none := map[string]bool{}
	if s := w.strays(filepath.Dir(pod), none); len(s) > 0 {
		t.Errorf("strays %v", s)
	}
	if s := w.strays(filepath.Dir(dir), none); len(s) > 0 {
		t.Errorf("strays %v", s)
	}
}

// A container that is made while the sweep is under way keeps its root file system.
func TestARootfsThatIsBornDuringTheSweepIsNoStray(t *testing.T) {
	w := newWorld(t)
	w.pod(1, func(*store.Pod) {})
	w.born = func() {
		w.member(11, 1, func(*store.Container) {})
		w.rootfs = append(w.rootfs, id(11), id(12))
	}
	w.sweep(t.Context())
	if w.index("rootfs "+id(11)) >= 0 || w.index("rootfs "+id(12)) < 0 {
		t.Errorf("the diary: %q", w.diary)
	}
}

func TestAFailingPluginDoesNotEndTheSweep(t *testing.T) {
	w := newWorld(t)
	w.gcErr = errors.New("no such plugin")
	pod := w.folder(w.state, "pods", id(5))
	w.sweep(t.Context())
	w.goes(pod)
}

func TestASweepOfNothing(t *testing.T) {
	w := newWorld(t) // no folder exists
	w.sweep(t.Context())
	if len(w.repairs) > 0 {
		t.Errorf("repaired %v", w.repairs)
	}
}
