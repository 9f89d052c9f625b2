//go:build kube

package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/images/kit"
	"github.com/crid-project/crid/e2e/project"
	"github.com/crid-project/crid/hack/kube/cluster"
)

// guestEnv says that the machine is thrown away afterwards.
const guestEnv = "CRID_E2E_GUEST"

const socket = "/run/crid/crid.sock"

const network = `{"cniVersion":"1.0.0","name":"node","plugins":[{"type":"bridge","bridge":"node0","isGateway":true,
"ipam":{"type":"host-local","ranges":[[{"subnet":"10.248.0.0/24"}]]}}]}`

// limited is Burstable, so that memory.high lies between request and limit; alone is in a user namespace of its own.
const (
	limited = `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "limited", "namespace": "default"}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": %q,
 "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"],
 "resources": {"requests": {"memory": "32Mi", "cpu": "50m"}, "limits": {"memory": "128Mi", "cpu": "500m"}}}]}}`
	alone = `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "alone", "namespace": "default"}, "spec": {"hostUsers": false, "terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": %q,
 "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"]}]}}`
)

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// install puts crid where the unit and the defaults expect it; there is no configuration file.
func install(t *testing.T) {
	t.Helper()
	root, err := project.Root()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"/usr/local/bin", "/opt/cni", "/etc/cni/net.d", "/etc/systemd/system"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	bin := filepath.Join(root, "bin")
	run(t, "cp", "-a", bin+"/crid", bin+"/runc", bin+"/containerd-shim-runc-v2", "/usr/local/bin/")
	run(t, "cp", "-a", bin+"/cni", "/opt/cni/bin")
	run(t, "cp", "-a", root+"/contrib/crid.service", "/etc/systemd/system/")
	if err := os.WriteFile("/etc/cni/net.d/10-node.conflist", []byte(network), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := kit.WriteHosts("/etc/crid/certs.d", harness.Registry(t).Addr); err != nil {
		t.Fatal(err)
	}
	run(t, "systemctl", "daemon-reload")
	run(t, "systemctl", "start", "crid.service") // Type=notify: it answers when this returns
	t.Cleanup(func() {
		_ = exec.CommandContext(context.Background(), "crid", "reset", "--yes").Run()
	})
}

// container is one that runs, as crid's verbose status has it.
type container struct{ id, pid, cgroup string }

func await(t *testing.T, limit time.Duration, what string, condition func() error) {
	t.Helper()
	begun, deadline := time.Now(), time.Now().Add(limit)
	for {
		err := condition()
		if err == nil {
			t.Logf("%s: after %.0f s", what, time.Since(begun).Seconds())
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, limit, err)
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// running waits for the pod's container.
func running(t *testing.T, cri *harness.CRI, pod string) container {
	t.Helper()
	var found container
	await(t, 10*time.Minute, pod+" runs", func() error {
		all, err := cri.Containers(t.Context())
		if err != nil {
			return err
		}
		for _, c := range all {
			if c.GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING && strings.HasPrefix(c.GetLabels()["io.kubernetes.pod.name"], pod) {
				found.id = c.GetId()
				return nil
			}
		}
		return fmt.Errorf("%d containers, none of it runs", len(all))
	})
	r, err := cri.Runtime.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: found.id, Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	var info struct{ Pid int }
	if err := json.Unmarshal([]byte(r.GetInfo()["info"]), &info); err != nil || info.Pid < 2 {
		t.Fatalf("no pid: %v %v", err, r.GetInfo())
	}
	found.pid = strconv.Itoa(info.Pid)
	line := read(t, "/proc/"+found.pid+"/cgroup")
	found.cgroup = filepath.Join("/sys/fs/cgroup", strings.TrimPrefix(line, "0::"))
	return found
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

func TestKubeletUnderSystemd(t *testing.T) {
	if os.Getenv(guestEnv) == "" {
		t.Skip("needs a machine that is thrown away (make test-kubelet-v2)")
	}
	install(t)
	k := &cluster.Kubelet{Dir: "/scratch/kubelet", Socket: socket, Verbosity: 3,
		Config: map[string]any{"cgroupDriver": "cgroupfs", // which is wrong, and overruled by crid
			"featureGates":           map[string]bool{"PodAndContainerStatsFromCRI": true, "MemoryQoS": true},
			"memoryThrottlingFactor": 0.9, "memoryReservationPolicy": "TieredReservation"}}
	t.Cleanup(func() {
		if t.Failed() {
			if p, err := k.Process(); err == nil {
				t.Log(p.LogTail(60)) // the guest and its files are gone with the test
			}
		}
		if err := k.Stop(); err != nil {
			t.Error(err)
		}
	})
	begun := time.Now()
	if err := k.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("the kubelet is healthy after %.0f s", time.Since(begun).Seconds())
	for name, text := range map[string]string{"limited": limited, "alone": alone} {
		if err := os.WriteFile(filepath.Join(k.Manifests(), name+".json"), fmt.Appendf(nil, text, kit.Busybox), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cri, err := harness.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cri.Close)
	one := running(t, cri, "limited")
	two := running(t, cri, "alone")

	t.Run("the driver is agreed", func(t *testing.T) { driver(t, k, one) })
	t.Run("limits", func(t *testing.T) { limits(t, one) })
	t.Run("pressure", func(t *testing.T) { pressure(t, k, one) })
	t.Run("user namespace", func(t *testing.T) { userNamespace(t, two) })
	t.Run("restart of the service", func(t *testing.T) { restart(t, cri, one) })
	t.Run("removal", func(t *testing.T) { removal(t, k, cri, one) })
}

// driver: the kubelet's configuration says cgroupfs, crid says systemd.
func driver(t *testing.T, k *cluster.Kubelet, c container) {
	log := read(t, filepath.Join(k.Dir, "kubelet.log"))
	if !strings.Contains(log, `"Using cgroup driver setting received from the CRI runtime" cgroupDriver="systemd"`) {
		t.Error("the kubelet has not taken the driver from crid")
	}
	dirs := strings.Split(strings.TrimPrefix(c.cgroup, "/sys/fs/cgroup/"), "/")
	if len(dirs) != 4 || dirs[0] != "kubepods.slice" || dirs[1] != "kubepods-burstable.slice" || !strings.HasPrefix(dirs[2], "kubepods-burstable-pod") || !strings.HasSuffix(dirs[3], c.id+".scope") {
		t.Errorf("the container's cgroup is %s", c.cgroup)
	}
	if out := run(t, "systemctl", "show", "-p", "ActiveState", filepath.Base(c.cgroup)); !strings.Contains(out, "=active") {
		t.Errorf("systemd says of the scope: %s", out)
	}
}

func limits(t *testing.T, c container) {
	for file, want := range map[string]string{"memory.max": "134217728", "cpu.max": "50000 100000", "memory.oom.group": "1", "memory.low": "33554432"} {
		if have := read(t, filepath.Join(c.cgroup, file)); have != want {
			t.Errorf("%s is %s, not %s", file, have, want)
		}
	}
	high, err := strconv.Atoi(read(t, filepath.Join(c.cgroup, "memory.high")))
	if err != nil || high <= 32<<20 || high >= 128<<20 {
		t.Errorf("memory.high is %d (%v): memory QoS puts it between request and limit", high, err)
	}
}

func pressure(t *testing.T, k *cluster.Kubelet, c container) {
	if _, err := os.Stat(filepath.Join(c.cgroup, "memory.pressure")); err != nil {
		t.Skip("the kernel has no pressure information")
	}
	await(t, 3*time.Minute, "pressure of the container in /stats/summary", func() error {
		data, err := k.ReadOnly(t.Context(), "/stats/summary")
		if err != nil {
			return err
		}
		var summary struct {
			Pods []struct {
				PodRef     struct{ Name string }
				Containers []struct {
					CPU, Memory struct{ PSI *struct{ Full, Some any } }
				}
			}
		}
		if err := json.Unmarshal(data, &summary); err != nil {
			return err
		}
		for _, p := range summary.Pods {
			if strings.HasPrefix(p.PodRef.Name, "limited") && len(p.Containers) == 1 && p.Containers[0].CPU.PSI != nil && p.Containers[0].Memory.PSI != nil {
				return nil
			}
		}
		return errors.New("not there")
	})
}

func userNamespace(t *testing.T, c container) {
	fields := strings.Fields(read(t, "/proc/"+c.pid+"/uid_map"))
	if len(fields) != 3 || fields[0] != "0" || fields[1] == "0" || fields[2] != "65536" {
		t.Errorf("uid_map is %v", fields)
	}
}

// restart: the service is restarted, the container does not notice.
func restart(t *testing.T, cri *harness.CRI, c container) {
	run(t, "systemctl", "restart", "crid.service")
	if again := running(t, cri, "limited"); again != c {
		t.Errorf("before %+v, after %+v", c, again)
	}
}

func removal(t *testing.T, k *cluster.Kubelet, cri *harness.CRI, c container) {
	for _, name := range []string{"limited", "alone"} {
		if err := os.Remove(filepath.Join(k.Manifests(), name+".json")); err != nil {
			t.Fatal(err)
		}
	}
	await(t, 5*time.Minute, "no container is left", func() error {
		all, err := cri.Containers(t.Context())
		if err == nil && len(all) > 0 {
			err = fmt.Errorf("%d are left", len(all))
		}
		return err
	})
	if _, err := os.Stat(c.cgroup); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the scope's cgroup is left: %v", err)
	}
}
