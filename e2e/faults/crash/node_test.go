//go:build e2e

package crash

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/images/kit"
	"github.com/crid-project/crid/e2e/project"
)

// Images of the kit: one whose configuration names a volume, and one to pull, which says hello.
const (
	volumed = "ghcr.io/crid/oddities:1"
	pulled  = "ghcr.io/crid/demo:1"
)

// failing is crid with failpoints, which are armed in a folder.
type failing struct {
	harness.Crid
	points string
}

// withFailpoints is the daemon of most tests.
func withFailpoints(points string) harness.Kind { return failing{points: points} }

func (f failing) Prepare(h *harness.Home) (string, []string, error) {
	_, args, err := f.Crid.Prepare(h)
	if err != nil {
		return "", nil, err
	}
	path, err := project.Bin(program)
	return path, args, err
}

func (f failing) Env() []string { return []string{"CRID_FAILPOINTS=" + f.points} }

// node is a daemon in a home of its own that is hit again and again, and how it is when nothing runs. It is used by one goroutine.
type node struct {
	*harness.Daemon
	points string
	quiet  harness.Census
	spoilt bool // a run on it has failed: nobody should be blamed for what that has left
}

// ready answers a node to hit: the same one, or a new one if there is none or it is spoilt.
func (n *node) ready(t *testing.T, kind func(points string) harness.Kind) *node {
	t.Helper()
	if n != nil && !n.spoilt {
		return n
	}
	n.end(t)
	home, err := harness.NewHome(harness.Full)
	if err != nil {
		t.Fatal(err)
	}
	n = &node{points: filepath.Join(home.Dir, "points"), spoilt: true}
	n.Daemon = &harness.Daemon{Home: home, Kind: kind(n.points)}
	if err := errors.Join(os.Mkdir(n.points, 0o700), kit.WriteHosts(home.Certs(), harness.Registry(t).Addr), n.Start(t.Context())); err != nil {
		n.end(t)
		t.Fatal(err)
	}
	if err := n.warmUp(t.Context()); err != nil {
		n.end(t)
		t.Fatal(err)
	}
	n.quiet, n.spoilt = n.Census(t.Context()), false
	return n
}

// warmUp lets the daemon make what it makes once and for good.
func (n *node) warmUp(ctx context.Context) error {
	for _, image := range []string{kit.Busybox, volumed} {
		if err := n.Have(ctx, image); err != nil {
			return err
		}
	}
	config := harness.SharedPID(n.Home.Pod("warm-up"))
	pod, err := n.RunPod(ctx, config, "")
	if err != nil {
		return err
	}
	if _, err := n.Run(ctx, pod, harness.Container("warm-up"), config); err != nil {
		return err
	}
	return n.RemovePodFully(ctx, pod)
}

// end takes the node away.
func (n *node) end(t *testing.T) {
	if n == nil || n.Daemon == nil {
		return
	}
	if err := n.Stop(); err != nil {
		t.Error(err)
	}
	if err := n.Home.Remove(); err != nil {
		t.Error(err)
	}
	n.Daemon = nil
}

func (n *node) point(name string) string { return filepath.Join(n.points, name) }

// arm has a point act the next time it is passed.
func (n *node) arm(t *testing.T, name, action string) {
	t.Helper()
	n.disarm(t)
	if err := os.WriteFile(n.point(name), []byte(action+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (n *node) disarm(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir(n.points)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.Remove(n.point(e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

// reached waits until a point has acted. One that is never passed fails the test: it would have tested nothing.
func (n *node) reached(t *testing.T, name string) {
	t.Helper()
	eventually(t, "failpoint "+name+" is passed", 30*time.Second, func() bool {
		_, err := os.Stat(n.point(name) + ".reached")
		return err == nil
	})
}

func (n *node) release(t *testing.T, name string) {
	t.Helper()
	if err := os.WriteFile(n.point(name)+".release", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the hang at "+name+" ends", 10*time.Second, func() bool {
		_, err := os.Stat(n.point(name) + ".release")
		return errors.Is(err, os.ErrNotExist)
	})
}

// dead waits for the daemon's end by its own hand.
func (n *node) dead(t *testing.T) {
	t.Helper()
	eventually(t, "the daemon kills itself", 20*time.Second, func() bool { return !n.Running() })
	if err := n.Kill(); err != nil { // closes the connection
		t.Fatal(err)
	}
}

// again starts the daemon, within the bound of a restart (5 s, and twice that for a busy machine).
func (n *node) again(t *testing.T) {
	t.Helper()
	begin := time.Now()
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("the daemon answers %s after its start", took)
	}
}

// settled waits until nothing is left over, by itself: no call is made for it.
func (n *node) settled(t *testing.T, when string) {
	t.Helper()
	for _, leak := range n.Settle(t.Context(), n.quiet, 20*time.Second) {
		t.Errorf("left behind %s: %s", when, leak)
	}
	for _, leak := range n.layers(t) {
		t.Errorf("left behind %s: %s", when, leak)
	}
}

// layers are unfinished and doomed layers, which the census does not count.
func (n *node) layers(t *testing.T) (left []string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		left = left[:0]
		for _, dir := range []string{"ingest", "trash"} {
			entries, err := os.ReadDir(filepath.Join(n.Home.Root(), "images", dir))
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				left = append(left, "layer in "+dir+": "+e.Name())
			}
		}
		if len(left) == 0 {
			return nil
		}
	}
	return slices.Clone(left)
}

// clean removes everything that a run has made and looks whether anything stays.
func (n *node) clean(t *testing.T) {
	t.Helper()
	n.disarm(t)
	if err := n.RemoveAllPods(t.Context()); err != nil {
		t.Error(err)
	}
	if err := n.Check(t.Context()); err != nil {
		t.Error(err)
	}
	n.settled(t, "at the end")
}

// eventually waits for a condition that nobody announces.
func eventually(t *testing.T, what string, limit time.Duration, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, limit)
		}
	}
}

// tail is the end of the daemon's log, without the steps of the law.
func (n *node) tail() string {
	lines := strings.Split(n.LogTail(200), "\n")
	return strings.Join(lines[max(0, len(lines)-60):], "\n")
}
