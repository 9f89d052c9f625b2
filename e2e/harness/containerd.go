package harness

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/crid-project/crid/e2e/images/kit"
	"github.com/crid-project/crid/e2e/project"
)

// Containerd is the peer, for comparison: it checks that a test or an image is right before crid is blamed, and it is what the
// benchmark compares with. Same runc, same shim, same plugins as Crid. Pods that name no cgroup parent get cgroups under /k8s.io, whatever
// the home's cgroup is.
type Containerd struct {
	Level   string // of the log; default info
	Plugins string // folder of CNI plugins to look into before bin/cni
	Runc    string // path of a program that stands in for runc; default bin/runc
}

// Name is "containerd".
func (Containerd) Name() string { return "containerd" }

// Env lets shims find runc by its name too: containerd asks them for their features without saying where it is.
func (Containerd) Env() []string {
	bin, err := project.Bin("")
	if err != nil {
		return nil
	}
	return []string{"PATH=" + bin + ":" + os.Getenv("PATH")}
}

// Prepare writes config.toml. Everything that containerd would keep outside its root and state is moved into the home.
func (c Containerd) Prepare(h *Home) (string, []string, error) {
	program, err := project.Bin("peer/containerd")
	if err != nil {
		return "", nil, fmt.Errorf("%w (hack/parts.sh containerd)", err)
	}
	bin := filepath.Dir(filepath.Dir(program))
	level := c.Level
	if level == "" {
		level = "info"
	}
	runc, plugins := c.Runc, ""
	if runc == "" {
		runc = filepath.Join(bin, "runc")
	}
	if c.Plugins != "" {
		plugins = "'" + c.Plugins + "', "
	}
	text := fmt.Sprintf(`version = 4
root = %[1]q
state = %[2]q
imports = []
disabled_plugins = ['io.containerd.nri.v1.nri', 'io.containerd.snapshotter.v1.blockfile', 'io.containerd.snapshotter.v1.devmapper', 'io.containerd.snapshotter.v1.btrfs', 'io.containerd.snapshotter.v1.zfs', 'io.containerd.tracing.processor.v1.otlp']
[plugins.'io.containerd.server.v1.grpc']
address = %[3]q
[plugins.'io.containerd.server.v1.ttrpc']
address = '%[3]s.ttrpc'
[plugins.'io.containerd.shim.v1.manager']
socket_dir = '%[2]s/s'
[plugins.'io.containerd.internal.v1.opt']
path = '%[4]s/opt'
[plugins.'io.containerd.cri.v1.images'.registry]
config_path = %[5]q
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = %[6]q
[plugins.'io.containerd.cri.v1.runtime']
netns_mounts_under_state_dir = true
restrict_oom_score_adj = true # a root without CAP_SYS_RESOURCE could start no pod otherwise
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = [%[9]s'%[7]s/cni']
conf_dir = %[8]q
[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = 'runc'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
runtime_path = '%[7]s/containerd-shim-runc-v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = '%[10]s'
Root = '%[4]s/runc'
SystemdCgroup = false
[plugins.'io.containerd.grpc.v1.cri']
stream_server_address = '127.0.0.1'
stream_server_port = '0'
`, h.Root(), h.State(), h.Socket(), h.Dir, h.Certs(), kit.Pause, bin, h.CNIConf(), plugins, runc)
	if err := os.WriteFile(h.Config(), []byte(text), 0o644); err != nil {
		return "", nil, err
	}
	return program, []string{"--config", h.Config(), "--log-level", level}, nil
}
