//go:build e2e

package kernel

import (
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/e2e/faults/inject"
	"github.com/crid-project/crid/e2e/story"
)

// Rows 34 and 35: somebody unmounts what a container or a pod stands on. A container lives in a mount namespace of its own and goes on; a pod
// whose network namespace is not pinned any more is not ready, and its address is given back all the same.
func TestMountsThatSomebodyElseTakesAway(t *testing.T) {
	t.Parallel()
	s := alone(t)
	p, q := s.Pod("rootfs"), s.Pod("netns")
	a, b := p.Go(story.Shell("a", polite)), q.Go(story.Shell("b", polite))
	a.Heard("ready")
	b.Heard("ready")
	detach := func(path string) {
		t.Helper()
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
	detach(filepath.Join(s.Home.State(), "containers", a.ID, "rootfs"))
	time.Sleep(500 * time.Millisecond) // what might come of it
	a.WantState(running)
	a.Sh("ls / >/dev/null")
	if st := p.Status().GetState(); st != isReady {
		t.Errorf("the pod is %s", st)
	}
	inject.Crash(s)
	inject.Again(s)
	a.WantState(running)
	a.Stop(10)
	if st := a.WantState(exited); st.GetExitCode() != 5 {
		t.Errorf("code %d", st.GetExitCode())
	}
	a.Remove()
	inject.Clear(s, p, 20*time.Second)

	detach(filepath.Join(s.Home.State(), "pods", q.ID, "ns", "net"))
	s.Eventually("the pod is not ready", 10*time.Second, func() bool { return q.Status().GetState() == notReady })
	b.WantState(running)
	b.Stop(10)
	if st := b.WantState(exited); st.GetExitCode() != 5 {
		t.Errorf("code %d", st.GetExitCode())
	}
	inject.Clear(s, q, 20*time.Second)
	if n := inject.Count(s, "address lease ", ""); n != 0 {
		t.Errorf("%d addresses are held by nobody", n)
	}
}
