package status

import (
	"strings"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/store"
)

// Ledger is what lists are answered from; *store.Ledger is one.
type Ledger interface {
	// Pods and Containers answer snapshots of all, the newest first.
	Pods() []*store.Pod
	Containers() []*store.Container
	// Members answers the containers of one pod.
	Members(podID string) []*store.Container
	// Pod and Container find one by its id or an unambiguous beginning of it.
	Pod(id string) (*store.Pod, error)
	Container(id string) (*store.Container, error)
}

// Pods answers the pods that CRI shows and keep wants; nil wants all.
func Pods(l Ledger, keep func(*store.Pod) bool) []*store.Pod {
	all := l.Pods()
	out := all[:0:0]
	for _, p := range all {
		if p.State.Visible() && (keep == nil || keep(p)) {
			out = append(out, p)
		}
	}
	return out
}

// Containers answers the containers that CRI shows and keep wants; nil wants all.
func Containers(l Ledger, keep func(*store.Container) bool) []*store.Container {
	return Shown(l.Containers(), keep)
}

// Members answers the containers of a pod that CRI shows.
func Members(l Ledger, podID string) []*store.Container {
	return Shown(l.Members(podID), nil)
}

// Shown answers those of all that CRI shows and keep wants.
func Shown(all []*store.Container, keep func(*store.Container) bool) []*store.Container {
	out := all[:0:0]
	for _, c := range all {
		if c.State.Visible() && (keep == nil || keep(c)) {
			out = append(out, c)
		}
	}
	return out
}

// PodFilter wants what CRI's filter does: all its fields that are set. An id
// may be the beginning of one.
func PodFilter(f *cri.PodSandboxFilter) func(*store.Pod) bool {
	if f == nil {
		return nil
	}
	return func(p *store.Pod) bool {
		return strings.HasPrefix(p.ID, f.GetId()) &&
			(f.GetState() == nil || f.GetState().GetState() == PodState(p)) &&
			selects(f.GetLabelSelector(), PodConfig(p.Config).GetLabels())
	}
}

// ContainerFilter is PodFilter for containers.
func ContainerFilter(f *cri.ContainerFilter) func(*store.Container) bool {
	if f == nil {
		return nil
	}
	return func(c *store.Container) bool {
		return strings.HasPrefix(c.ID, f.GetId()) && strings.HasPrefix(c.PodID, f.GetPodSandboxId()) &&
			(f.GetState() == nil || f.GetState().GetState() == ContainerState(c)) &&
			selects(f.GetLabelSelector(), ContainerConfig(c.Config).GetLabels())
	}
}

// PodStatsFilter is PodFilter for statistics.
func PodStatsFilter(f *cri.PodSandboxStatsFilter) func(*store.Pod) bool {
	if f == nil {
		return nil
	}
	return PodFilter(&cri.PodSandboxFilter{Id: f.GetId(), LabelSelector: f.GetLabelSelector()})
}

// ContainerStatsFilter is ContainerFilter for statistics.
func ContainerStatsFilter(f *cri.ContainerStatsFilter) func(*store.Container) bool {
	if f == nil {
		return nil
	}
	return ContainerFilter(&cri.ContainerFilter{Id: f.GetId(), PodSandboxId: f.GetPodSandboxId(), LabelSelector: f.GetLabelSelector()})
}

// selects reports whether labels has every pair of the selector.
func selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}
