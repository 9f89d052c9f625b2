package harness

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/images/kit"
)

var serial atomic.Uint64

// Pod is the configuration of a small pod in the home's cgroup and log folder, with a name of its own. Change what the test is about.
func (h *Home) Pod(name string) *runtimeapi.PodSandboxConfig {
	n := serial.Add(1)
	uid := fmt.Sprintf("%s-uid-%d", name, n)
	return &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "e2e", Uid: uid},
		Hostname:     name,
		LogDirectory: filepath.Join(h.PodLogs(), "e2e_"+name+"_"+uid),
		Labels:       map[string]string{"e2e": name},
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent:    h.parent(uid),
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}},
		},
	}
}

// Forget removes what a kubelet makes for a pod: its cgroup parent, its logs. It fails if a runtime has left anything in the parent.
func (h *Home) Forget(p *runtimeapi.PodSandboxConfig) error {
	errs := []error{os.RemoveAll(p.GetLogDirectory())}
	parent := h.ParentPath(p.GetLinux().GetCgroupParent())
	for _, top := range []string{cgroupRoot, cgroupRoot + "/*"} {
		dirs, err := filepath.Glob(top + parent)
		errs = append(errs, err)
		for _, dir := range dirs {
			errs = append(errs, os.Remove(dir))
		}
	}
	return errors.Join(errs...)
}

// HostNetwork makes a pod share the host's network.
func HostNetwork(p *runtimeapi.PodSandboxConfig) *runtimeapi.PodSandboxConfig {
	p.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_NODE
	p.Hostname = ""
	return p
}

// SharedPID makes the containers of a pod see each other's processes. (They must ask for it, too.)
func SharedPID(p *runtimeapi.PodSandboxConfig) *runtimeapi.PodSandboxConfig {
	p.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
	return p
}

// Container is the configuration of a container of busybox that runs a command; without one, it sleeps until it is told to stop.
func Container(name string, command ...string) *runtimeapi.ContainerConfig {
	if len(command) == 0 {
		command = []string{"sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done"}
	}
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name},
		Image:    &runtimeapi.ImageSpec{Image: kit.Busybox},
		Command:  command,
		LogPath:  name + "_0.log",
		Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}}},
	}
}
