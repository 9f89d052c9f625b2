package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/crid-project/crid/hack/kube/proc"
)

// Kubelet is one node. It can be kept as JSON between programs.
type Kubelet struct {
	Dir        string         // absolute; gets its state, configuration and logs
	Name       string         // of the node, default localhost; the API server must reach it by this name, or by its IP
	Socket     string         // of the runtime
	CgroupRoot string         // absolute, below which pods' cgroups are, made by Start; empty is the hierarchy's root (and "systemd" is possible)
	Driver     string         // cgroup driver, default cgroupfs; what the runtime says comes first
	IP         string         // address of the node; empty lets the kubelet choose, and it listens on loopback
	NetNS      string         // path of the network namespace it runs in; empty is the machine's
	Ports      []int          // API, read-only API, health
	Control    *Control       `json:"-"` // nil: no cluster, only static pods
	Config     map[string]any // laid over the configuration
	Args       []string       // more arguments
	Verbosity  int            // default 2
}

// Manifests is the folder of static pods.
func (k *Kubelet) Manifests() string { return filepath.Join(k.Dir, "manifests") }

// Logs is the folder of pods' logs.
func (k *Kubelet) Logs() string { return filepath.Join(k.Dir, "podlogs") }

// Root is where it keeps volumes.
func (k *Kubelet) Root() string { return filepath.Join(k.Dir, "root") }

// SeccompRoot is where profiles of kind Localhost lie.
func (k *Kubelet) SeccompRoot() string { return filepath.Join(k.Root(), "seccomp") }

// Process is the kubelet's, running or not.
func (k *Kubelet) Process() (*proc.Process, error) { return proc.Find(k.Dir, "kubelet") }

func (k *Kubelet) address() string {
	if k.IP != "" {
		return k.IP
	}
	return "127.0.0.1"
}

// Start starts it, if it does not run, and waits until it says that it is healthy.
func (k *Kubelet) Start(ctx context.Context) error {
	if p, err := k.Process(); err == nil && p.Alive() {
		return nil
	}
	if k.Name == "" {
		k.Name = "localhost"
	}
	if len(k.Ports) == 0 {
		ports, err := Ports(3)
		if err != nil {
			return err
		}
		k.Ports = ports
	}
	argv, err := k.prepare()
	if err != nil {
		return fmt.Errorf("prepare kubelet: %w", err)
	}
	p, err := proc.Start(proc.Spec{Dir: k.Dir, Name: "kubelet", Argv: argv, NetNS: k.NetNS})
	if err != nil {
		return err
	}
	return p.WaitFor(ctx, 2*time.Minute, func(ctx context.Context) error {
		if k.NetNS != "" {
			return nil // its port is not ours to reach; the node's condition tells
		}
		_, err := Get(ctx, fmt.Sprintf("http://127.0.0.1:%d/healthz", k.Ports[2]))
		return err
	})
}

func (k *Kubelet) prepare() ([]string, error) {
	program, err := Bin("kubelet")
	if err != nil {
		return nil, err
	}
	for _, d := range []string{k.Manifests(), k.Logs(), k.Root(), filepath.Join(k.Dir, "pki"), filepath.Join(k.Dir, "plugins"), k.SeccompRoot()} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(filepath.Join(k.Dir, "resolv.conf"), []byte("nameserver 127.0.0.1\noptions ndots:1\n"), 0o644); err != nil {
		return nil, err
	}
	if err := MakeCgroup(k.CgroupRoot); err != nil {
		return nil, err
	}
	config := k.configuration()
	verbosity := k.Verbosity
	if verbosity == 0 {
		verbosity = 2
	}
	argv := []string{program, "--config=" + filepath.Join(k.Dir, "config.json"), "--root-dir=" + k.Root(), "--cert-dir=" + filepath.Join(k.Dir, "pki"),
		"--hostname-override=" + k.Name, "--v=" + strconv.Itoa(verbosity)}
	if k.IP != "" {
		argv = append(argv, "--node-ip="+k.IP)
	}
	if k.Control != nil {
		kubeconfig, err := k.join(config)
		if err != nil {
			return nil, err
		}
		argv = append(argv, "--kubeconfig="+kubeconfig)
	}
	maps.Copy(config, k.Config)
	data, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(argv, k.Args...), os.WriteFile(filepath.Join(k.Dir, "config.json"), data, 0o644)
}

// configuration is that of a kubelet which leaves the machine alone: it neither sets sysctls nor iptables, minds no swap and a full disk,
// and reports quickly.
func (k *Kubelet) configuration() map[string]any {
	type m = map[string]any
	driver := k.Driver
	if driver == "" {
		driver = "cgroupfs"
	}
	c := m{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "containerRuntimeEndpoint": "unix://" + k.Socket,
		"failCgroupV1": false, // by default it refuses machines with cgroup v1
		"cgroupDriver": driver, "cgroupsPerQOS": true, "enforceNodeAllocatable": []string{"pods"},
		"address": k.address(), "port": k.Ports[0], "readOnlyPort": k.Ports[1], "healthzBindAddress": "127.0.0.1", "healthzPort": k.Ports[2],
		"staticPodPath": k.Manifests(), "fileCheckFrequency": "1s", "syncFrequency": "5s", "podLogsDir": k.Logs(),
		"volumePluginDir": filepath.Join(k.Dir, "plugins"), "resolvConf": filepath.Join(k.Dir, "resolv.conf"),
		"failSwapOn": false, "protectKernelDefaults": false, "makeIPTablesUtilChains": false, "hairpinMode": "none",
		"evictionHard":                m{"memory.available": "100Mi", "nodefs.available": "1%", "nodefs.inodesFree": "1%", "imagefs.available": "1%"},
		"imageGCHighThresholdPercent": 99, "imageGCLowThresholdPercent": 98, "imageMinimumGCAge": "24h", "maxPods": 110,
		"serializeImagePulls": false, "registryPullQPS": 0, "eventRecordQPS": 0, "enableSystemLogHandler": false,
		"crashLoopBackOff": m{"maxContainerRestartPeriod": "5s"}, "imagePullCredentialsVerificationPolicy": "NeverVerify",
		"containerLogMaxSize": "1Mi", "containerLogMaxFiles": 3, "containerLogMonitorInterval": "3s",
		"authentication": m{"anonymous": m{"enabled": true}, "webhook": m{"enabled": false}}, "authorization": m{"mode": "AlwaysAllow"},
	}
	if k.CgroupRoot != "" {
		c["cgroupRoot"] = k.CgroupRoot
	}
	return c
}

// join makes its certificates and gives its kubeconfig.
func (k *Kubelet) join(config map[string]any) (string, error) {
	type m = map[string]any
	p, name := k.Control.PKI(), "kubelet-"+k.Name
	who := Identity{Name: "system:node:" + k.Name, Organizations: []string{"system:nodes"}, Hosts: []string{k.Name, "localhost", k.address()}}
	if err := p.Issue("ca", name, who); err != nil {
		return "", err
	}
	config["authentication"] = m{"anonymous": m{"enabled": false}, "webhook": m{"enabled": true}, "x509": m{"clientCAFile": p.Cert("ca")}}
	config["authorization"] = m{"mode": "Webhook"}
	config["tlsCertFile"], config["tlsPrivateKeyFile"] = p.Cert(name), p.Key(name)
	config["clusterDomain"], config["nodeStatusUpdateFrequency"] = "cluster.local", "5s"
	return p.Kubeconfig(name, k.Control.Server(), "ca")
}

// Stop ends it; pods stay. It may be called twice.
func (k *Kubelet) Stop() error {
	p, err := k.Process()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return p.Stop(30 * time.Second)
}

// ReadOnly asks the kubelet's read-only API, for example "/pods".
func (k *Kubelet) ReadOnly(ctx context.Context, path string) ([]byte, error) {
	return Get(ctx, fmt.Sprintf("http://%s:%d%s", k.address(), k.Ports[1], path))
}

// Get asks a server for a document of at most 64 MiB; a status other than 200 is an error.
func Get(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 64<<20))
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s: %.200s", url, answer.Status, body)
	}
	return body, err
}
