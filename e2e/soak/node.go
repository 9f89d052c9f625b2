package soak

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/crid-project/crid/e2e/chaos"
	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/images/kit"
	"github.com/crid-project/crid/e2e/project"
)

// node is the daemon with everything around it that can break.
type node struct {
	home     *harness.Home
	cri      *harness.CRI // one connection for all of the run: it finds the daemon again by itself
	runc     *chaos.Poser
	plugin   *chaos.Poser
	registry *chaos.Registry
	server   *kit.Registry

	mu     sync.Mutex // the daemon's life
	daemon *harness.Daemon
	away   bool         // down or stopped on purpose
	since  time.Time    // when that last changed
	full   [2]time.Time // between which a disk was full, the last time
}

// sizes of the disks under state and root: enough for what a run has at a time, and soon full.
const rootSize, stateSize = "256m", "64m"

func newNode(ctx context.Context) (*node, error) {
	home, err := harness.NewHome(harness.Full)
	if err != nil {
		return nil, err
	}
	n := &node{home: home}
	if err := n.furnish(ctx); err != nil {
		return nil, errors.Join(err, n.remove())
	}
	return n, nil
}

func (n *node) furnish(ctx context.Context) error {
	h := n.home
	if err := errors.Join(chaos.SmallDisk(h.Root(), rootSize), chaos.SmallDisk(h.State(), stateSize), n.pose()); err != nil {
		return err
	}
	programs, err := kit.Build(ctx)
	if err != nil {
		return err
	}
	images, err := programs.Catalogue(false)
	if err != nil {
		return err
	}
	n.registry = &chaos.Registry{}
	if n.server, err = kit.Serve(ctx, "127.0.0.1:0", images, n.registry.Wrap); err != nil {
		return err
	}
	if err := kit.WriteHosts(h.Certs(), n.server.Addr); err != nil {
		return err
	}
	kind := harness.Crid{Level: "info", Runc: n.runc.Path, Plugins: h.Tmp(), Metrics: "127.0.0.1:0"}
	if n.daemon, err = harness.Launch(ctx, h, kind); err != nil {
		return err
	}
	if n.cri, err = harness.Dial(h.Socket()); err != nil {
		return err
	}
	return n.cri.Have(ctx, kit.Busybox)
}

// pose puts posers into the places of runc and the bridge plugin.
func (n *node) pose() error {
	h := n.home
	runc, err := project.Bin("runc")
	if err != nil {
		return err
	}
	if n.runc, err = chaos.NewRunc(h.Tmp(), runc); err != nil {
		return err
	}
	bridge, err := project.Bin("cni/bridge")
	if err != nil {
		return err
	}
	if n.plugin, err = chaos.NewPlugin(h.Tmp(), bridge); err != nil {
		return err
	}
	return chaos.Pose(filepath.Join(h.CNIConf(), "10-"+h.Name+".conflist"))
}

func (n *node) remove() error {
	var errs []error
	if n.cri != nil {
		n.cri.Close()
	}
	if n.daemon != nil {
		errs = append(errs, n.daemon.Stop())
	}
	if n.server != nil {
		errs = append(errs, n.server.Close())
	}
	return errors.Join(append(errs, n.home.Remove())...)
}

// up tells for how long the daemon has been there without being stopped; 0 while it is not.
func (n *node) up() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.away {
		return 0
	}
	return time.Since(n.since)
}

func (n *node) mark(away bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.away, n.since = away, time.Now()
}

// filled notes that a disk is full, or is not any more.
func (n *node) filled(full bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if full {
		n.full[0] = time.Now()
	}
	n.full[1] = time.Now().Add(time.Hour)
	if !full {
		n.full[1] = time.Now().Add(5 * time.Second) // records are saved again by then
	}
}

// wasFull tells whether a disk was full at a time.
func (n *node) wasFull(at time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return at.After(n.full[0].Add(-time.Second)) && at.Before(n.full[1])
}

// restart ends the daemon with a signal and starts it again after a while.
func (n *node) restart(ctx context.Context, crash bool, down time.Duration) error {
	n.mark(true)
	defer n.mark(false)
	err := n.daemon.Stop
	if crash {
		err = n.daemon.Kill
	}
	if err := err(); err != nil {
		return fmt.Errorf("end the daemon: %w", err)
	}
	pause(ctx, down)
	return n.daemon.Start(context.WithoutCancel(ctx))
}

// freeze stops the daemon for a while: it loses time and nothing else.
func (n *node) freeze(ctx context.Context, d time.Duration) error {
	p, ok := harness.Find(n.daemon.Pid())
	if !ok {
		return os.ErrProcessDone
	}
	n.mark(true)
	defer n.mark(false)
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	pause(ctx, d)
	return p.Signal(syscall.SIGCONT)
}

// pause waits, or until the context ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// gauges are what must stay flat in one life of the daemon.
func (n *node) gauges(ctx context.Context) (text string, threads, rss int) {
	pid := n.daemon.Pid()
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		_, _ = fmt.Sscanf(line, "VmRSS: %d kB", &rss)
		_, _ = fmt.Sscanf(line, "Threads: %d", &threads)
	}
	fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	goroutines := 0
	for thing, count := range n.daemon.Census(ctx) {
		if strings.HasPrefix(thing, "goroutine ") {
			goroutines += count
		}
	}
	return fmt.Sprintf("pid %d: rss %d KiB, %d threads, %d fds, %d goroutines", pid, rss, threads, len(fds), goroutines), threads, rss
}
