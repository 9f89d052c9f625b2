package story

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/images/kit"
)

// Story is one test with the daemon it talks to.
type Story struct {
	T *testing.T
	*harness.Daemon
}

// world is a daemon with what was there when nothing ran on it.
type world struct {
	daemon *harness.Daemon
	census harness.Census
}

var shared *world

// Main runs the tests of a package and takes the shared daemon away after them. It does not return.
func Main(m *testing.M) {
	code := m.Run()
	if shared != nil {
		if err := errors.Join(shared.daemon.Stop(), shared.daemon.Home.Remove()); err != nil {
			fmt.Fprintln(os.Stderr, "end the shared daemon:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// Begin starts a test on the package's own daemon. Tests that use it must not run in parallel: the census would count the others' pods.
func Begin(t *testing.T) *Story {
	t.Helper()
	needRoot(t)
	if shared == nil {
		w, err := open(t, harness.Crid{Metrics: "127.0.0.1:0"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		shared = w
	}
	if !shared.daemon.Running() {
		if err := shared.daemon.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	s := &Story{T: t, Daemon: shared.daemon}
	t.Cleanup(func() { shared.close(t) })
	return s
}

// Alone starts a test on a daemon that nobody else uses, so that it may be killed, starved and lied to.
func Alone(t *testing.T, kind harness.Crid) *Story {
	t.Helper()
	return AloneIn(t, kind, nil)
}

// AloneIn is Alone in a home that a function prepares first: mounts in it go with the home.
func AloneIn(t *testing.T, kind harness.Crid, prepare func(*harness.Home) error) *Story {
	t.Helper()
	needRoot(t)
	w, err := open(t, kind, prepare)
	if w != nil {
		t.Cleanup(func() {
			if err := errors.Join(w.daemon.Stop(), w.daemon.Home.Remove()); err != nil {
				t.Error(err)
			}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.close(t) })
	return &Story{T: t, Daemon: w.daemon}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: runs containers")
	}
}

// open starts a daemon, lets a first pod make what is made for good, and counts. On an error nothing is left.
func open(t *testing.T, kind harness.Crid, prepare func(*harness.Home) error) (*world, error) {
	home, err := harness.NewHome(harness.Full)
	if err != nil {
		return nil, err
	}
	w := &world{}
	if prepare != nil {
		if err := prepare(home); err != nil {
			return nil, errors.Join(err, home.Remove())
		}
	}
	if err := kit.WriteHosts(home.Certs(), harness.Registry(t).Addr); err != nil {
		return nil, errors.Join(err, home.Remove())
	}
	ctx := context.Background() // the daemon outlives the test that happens to be the first
	d, err := harness.Launch(ctx, home, kind)
	if err != nil {
		return nil, errors.Join(err, home.Remove())
	}
	w.daemon = d
	if err := errors.Join(d.Have(ctx, kit.Busybox), d.Have(ctx, kit.Nginx), warmUp(ctx, d)); err != nil {
		return nil, errors.Join(err, d.Stop(), home.Remove())
	}
	w.count(ctx)
	return w, nil
}

func warmUp(ctx context.Context, d *harness.Daemon) error {
	config := d.Home.Pod("warm-up")
	config.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 80, HostPort: 12098}}
	pod, err := d.RunPod(ctx, config, "")
	if err != nil {
		return err
	}
	id, err := d.Run(ctx, pod, harness.Container("warm-up"), config)
	if err != nil {
		return err
	}
	_, err = d.Exec(ctx, id, "true")
	return errors.Join(err, d.RemovePodFully(ctx, pod))
}

func (w *world) count(ctx context.Context) { w.census = w.daemon.Census(ctx) }

// close ends a test: no pod is left, and nothing of one. What leaked is told once, not again by every test that follows.
func (w *world) close(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if !w.daemon.Running() {
		if err := w.daemon.Start(ctx); err != nil {
			t.Error(err)
			return
		}
	}
	if err := w.daemon.RemoveAllPods(ctx); err != nil {
		t.Error(err)
	}
	leaks := w.daemon.Settle(ctx, w.census, 10*time.Second)
	for _, leak := range leaks {
		t.Errorf("left behind: %s", leak)
	}
	for _, f := range findings(t, w.daemon) {
		t.Errorf("crid check finds: %s", f)
	}
	if t.Failed() {
		t.Logf("the end of the daemon's log:\n%s", shorten(w.daemon.LogTail(40)))
		w.count(ctx)
	}
}

// shorten keeps a daemon's log readable in a test's output.
func shorten(log string) string {
	var b strings.Builder
	for line := range strings.Lines(log) {
		if len(line) > 400 {
			line = line[:400] + "...\n"
		}
		b.WriteString(line)
	}
	return b.String()
}
