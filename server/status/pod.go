package status

import (
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

// PodState is SANDBOX_READY only while the pod is; every other phase has
// something broken, stopping or gone.
func PodState(p *store.Pod) cri.PodSandboxState {
	if p.State.Phase == lifecycle.Ready {
		return cri.PodSandboxState_SANDBOX_READY
	}
	return cri.PodSandboxState_SANDBOX_NOTREADY
}

// PodMetadata is the pod's name.
func PodMetadata(p *store.Pod) *cri.PodSandboxMetadata {
	return &cri.PodSandboxMetadata{Name: p.Name.Name, Namespace: p.Name.Namespace, Uid: p.Name.UID, Attempt: p.Name.Attempt}
}

// PodItem is the pod as ListPodSandbox shows it.
func PodItem(p *store.Pod) *cri.PodSandbox {
	cfg := PodConfig(p.Config)
	return &cri.PodSandbox{
		Id:             p.ID,
		Metadata:       PodMetadata(p),
		State:          PodState(p),
		CreatedAt:      p.CreatedAt,
		Labels:         cfg.GetLabels(),
		Annotations:    cfg.GetAnnotations(),
		RuntimeHandler: p.Handler,
	}
}

// Pod is the pod as PodSandboxStatus and the container events show it.
func Pod(p *store.Pod) *cri.PodSandboxStatus {
	cfg := PodConfig(p.Config)
	return &cri.PodSandboxStatus{
		Id:             p.ID,
		Metadata:       PodMetadata(p),
		State:          PodState(p),
		CreatedAt:      p.CreatedAt,
		Network:        podNetwork(p),
		Linux:          &cri.LinuxPodSandboxStatus{Namespaces: &cri.Namespace{Options: podNamespaces(cfg)}},
		Labels:         cfg.GetLabels(),
		Annotations:    cfg.GetAnnotations(),
		RuntimeHandler: p.Handler,
	}
}

// podNetwork is never nil: CRI clients read through it. It is empty for the
// host's network, whose addresses are not the pod's.
func podNetwork(p *store.Pod) *cri.PodSandboxNetworkStatus {
	n := &cri.PodSandboxNetworkStatus{}
	if len(p.IPs) == 0 {
		return n
	}
	n.Ip = p.IPs[0]
	for _, ip := range p.IPs[1:] {
		n.AdditionalIps = append(n.AdditionalIps, &cri.PodIP{Ip: ip})
	}
	return n
}

func podNamespaces(cfg *cri.PodSandboxConfig) *cri.NamespaceOption {
	o := cfg.GetLinux().GetSecurityContext().GetNamespaceOptions()
	return &cri.NamespaceOption{
		Network:       o.GetNetwork(),
		Pid:           o.GetPid(),
		Ipc:           o.GetIpc(),
		TargetId:      o.GetTargetId(),
		UsernsOptions: o.GetUsernsOptions(),
	}
}

// PodAttributes is the pod as statistics name it.
func PodAttributes(p *store.Pod) *cri.PodSandboxAttributes {
	cfg := PodConfig(p.Config)
	return &cri.PodSandboxAttributes{Id: p.ID, Metadata: PodMetadata(p), Labels: cfg.GetLabels(), Annotations: cfg.GetAnnotations()}
}

// Timestamp is the newest time that a status of p and its containers speaks
// of: later statuses never carry an earlier one, whatever the clock did.
func Timestamp(now int64, p *store.Pod, members []*store.Container) int64 {
	t := max(now, p.CreatedAt)
	for _, c := range members {
		t = max(t, c.CreatedAt, c.StartedAt, c.FinishedAt())
	}
	return t
}
