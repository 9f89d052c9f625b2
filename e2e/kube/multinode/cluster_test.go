//go:build kube

package multinode

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/images/kit"
	"github.com/crid-project/crid/e2e/project"
	"github.com/crid-project/crid/hack/kube/cluster"
	"github.com/crid-project/crid/hack/kube/proc"
)

// node is one of the three. Its name in the cluster is its address, so that the API server finds it.
type node struct {
	n    int
	home *harness.Home
	k    *cluster.Kubelet
	f    *fabric
}

func (n *node) name() string { return nodeIP(n.n) }

// world is the cluster.
type world struct {
	t     *testing.T
	f     *fabric
	c     *cluster.Control
	nodes []*node
}

const registryPort = "5000"

// short makes the control plane notice a lost node within seconds, not minutes.
var short = map[string][]string{
	"kube-apiserver":          {"--kubelet-preferred-address-types=InternalIP", "--default-not-ready-toleration-seconds=3", "--default-unreachable-toleration-seconds=3"},
	"kube-controller-manager": {"--node-monitor-grace-period=12s", "--node-monitor-period=2s"},
}

func newWorld(t *testing.T, nodes int) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: namespaces and containers")
	}
	for _, p := range []string{"kubelet", "kube-apiserver", "kubectl"} {
		if _, err := cluster.Bin(p); err != nil {
			t.Skip("needs Kubernetes' programs: hack/kube/build.sh (make test-multinode does it)")
		}
	}
	w := &world{t: t, f: newFabric(t, nodes)}
	for n := 1; n <= nodes; n++ {
		home, err := harness.NewHome(harness.Plain)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.fine(home.Remove()) })
		w.nodes = append(w.nodes, &node{n: n, home: home, f: w.f})
	}
	w.c = &cluster.Control{Dir: filepath.Join(w.nodes[0].home.Dir, "control"), Address: controlIP, NetNS: w.f.path(0), Args: short}
	w.serveImages()
	t.Cleanup(func() { w.fine(w.c.Stop()) })
	if err := w.c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, n := range w.nodes {
		w.startNode(n)
	}
	t.Cleanup(w.keepLogs)
	return w
}

func (w *world) fine(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Error(err)
	}
}

// serveImages runs the registry of the test images in the fabric's namespace.
func (w *world) serveImages() {
	w.t.Helper()
	root, err := project.Root()
	if err != nil {
		w.t.Fatal(err)
	}
	dir := w.nodes[0].home.Dir
	program := filepath.Join(dir, "registry")
	build := exec.CommandContext(w.t.Context(), "go", "build", "-o", program, "./e2e/images")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		w.t.Fatalf("build the registry: %v\n%s", err, out)
	}
	p, err := proc.Start(proc.Spec{Dir: dir, Name: "images", NetNS: w.f.path(0), Env: []string{project.RootEnv + "=" + root},
		Argv: []string{program, "serve", "-addr", controlIP + ":" + registryPort}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { w.fine(p.Stop(10 * time.Second)) })
	err = p.WaitFor(w.t.Context(), 3*time.Minute, func(context.Context) error {
		if strings.Contains(p.LogTail(3), "serving on") {
			return nil
		}
		return errors.New("not yet")
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// startNode routes the pods of the others, and starts crid and kubelet.
func (w *world) startNode(n *node) {
	w.t.Helper()
	err := w.f.in(n.n, func() error {
		for _, other := range w.nodes {
			if other != n {
				if err := route(other.home.Subnet, nodeIP(other.n)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err == nil {
		err = w.f.in(0, func() error { return route(n.home.Subnet, nodeIP(n.n)) })
	}
	if err == nil {
		err = kit.WriteHosts(n.home.Certs(), controlIP+":"+registryPort)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { n.end(w) })
	if err := n.startCrid(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	n.k = &cluster.Kubelet{Dir: filepath.Join(n.home.Dir, "kubelet"), Name: n.name(), Socket: n.home.Socket(), CgroupRoot: n.home.Cgroup, IP: nodeIP(n.n),
		NetNS: w.f.path(n.n), Control: w.c, Config: map[string]any{"featureGates": map[string]bool{"PodAndContainerStatsFromCRI": true}}}
	if err := n.k.Start(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func (n *node) startCrid(ctx context.Context) error {
	program, args, err := harness.Crid{Level: "info"}.Prepare(n.home)
	if err != nil {
		return err
	}
	p, err := proc.Start(proc.Spec{Dir: n.home.Dir, Name: "crid", NetNS: n.f.path(n.n), Argv: append([]string{program}, args...)})
	if err != nil {
		return err
	}
	return p.WaitFor(ctx, 30*time.Second, func(ctx context.Context) error {
		c, err := harness.Dial(n.home.Socket())
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Version(ctx)
		return err
	})
}

// end stops a node and looks for what it has left.
func (n *node) end(w *world) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if n.k != nil {
		w.fine(n.k.Stop())
	}
	if c, err := harness.Dial(n.home.Socket()); err == nil {
		w.fine(c.RemoveAllPods(ctx))
		c.Close()
	}
	if p, err := proc.Find(n.home.Dir, "crid"); err == nil {
		w.fine(p.Stop(20 * time.Second))
	}
	if !w.t.Failed() {
		leases, _ := filepath.Glob(filepath.Join(n.home.IPAM(), "*", "10.*"))
		if len(leases) > 0 {
			w.t.Errorf("node %d keeps addresses of pods that are gone: %v", n.n, leases)
		}
	}
	w.fine(unmountBelow(n.home.Dir))
	w.fine(cluster.RemoveCgroup(n.home.Cgroup + "/kubepods"))
}

// containers of a node that run, as its crid says: pod name to container id.
func (n *node) running(ctx context.Context) (map[string]string, error) {
	c, err := harness.Dial(n.home.Socket())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	list, err := c.Containers(ctx)
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for _, one := range list {
		if one.GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING {
			found[one.GetLabels()["io.kubernetes.pod.name"]] = one.GetId()
		}
	}
	return found, nil
}

// pod is what the tests look at.
type pod struct {
	Metadata struct {
		Name, UID         string
		DeletionTimestamp string
	}
	Spec   struct{ NodeName string }
	Status struct {
		Phase, PodIP string
		Conditions   []struct{ Type, Status string }
	}
}

func (p pod) ready() bool {
	for _, c := range p.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status == "True" && p.Metadata.DeletionTimestamp == ""
		}
	}
	return false
}

func (w *world) pods(ctx context.Context, label string) ([]pod, error) {
	out, err := w.c.Kubectl(ctx, nil, "get", "pods", "-l", label, "-o", "json")
	if err != nil {
		return nil, err
	}
	var list struct{ Items []pod }
	return list.Items, json.Unmarshal([]byte(out), &list)
}

// readyOn waits until want pods with that label are ready, on the given nodes only.
func (w *world) readyOn(label string, want int, limit time.Duration, nodes ...*node) []pod {
	w.t.Helper()
	var found []pod
	w.await(limit, fmt.Sprintf("%d ready pods %s", want, label), func(ctx context.Context) error {
		all, err := w.pods(ctx, label)
		if err != nil {
			return err
		}
		found = nil
		state := ""
		for _, p := range all {
			state += fmt.Sprintf(" %s on %s %s ready=%v", p.Metadata.Name, p.Spec.NodeName, p.Status.Phase, p.ready())
			for _, n := range nodes {
				if p.ready() && p.Spec.NodeName == n.name() {
					found = append(found, p)
				}
			}
		}
		if len(found) != want {
			return fmt.Errorf("%d are:%s", len(found), state)
		}
		return nil
	})
	return found
}

func (w *world) nodeReady(n *node, want string, limit time.Duration) {
	w.t.Helper()
	w.await(limit, n.name()+" Ready="+want, func(ctx context.Context) error {
		out, err := w.c.Kubectl(ctx, nil, "get", "node", n.name(), "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status} {.status.conditions[?(@.type=="Ready")].message}`)
		if err == nil && !strings.HasPrefix(out, want+" ") {
			err = errors.New(out)
		}
		return err
	})
}

func (w *world) apply(manifest string) {
	w.t.Helper()
	if _, err := w.c.Kubectl(w.t.Context(), []byte(manifest), "apply", "-f", "-"); err != nil {
		w.t.Fatal(err)
	}
}

// await asks again until the condition is nil.
func (w *world) await(limit time.Duration, what string, condition func(context.Context) error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), limit)
	defer cancel()
	begun := time.Now()
	var last error
	for {
		err := condition(ctx)
		if err == nil {
			w.t.Logf("%s: after %.1f s", what, time.Since(begun).Seconds())
			return
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			w.t.Fatalf("%s: not within %s: %v", what, limit, last)
		case <-time.After(300 * time.Millisecond):
		}
	}
}

func (w *world) keepLogs() {
	if !w.t.Failed() {
		return
	}
	dir, err := os.MkdirTemp("", "crid-multinode-")
	if err != nil {
		w.t.Log(err)
		return
	}
	for _, n := range w.nodes {
		for _, pattern := range []string{"*.log", "kubelet/*.log", "control/*.log"} {
			logs, _ := filepath.Glob(filepath.Join(n.home.Dir, pattern))
			for _, l := range logs {
				if data, err := os.ReadFile(l); err == nil {
					_ = os.WriteFile(filepath.Join(dir, fmt.Sprintf("node%d-%s", n.n, filepath.Base(l))), data, 0o644)
				}
			}
		}
	}
	w.t.Logf("logs are kept in %s", dir)
}
