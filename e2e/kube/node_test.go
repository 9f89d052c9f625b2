//go:build e2e

package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/images/kit"
	"github.com/crid-project/crid/hack/kube/cluster"
)

// node is a kubelet on a crid of its own, and a control plane if it is a cluster.
type node struct {
	t       *testing.T
	d       *harness.Daemon
	k       *cluster.Kubelet
	c       *cluster.Control // nil without a cluster
	crid    sync.Mutex       // held while crid is being killed and started
	kills   int
	hostDir string // for hostPath volumes
}

type settings struct {
	cluster bool
	gates   map[string]bool
	config  map[string]any         // kubelet's
	kind    harness.Kind           // default harness.Crid
	control func(*cluster.Control) // changes it before it starts
}

// allGates are switched on everywhere: without it the kubelet asks cadvisor, which knows only runtimes at known sockets.
var allGates = map[string]bool{"PodAndContainerStatsFromCRI": true}

// startNode starts everything, and ends it with the test: no pod, mount, process, cgroup, network device or file may be left.
func startNode(t *testing.T, s settings) *node {
	t.Helper()
	if _, err := cluster.Bin("kubelet"); err != nil {
		t.Skip("needs Kubernetes' programs: hack/kube/build.sh (make test-kubelet does it)")
	}
	d := harness.Start(t, harness.Options{Kind: s.kind})
	n := &node{t: t, d: d, hostDir: filepath.Join(d.Home.Tmp(), "host")}
	if err := os.MkdirAll(n.hostDir, 0o755); err != nil {
		t.Fatal(err)
	}
	gates := maps.Clone(allGates)
	maps.Copy(gates, s.gates)
	config := map[string]any{"featureGates": gates}
	maps.Copy(config, s.config)
	n.k = &cluster.Kubelet{Dir: filepath.Join(d.Home.Dir, "kubelet"), Socket: d.Home.Socket(), CgroupRoot: d.Home.Cgroup, Config: config, Verbosity: 4}
	t.Cleanup(n.end)
	if s.cluster {
		n.c = &cluster.Control{Dir: filepath.Join(d.Home.Dir, "control")}
		n.k.Control = n.c
		if s.control != nil {
			s.control(n.c)
		}
		if err := n.c.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.k.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return n
}

// end removes what the kubelet and the control plane have, after the pods are gone; the harness then looks whether crid has left anything.
func (n *node) end() {
	n.keepLogs()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if !n.t.Failed() {
		n.nothingRuns(ctx)
	}
	if err := n.k.Stop(); err != nil {
		n.t.Error(err)
	}
	if n.c != nil {
		if err := n.c.Stop(); err != nil {
			n.t.Error(err)
		}
	}
	if !n.t.Failed() {
		for _, m := range mountsBelow(n.k.Root()) {
			n.t.Errorf("the kubelet has left a mount: %s", m)
		}
	}
	if err := unmount(n.k.Root()); err != nil && !n.t.Failed() {
		n.t.Error(err)
	}
	if n.t.Failed() {
		_ = n.d.RemoveAllPods(ctx) // or cgroups are busy, and the report is of that
	}
	if err := cluster.RemoveCgroup(n.d.Home.Cgroup + "/kubepods"); err != nil {
		n.t.Error(err)
	}
}

// keepLogs copies the servers' logs to where a failed test can be looked into.
func (n *node) keepLogs() {
	if !n.t.Failed() {
		return
	}
	dir, err := os.MkdirTemp("", "crid-kube-")
	if err != nil {
		n.t.Log(err)
		return
	}
	logs := []string{n.d.Home.Log(), filepath.Join(n.k.Dir, "kubelet.log")}
	if n.c != nil {
		found, _ := filepath.Glob(filepath.Join(n.c.Dir, "*.log"))
		logs = append(logs, found...)
	}
	for _, l := range logs {
		if data, err := os.ReadFile(l); err == nil {
			_ = os.WriteFile(filepath.Join(dir, filepath.Base(l)), data, 0o644)
		}
	}
	n.t.Logf("logs of crid, kubelet and control plane are kept in %s", dir)
}

// nothingRuns waits until the runtime has no pod; a kubelet removes dead sandboxes once a minute.
func (n *node) nothingRuns(ctx context.Context) {
	var pods []*runtimeapi.PodSandbox
	var err error
	for deadline := time.Now().Add(4 * time.Minute); time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		if pods, err = n.d.Pods(ctx); err == nil && len(pods) == 0 {
			return
		}
	}
	for _, p := range pods {
		n.t.Errorf("pod %s/%s is left, %s", p.GetMetadata().GetNamespace(), p.GetMetadata().GetName(), p.GetState())
	}
	if err != nil {
		n.t.Error(err)
	}
}

// disturb kills crid at random times and starts it again, until the test ends or the returned function is called.
func (n *node) disturb(every time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(every/2 + rand.N(every)):
			}
			n.restartCrid(rand.N(2) == 0)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	n.t.Cleanup(stop)
	return stop
}

// restartCrid ends crid, by SIGKILL or by SIGTERM, and starts it again.
func (n *node) restartCrid(kill bool) {
	n.crid.Lock()
	defer n.crid.Unlock()
	end := n.d.Stop
	if kill {
		end = n.d.Kill
	}
	if err := end(); err != nil {
		n.t.Error(err)
	}
	time.Sleep(rand.N(300 * time.Millisecond))
	if err := n.d.Start(context.Background()); err != nil {
		n.t.Errorf("crid does not start again: %v", err)
	}
	n.kills++
}

// cri is a client of its own, which does not go away when crid does.
func (n *node) cri() *harness.CRI {
	n.t.Helper()
	c, err := harness.Dial(n.d.Home.Socket())
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(c.Close)
	return c
}

// pods are what the kubelet's API shows.
func (n *node) pods(ctx context.Context) ([]pod, error) {
	data, err := n.k.ReadOnly(ctx, "/pods")
	if err != nil {
		return nil, err
	}
	var list struct{ Items []pod }
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, err
	}
	return list.Items, nil
}

// await asks again until the condition is nil, and fails the test with the last reason when the limit is over.
func await(t *testing.T, limit time.Duration, what string, condition func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	begun := time.Now()
	for {
		err := condition(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("after %s not yet: %s: %v", time.Since(begun).Round(time.Second), what, err)
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// mountsBelow are mount points below a folder, not the folder itself.
func mountsBelow(dir string) []string {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			found = append(found, f[4])
		}
	}
	return found
}

// read gives a file's text; a file that is not there is an empty one.
func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(data)
}

func errorf(format string, args ...any) error { return fmt.Errorf(format, args...) }

const (
	busybox = kit.Busybox
	nginx   = kit.Nginx
)
