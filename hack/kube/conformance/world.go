package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/images/kit"
	"github.com/crid-project/crid/e2e/project"
	"github.com/crid-project/crid/hack/kube/cluster"
	"github.com/crid-project/crid/hack/kube/proc"
)

// gate makes the kubelet take pods' and containers' statistics and metrics from the runtime. Without it they come from cadvisor, which knows a
// containerd at its usual address only.
const gate = "PodAndContainerStatsFromCRI"

const (
	nodeName = "conformance"
	nodeIP   = "10.99.77.1"
)

// world is all that the suite needs around it: a registry, a runtime, an API server (the suite's own), a kubelet.
type world struct {
	*options
	home     *harness.Home
	registry *kit.Registry
	images   []kit.Image
	daemon   *harness.Daemon
	services *proc.Process
	kubelet  *cluster.Kubelet
	token    string
}

// newWorld prepares the namespaces; nothing runs yet.
func newWorld(o *options) (*world, error) {
	if err := network(); err != nil {
		return nil, fmt.Errorf("make the node's network: %w", err)
	}
	home, err := harness.NewHome(harness.Full)
	if err != nil {
		return nil, err
	}
	secret := make([]byte, 16)
	if _, err := rand.Read(secret); err != nil {
		return nil, errors.Join(err, home.Remove())
	}
	w := &world{options: o, home: home, token: hex.EncodeToString(secret)}
	if err := w.mounts(); err != nil {
		return nil, errors.Join(fmt.Errorf("make the node's folders: %w", err), w.close())
	}
	return w, nil
}

// network gives the namespace an address and a way out that ends at its other side: a kubelet takes its node's address from the default route.
func network() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "node0"}, PeerName: "node1"}); err != nil {
		return err
	}
	for _, name := range []string{"node0", "node1"} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
	}
	node, err := netlink.LinkByName("node0")
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(nodeIP + "/24")
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(node, addr); err != nil {
		return err
	}
	gateway, err := netlink.ParseAddr("10.99.77.254/24")
	if err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: node.Attrs().Index, Gw: gateway.IP})
}

// mounts puts folders of the home where a kubelet and the suite write. The mount namespace's own / is shared, as systemd has it.
func (w *world) mounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return err
	}
	if os.Getenv(caged) != "" {
		if err := seeCgroups(); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{"kubelet-root": "/var/lib/kubelet", "log-pods": "/var/log/pods", "log-containers": "/var/log/containers", "tmp": "/tmp"} {
		source := filepath.Join(w.home.Dir, name)
		for _, d := range []string{source, target} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				return err
			}
		}
		if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("%s: %w", target, err)
		}
	}
	if err := os.Chmod("/tmp", 0o777|os.ModeSticky); err != nil {
		return err
	}
	return w.announceHandler()
}

// announceHandler lays a file over /etc: the suite looks into containerd's or CRI-O's configuration there for its handler of RuntimeClass, and leaves
// the specs out if it is in neither.
func (w *world) announceHandler() error {
	upper, work := filepath.Join(w.home.Dir, "etc"), filepath.Join(w.home.Dir, "etc-work")
	if err := os.MkdirAll(filepath.Join(upper, "containerd"), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(work, 0o755); err != nil {
		return err
	}
	text := "# Not read by any runtime; see hack/kube/conformance.\n[runtimes.test-handler]\n"
	if err := os.WriteFile(filepath.Join(upper, "containerd", "config.toml"), []byte(text), 0o644); err != nil {
		return err
	}
	return unix.Mount("overlay", "/etc", "overlay", 0, "lowerdir=/etc,upperdir="+upper+",workdir="+work)
}

// examine starts everything, runs the suite and tells what came of it.
func (w *world) examine(ctx context.Context) error {
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{{"images", w.serve}, {w.runtime, w.startRuntime}, {"images pulled", w.pull}, {"API server", w.startServices}, {"kubelet", w.startKubelet}} {
		begun := time.Now()
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Printf("%-14s ready after %.1f s\n", step.name, time.Since(begun).Seconds())
	}
	err := w.suite(ctx)
	if !w.daemon.Running() {
		err = errors.Join(err, fmt.Errorf("%s died during the suite:\n%s", w.runtime, w.daemon.LogTail(40)))
	}
	return err
}

func (w *world) serve(ctx context.Context) error {
	programs, err := kit.Build(ctx)
	if err != nil {
		return err
	}
	bin, err := project.Bin("kube")
	if err != nil {
		return err
	}
	if w.images, err = programs.KubeCatalogue(bin); err != nil {
		return err
	}
	if w.registry, err = kit.Serve(ctx, "127.0.0.1:0", w.images, nil); err != nil {
		return err
	}
	return kit.WriteHosts(w.home.Certs(), w.registry.Addr)
}

func (w *world) startRuntime(ctx context.Context) error {
	table, err := handlerTable()
	if err != nil {
		return err
	}
	kinds := map[string]harness.Kind{"crid": harness.Crid{Level: w.level, Config: table}, "containerd": peer{harness.Containerd{Level: w.level}}}
	kind, ok := kinds[w.runtime]
	if !ok {
		return fmt.Errorf("no such runtime: %s", w.runtime)
	}
	w.daemon, err = harness.Launch(ctx, w.home, kind)
	return err
}

// pull brings in beforehand what the suite uses: it would do so itself, at the cost of its specs' time.
func (w *world) pull(ctx context.Context) error {
	for _, image := range w.images {
		for _, name := range image.Names {
			if strings.HasPrefix(name, "e2e-test-images/") || name == "pause:3.10.2" {
				if _, err := w.daemon.Pull(ctx, "registry.k8s.io/"+name); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// startServices runs the suite's own etcd and API server.
func (w *world) startServices(ctx context.Context) error {
	program, err := cluster.Bin("e2e_node.test")
	if err != nil {
		return err
	}
	w.services, err = proc.Start(proc.Spec{Dir: w.home.Tmp(), Name: "services", Env: []string{"TMPDIR=" + w.home.Tmp()},
		Argv: []string{program, "--run-services-mode", "--bearer-token=" + w.token, "--v=2"}})
	if err != nil {
		return err
	}
	return w.services.WaitFor(ctx, 3*time.Minute, w.apiReady)
}

func (w *world) apiReady(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://127.0.0.1:6443/readyz", nil)
	if err != nil {
		return err
	}
	answer, err := insecure.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusUnauthorized && answer.StatusCode != http.StatusForbidden {
		return errors.New(answer.Status)
	}
	return nil
}

func (w *world) startKubelet(ctx context.Context) error {
	kubeconfig := filepath.Join(w.home.Dir, "kubeconfig")
	text := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
		"users": [{"name": "u", "user": {"token": %q}}], "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:6443", "insecure-skip-tls-verify": true}}]}`, w.token)
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		return err
	}
	root := w.home.Cgroup
	if os.Getenv(caged) != "" {
		root = ""
	}
	w.kubelet = &cluster.Kubelet{Dir: filepath.Join(w.home.Dir, "kubelet"), Name: nodeName, Socket: w.home.Socket(), CgroupRoot: root, IP: nodeIP,
		Ports: []int{10250, 10255, 10248}, Verbosity: 3,
		Config: map[string]any{"featureGates": map[string]bool{gate: true}, "address": "0.0.0.0", "podLogsDir": "/var/log/pods", "evictionHard": map[string]string{"memory.available": "100Mi"},
			"crashLoopBackOff": map[string]string{}, "volumeStatsAggPeriod": "10s", "syncFrequency": "1m", "registryPullQPS": 5,
			"imagePullCredentialsVerificationPolicy": "NeverVerifyPreloadedImages", "containerLogMaxSize": "10Mi", "containerLogMaxFiles": 5,
			"containerLogMonitorInterval": "10s"},
		Args: []string{"--kubeconfig=" + kubeconfig, "--root-dir=/var/lib/kubelet"}}
	return w.kubelet.Start(ctx)
}

// close ends and removes everything; logs stay in the folder of results.
func (w *world) close() error {
	var errs []error
	end, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if w.kubelet != nil {
		errs = append(errs, w.kubelet.Stop())
	}
	if w.daemon != nil && w.daemon.Running() {
		errs = append(errs, w.daemon.RemoveAllPods(end), w.daemon.Stop())
	}
	if w.services != nil {
		errs = append(errs, w.services.Stop(30*time.Second))
	}
	if w.registry != nil {
		errs = append(errs, w.registry.Close())
	}
	for from, to := range map[string]string{w.home.Log(): w.runtime + ".log", filepath.Join(w.home.Dir, "kubelet", "kubelet.log"): "kubelet.log",
		filepath.Join(w.home.Tmp(), "services.log"): "services.log"} {
		if data, err := os.ReadFile(from); err == nil {
			errs = append(errs, os.WriteFile(filepath.Join(w.out, to), data, 0o644))
		}
	}
	for _, target := range []string{"/etc", "/tmp", "/var/log/containers", "/var/log/pods", "/var/lib/kubelet"} {
		_ = unix.Unmount(target, unix.MNT_DETACH) // the namespace would do it
	}
	return errors.Join(append(errs, w.home.Remove(), cluster.RemoveCgroup(w.home.Cgroup))...)
}
