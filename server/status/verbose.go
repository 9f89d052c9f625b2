package status

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/store"
)

// maxSpec bounds the read of a bundle's config.json: one is some tens of
// kilobytes, and only crid and the runtime write it.
const maxSpec = 4 << 20

// facts is what verbose status shows, as JSON under the key "info".
type facts struct {
	SandboxID      string          `json:"sandboxID,omitempty"`
	Pid            int             `json:"pid"`
	PidStartTime   uint64          `json:"pidStartTime,omitempty"`
	ShimPid        int             `json:"shimPid"`
	ShimAddress    string          `json:"shimAddress"`
	ShimBinary     string          `json:"shimBinary,omitempty"`
	Bundle         string          `json:"bundle"`
	RuntimeHandler string          `json:"runtimeHandler"`
	State          string          `json:"state"`
	StopStage      string          `json:"stopStage,omitempty"`
	ExitCodeFrom   string          `json:"exitCodeFrom,omitempty"`
	Owes           string          `json:"owes,omitempty"`
	Why            string          `json:"why,omitempty"`
	Lifecycle      any             `json:"lifecycle"`
	Cgroup         string          `json:"cgroup,omitempty"`
	Form           string          `json:"form,omitempty"`
	Namespaces     *namespaces     `json:"namespaces,omitempty"`
	CNI            json.RawMessage `json:"cniResult,omitempty"`
	Config         any             `json:"config,omitempty"`
	RuntimeSpec    json.RawMessage `json:"runtimeSpec,omitempty"`
}

type namespaces struct {
	Net  string `json:"net,omitempty"`
	IPC  string `json:"ipc,omitempty"`
	UTS  string `json:"uts,omitempty"`
	PID  string `json:"pid,omitempty"`
	User string `json:"user,omitempty"`
}

// PodInfo is the verbose part of PodSandboxStatus. It reads the bundle's OCI
// spec from disk, if the pod has one.
func PodInfo(p *store.Pod) map[string]string {
	f := facts{
		Pid: p.PauseInit.Pid, PidStartTime: p.PauseInit.StartTime,
		ShimPid: p.Shim.Process.Pid, ShimAddress: p.Shim.Address, ShimBinary: p.Shim.Binary,
		Bundle: p.Shim.Bundle, RuntimeHandler: p.Handler,
		State: p.State.Phase.String(), Owes: p.State.Owes().String(), Why: p.State.Why, Lifecycle: p.State,
		Cgroup: p.Cgroup, Form: "pinned",
		Namespaces: &namespaces{p.NetNS, p.IPCNS, p.UTSNS, p.PIDNS, p.UserNS},
		CNI:        p.Net,
		Config:     PodConfig(p.Config),
	}
	if p.Pause {
		f.Form = "pause"
	}
	f.RuntimeSpec = readSpec(p.Shim.Bundle)
	return f.info()
}

// ContainerInfo is the verbose part of ContainerStatus; pod may be nil, bundle
// is the container's.
func ContainerInfo(c *store.Container, pod *store.Pod, bundle string) map[string]string {
	f := facts{
		SandboxID: c.PodID,
		Pid:       c.Init.Pid, PidStartTime: c.Init.StartTime,
		Bundle: bundle, RuntimeHandler: c.Handler,
		State: c.State.Phase.String(), StopStage: c.State.Stop.String(), Owes: c.State.Owes().String(),
		ExitCodeFrom: c.State.Exit.Source.String(), Lifecycle: c.State,
		Cgroup: c.Cgroup,
		Config: ContainerConfig(c.Config),
	}
	if pod != nil {
		f.ShimPid, f.ShimAddress, f.ShimBinary = pod.Shim.Process.Pid, pod.Shim.Address, pod.Shim.Binary
	}
	f.RuntimeSpec = readSpec(bundle)
	return f.info()
}

func (f facts) info() map[string]string {
	b, err := json.Marshal(f)
	if err != nil {
		// A result or a spec that is not JSON: show the rest.
		f.CNI, f.RuntimeSpec = nil, nil
		if b, err = json.Marshal(f); err != nil {
			return map[string]string{"error": `"cannot be shown"`}
		}
	}
	return map[string]string{"info": string(b)}
}

// readSpec answers config.json of a bundle; nil if there is none or it is not
// what it should be.
func readSpec(bundle string) json.RawMessage {
	if bundle == "" {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(bundle, "config.json"), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() || fi.Size() > maxSpec {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSpec))
	if err != nil || !json.Valid(b) {
		return nil
	}
	return b
}
