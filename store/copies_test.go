package store

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/store/lifecycle"
)

// withCopies opens a ledger that keeps copies, and closes it.
func withCopies(t *testing.T, dir string) (*Ledger, []Lost) {
	t.Helper()
	cfg := config(filepath.Join(dir, "ledger"))
	cfg.Copies = filepath.Join(dir, "copies")
	l, lost, err := Open(cfg)
	must(t, err)
	t.Cleanup(l.Close)
	return l, lost
}

// running leaves pod 1 with container 2, which has started and has a pid.
func running(t *testing.T, dir string) {
	t.Helper()
	l, _ := withCopies(t, dir)
	l.AddPod(pod(1))
	l.AddContainer(member(2, 1))
	_, err := l.StepContainer(id(2), lifecycle.Made{}, func(c *Container) { c.Init = Process{Pid: 7, StartTime: 9} })
	must(t, err)
	_, err = l.UpdatePod(id(1), func(p *Pod) { p.NetNS = "/ns" })
	must(t, err)
	must(t, l.FlushPod(bounded(t), id(1)))
	must(t, l.FlushContainer(bounded(t), id(2)))
	l.Close()
}

// whole asks that the ledger knows all that running has left.
func whole(t *testing.T, l *Ledger) {
	t.Helper()
	p, err := l.Pod(id(1))
	if err != nil || p.NetNS != "/ns" {
		t.Errorf("the pod is %+v, %v", p, err)
	}
	c, err := l.Container(id(2))
	if err != nil || c.Init.Pid != 7 || c.State.Phase != lifecycle.Created {
		t.Errorf("the container is %+v, %v", c, err)
	}
}

// A disk that rots, or somebody's hand, has damaged a record while the container
// runs. The copy tells what is needed to go on with it.
func TestADamagedRecordIsTakenFromItsCopy(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"torn":            func(path string) error { return os.Truncate(path, 100) },
		"empty":           func(path string) error { return os.Truncate(path, 0) },
		"gone":            os.Remove,
		"a link":          func(path string) error { _ = os.Remove(path); return os.Symlink("/etc/passwd", path) },
		"a folder":        func(path string) error { _ = os.Remove(path); return os.Mkdir(path, 0o700) },
		"an older format": func(path string) error { return os.WriteFile(path, []byte("crid-record 0 x 0\n"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			running(t, dir)
			for _, path := range []string{"ledger/pods/" + id(1), "ledger/containers/" + id(2)} {
				must(t, damage(filepath.Join(dir, path)))
			}
			l, lost := withCopies(t, dir)
			whole(t, l)
			for _, one := range lost {
				if !one.Restored {
					t.Errorf("lost: %+v", one)
				}
			}
			if len(lost) != 2 && name != "gone" {
				t.Errorf("%d damaged records are told of: %+v", len(lost), lost)
			}
			must(t, l.FlushPod(bounded(t), id(1)))
			must(t, l.FlushContainer(bounded(t), id(2)))
			l.Close()
			must(t, os.RemoveAll(filepath.Join(dir, "copies")))
			l, lost = withCopies(t, dir) // the records were written back
			whole(t, l)
			if len(lost) > 0 {
				t.Errorf("still lost: %+v", lost)
			}
		})
	}
}

// The disk was full when a container exited, and crid was killed: the record is
// of before, the copy of after.
func TestTheNewerOfRecordAndCopyCounts(t *testing.T) {
	dir := t.TempDir()
	running(t, dir)
	path := filepath.Join(dir, "ledger", "pods", id(1))
	before, err := os.ReadFile(path)
	must(t, err)
	l, _ := withCopies(t, dir)
	_, err = l.UpdatePod(id(1), func(p *Pod) { p.Cgroup = "/new" })
	must(t, err)
	must(t, l.FlushPod(bounded(t), id(1)))
	l.Close()
	after, err := os.ReadFile(path)
	must(t, err)

	must(t, os.WriteFile(path, before, 0o600))
	l, _ = withCopies(t, dir)
	if p, _ := l.Pod(id(1)); p.Cgroup != "/new" {
		t.Errorf("the older record counts: %+v", p)
	}
	must(t, l.FlushPod(bounded(t), id(1)))
	l.Close()
	if now, _ := os.ReadFile(path); !bytes.Equal(now, after) {
		t.Error("the record was not brought up to the copy")
	}
	must(t, os.WriteFile(filepath.Join(dir, "copies", "pods", id(1)), before, 0o600))
	l, _ = withCopies(t, dir)
	if p, _ := l.Pod(id(1)); p.Cgroup != "/new" {
		t.Errorf("the older copy counts: %+v", p)
	}
}

// noCopies is a disk whose tmpfs is full.
type noCopies struct {
	realDisk
	copies string
}

func (d noCopies) Replace(path string, content []byte) error {
	if filepath.Dir(filepath.Dir(path)) == d.copies {
		return unix.ENOSPC
	}
	return d.realDisk.Replace(path, content)
}

func TestACopyThatCannotBeWrittenIsNoErrorAndGoes(t *testing.T) {
	dir := t.TempDir()
	running(t, dir)
	cfg := config(filepath.Join(dir, "ledger"))
	cfg.Copies = filepath.Join(dir, "copies")
	cfg.Disk = noCopies{copies: cfg.Copies}
	l, _, err := Open(cfg)
	must(t, err)
	defer l.Close()
	_, err = l.UpdatePod(id(1), func(p *Pod) { p.Cgroup = "/new" })
	must(t, err)
	must(t, l.FlushPod(bounded(t), id(1)))
	if _, err := os.Lstat(filepath.Join(cfg.Copies, "pods", id(1))); err == nil {
		t.Error("an old copy is left, which would count if the record were lost")
	}
}

// What was removed does not come back from a copy; nor does what an earlier boot
// left.
func TestCopiesBringNothingBackFromTheDead(t *testing.T) {
	dir := t.TempDir()
	running(t, dir)
	l, _ := withCopies(t, dir)
	_, err := l.StepContainer(id(2), lifecycle.AskRemove{})
	must(t, err)
	must(t, l.EraseContainer(bounded(t), id(2)))
	l.Close()
	if left, _ := filepath.Glob(filepath.Join(dir, "copies", "containers", "*")); len(left) > 0 {
		t.Errorf("copies of what was removed: %v", left)
	}

	must(t, os.Remove(filepath.Join(dir, "ledger", "pods", id(1))))
	cfg := config(filepath.Join(dir, "ledger"))
	cfg.Copies, cfg.Boot = filepath.Join(dir, "copies"), "the next boot"
	l, _, err = Open(cfg)
	must(t, err)
	defer l.Close()
	if len(l.Pods()) > 0 {
		t.Error("a pod of an earlier boot, without a record, is back")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "copies", "pods", "*")); len(left) > 0 {
		t.Errorf("its copy is left: %v", left)
	}
}
