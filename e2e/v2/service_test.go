//go:build e2e

package v2

import (
	"context"
	"encoding/json"
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
	"github.com/crid-project/crid/e2e/story"
)

// guestEnv says that the machine is a guest that is thrown away: a test may install things.
const guestEnv = "CRID_E2E_GUEST"

const bridge = `{"cniVersion":"1.0.0","name":"crid-e2e","plugins":[{"type":"bridge","bridge":"crid-e2e0","isGateway":true,
"ipam":{"type":"host-local","ranges":[[{"subnet":"10.248.0.0/24"}]]}}]}`

// install puts crid where the shipped unit and the defaults expect it, and nothing else: there is no configuration file.
func install(t *testing.T) {
	t.Helper()
	bin, err := project.Bin("")
	if err != nil {
		t.Fatal(err)
	}
	root, err := project.Root()
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"/usr/local/bin", "/opt/cni", "/etc/cni/net.d", "/etc/systemd/system"} {
		must(os.MkdirAll(dir, 0o755))
	}
	copyTo := func(dir string, files ...string) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "cp", append(append([]string{"-a"}, files...), dir)...).CombinedOutput()
		if err != nil {
			t.Fatalf("install: %v: %s", err, out)
		}
	}
	copyTo("/usr/local/bin/", bin+"/crid", bin+"/runc", bin+"/containerd-shim-runc-v2")
	copyTo("/opt/cni/bin", bin+"/cni")
	copyTo("/etc/systemd/system/", root+"/contrib/crid.service")
	must(os.WriteFile("/etc/cni/net.d/10-crid-e2e.conflist", []byte(bridge), 0o644))
	must(kit.WriteHosts("/etc/crid/certs.d", harness.Registry(t).Addr))
	if out := systemctl(t, "daemon-reload"); out != "" {
		t.Log(out)
	}
}

// pidIn is the main process of a container, as its verbose status has it.
func pidIn(t *testing.T, ctx context.Context, cri *harness.CRI, id string) string {
	t.Helper()
	r, err := cri.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	var info struct{ Pid int }
	if err := json.Unmarshal([]byte(r.GetInfo()["info"]), &info); err != nil || info.Pid < 2 {
		t.Fatalf("the verbose status has no pid: %v: %v", err, r.GetInfo())
	}
	return strconv.Itoa(info.Pid)
}

// ownCgroup is the path of a process below /sys/fs/cgroup.
func ownCgroup(t *testing.T, pid string) string {
	t.Helper()
	return strings.TrimPrefix(read(t, "/proc/"+pid, "cgroup"), "0::")
}

// The unit as it is shipped, with the defaults and without a configuration file: ready when it says so, under systemd's own driver; pods
// outlive a restart, a crash and a stop of the service.
func TestTheServiceAsShipped(t *testing.T) {
	needV2(t)
	if os.Getenv(guestEnv) == "" {
		t.Skip("needs a machine to install on (the guest)")
	}
	if name, err := os.ReadFile("/proc/1/comm"); err != nil || strings.TrimSpace(string(name)) != "systemd" {
		t.Skip("needs systemd as process 1")
	}
	install(t)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	service(t, ctx, "start")
	t.Cleanup(func() { _ = exec.Command("systemctl", "stop", "crid").Run() }) // the test's own context is over by then
	cri, err := harness.Dial("/run/crid/crid.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer cri.Close()
	if r, err := cri.Runtime.RuntimeConfig(ctx, &runtimeapi.RuntimeConfigRequest{}); err != nil || r.GetLinux().GetCgroupDriver() != runtimeapi.CgroupDriver_SYSTEMD {
		t.Errorf("the kubelet is told of driver %s (%v)", r.GetLinux().GetCgroupDriver(), err)
	}
	if _, err := cri.Pull(ctx, kit.Busybox); err != nil {
		t.Fatal(err)
	}
	config := &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: "p", Namespace: "e2e", Uid: "service"}, Hostname: "p", LogDirectory: "/var/log/crid-e2e",
		Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}}}}
	pod, err := cri.RunPod(ctx, config, "")
	if err != nil {
		t.Fatal(err)
	}
	container := story.Sleeper("c")
	id, err := cri.Run(ctx, pod, container, config)
	if err != nil {
		t.Fatal(err)
	}
	pid := pidIn(t, ctx, cri, id)
	if got := ownCgroup(t, pid); got != "/crid.slice/crid-"+pod[:32]+".slice/crid-"+id+".scope" {
		t.Errorf("the container is in %s", got)
	}
	if got := ownCgroup(t, systemctl(t, "show", "-p", "MainPID", "--value", "crid")); got != "/system.slice/crid.service" {
		t.Errorf("crid is in %s", got)
	}
	same := func(when string) {
		t.Helper()
		s, err := cri.Status(ctx, id)
		if err != nil || s.GetState() != running {
			t.Fatalf("after %s the container is %s (%v)", when, s.GetState(), err)
		}
		if now := pidIn(t, ctx, cri, id); now != pid {
			t.Errorf("after %s process %s has become %s", when, pid, now)
		}
		if r, err := cri.Exec(ctx, id, "echo", "alive"); err != nil || string(r.GetStdout()) != "alive\n" {
			t.Errorf("after %s an exec says %q (%v)", when, r.GetStdout(), err)
		}
	}
	same("the start")
	service(t, ctx, "restart")
	same("a restart")

	before := systemctl(t, "show", "-p", "MainPID", "--value", "crid")
	systemctl(t, "kill", "-s", "KILL", "--kill-who=main", "crid")
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		now := systemctl(t, "show", "-p", "MainPID", "--value", "crid")
		if now != before && now != "0" && systemctl(t, "is-active", "crid") == "active" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after a crash systemd does not start it again: %s", systemctl(t, "status", "--no-pager", "crid"))
		}
	}
	same("a crash")

	service(t, ctx, "stop")
	if data, err := os.ReadFile(filepath.Join("/proc", pid, "comm")); err != nil {
		t.Fatalf("a stop of the service has ended the container: %v %s", err, data)
	}
	service(t, ctx, "start")
	same("a stop and a start")
	if err := cri.StopContainer(ctx, id, 20); err != nil {
		t.Fatal(err)
	}
	if s, err := cri.Status(ctx, id); err != nil || s.GetExitCode() != 0 || s.GetState() != exited {
		t.Errorf("stopped, it is %s with %d (%v)", s.GetState(), s.GetExitCode(), err)
	}
	service(t, ctx, "stop")
	out, err := exec.CommandContext(ctx, "/usr/local/bin/crid", "reset", "--yes").CombinedOutput()
	if err != nil {
		t.Errorf("crid reset: %v: %s", err, out)
	}
	if units := systemctl(t, "list-units", "--all", "--plain", "--no-legend", "--no-pager", "crid-*", "crid.slice"); units != "" {
		t.Errorf("after a reset systemd knows of %s", units)
	}
	if data, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(data), " /run/crid/") {
		t.Errorf("after a reset something is mounted below /run/crid (%v)", err)
	}
}

// service has systemd do something to the service, which must work.
func service(t *testing.T, ctx context.Context, verb string) {
	t.Helper()
	if out, err := exec.CommandContext(ctx, "systemctl", verb, "crid").CombinedOutput(); err != nil {
		t.Fatalf("systemctl %s: %v: %s\n%s", verb, err, out, systemctl(t, "status", "--no-pager", "crid"))
	}
}
