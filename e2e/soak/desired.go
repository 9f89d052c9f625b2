package soak

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/harness"
)

// workload is a container as somebody desires it.
type workload struct {
	name    string
	kind    string
	script  string
	code    int32 // with which it ends by itself
	restart bool
	memory  int64
}

// pod is a pod as somebody desires it. Its configuration never changes, but for the attempt.
type pod struct {
	config    *runtimeapi.PodSandboxConfig
	workloads []workload
	until     time.Time // when nobody desires it any more
	shared    bool      // PID namespace
	host      bool      // network
	grace     int64

	hurt, leaving atomic.Bool // a fault was aimed at it; it is being stopped: from then on its containers may end with other codes than their own
}

func (p *pod) uid() string { return p.config.GetMetadata().GetUid() }

const idle = "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done"

// newPod makes up a pod.
func newPod(h *harness.Home, rng *rand.Rand, slot int, life time.Duration) *pod {
	p := &pod{config: h.Pod(fmt.Sprintf("soak-%d", slot)), until: time.Now().Add(life/2 + rand.N(life)), grace: int64(1 + rng.IntN(3))}
	switch rng.IntN(8) {
	case 0:
		p.host = true
		harness.HostNetwork(p.config)
	case 1:
		p.shared = true
		harness.SharedPID(p.config)
	case 2:
		p.config.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 80, HostPort: int32(12500 + slot)}}
	}
	for n := range 1 + rng.IntN(3) {
		w := newWorkload(rng, slot == 0 && n == 0)
		w.name = fmt.Sprintf("%s-%d", w.kind, n)
		p.workloads = append(p.workloads, w)
	}
	return p
}

func newWorkload(rng *rand.Rand, talk bool) workload {
	seconds, code := 4+rng.IntN(40), int32(1+rng.IntN(99))
	if talk {
		return talker()
	}
	switch rng.IntN(10) {
	case 0:
		return workload{kind: "stubborn", script: "trap '' TERM; while :; do sleep 3600; done", restart: true}
	case 1, 2:
		return workload{kind: "crasher", script: fmt.Sprintf("trap 'exit 0' TERM; sleep %d & wait $!; exit %d", seconds, code), code: code, restart: true}
	case 3:
		return workload{kind: "job", script: fmt.Sprintf("sleep 1; exit %d", code), code: code}
	case 4:
		return talker()
	case 5:
		return workload{kind: "glutton", script: fmt.Sprintf("sleep %d; exec tail /dev/zero", seconds), code: 137, restart: true, memory: 24 << 20}
	case 6:
		return workload{kind: "parent", script: fmt.Sprintf("sleep 3600 & (trap '' TERM HUP; sleep 3600) & sleep %d; exit %d", seconds, code), code: code, restart: true}
	}
	return workload{kind: "steady", script: idle, restart: true}
}

// talker writes numbered lines without end: its log has to have all of them, in order.
func talker() workload {
	return workload{kind: "talker", restart: true,
		script: "trap 'exit 0' TERM; i=0; while :; do for x in 1 2 3 4 5 6 7 8; do i=$((i+1)); echo line $i; done; sleep 0.7 & wait $!; done"}
}

// title names one attempt at a container in one sandbox; its log and its marks have it.
func title(name string, attempt uint32, sandbox string) string {
	return fmt.Sprintf("%s_%d_%.12s", name, attempt, sandbox)
}

// marks is the folder of a container's mark: every start of its workload adds a line to the file "starts" there.
func marks(h *harness.Home, p *pod, title string) string {
	return filepath.Join(h.Tmp(), "marks", p.uid(), title)
}

// sandbox is the pod's configuration for one attempt.
func (p *pod) sandbox(attempt uint32) *runtimeapi.PodSandboxConfig {
	c := proto.CloneOf(p.config)
	c.Metadata.Attempt = attempt
	return c
}

// container is the configuration of one attempt at a workload.
func (p *pod) container(h *harness.Home, w workload, attempt uint32, sandbox string) (*runtimeapi.ContainerConfig, error) {
	dir := marks(h, p, title(w.name, attempt, sandbox))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	c := harness.Container(w.name, "sh", "-c", "echo start >>/mark/starts; "+w.script)
	c.Metadata.Attempt = attempt
	c.LogPath = title(w.name, attempt, sandbox) + ".log"
	c.Labels = map[string]string{"uid": p.uid()}
	c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/mark", HostPath: dir}}
	if p.shared {
		c.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
	}
	if p.host {
		c.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_NODE
	}
	if w.memory > 0 {
		c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: w.memory}
	}
	return c, nil
}

// workload of a container's name.
func (p *pod) workload(name string) (workload, bool) {
	for _, w := range p.workloads {
		if w.name == name {
			return w, true
		}
	}
	return workload{}, false
}

// wrongEnd tells what is wrong with how a container ended that did run; "" if nothing.
func (p *pod) wrongEnd(w workload, s *runtimeapi.ContainerStatus) string {
	code, oom := s.GetExitCode(), s.GetReason() == "OOMKilled"
	switch {
	case oom && (w.kind != "glutton" || code != 137):
		return fmt.Sprintf("a %s is OOMKilled with code %d", w.kind, code)
	case !p.hurt.Load() && !p.leaving.Load():
		// nothing was done to it and nobody asked for its end: it ended by itself
		if code != w.code || w.kind == "steady" || w.kind == "talker" || w.kind == "stubborn" {
			return fmt.Sprintf("a %s that nobody touched ended with %d, not %d", w.kind, code, w.code)
		}
		if w.kind == "glutton" && !oom {
			return "a glutton that nobody touched is not OOMKilled"
		}
	case code == w.code || code == 137 || code == 143 || code == 255:
	case code == 0 && strings.Contains(w.script, "'exit 0' TERM"):
	default:
		return fmt.Sprintf("a %s ended with %d, which is neither its own code (%d) nor one of a stop or kill", w.kind, code, w.code)
	}
	return ""
}
