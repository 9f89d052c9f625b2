package server

import (
	"strings"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/server/status"
	"github.com/crid-project/crid/store/lifecycle"
)

// PodCounts answers the pods by CRI state ("ready", "notready"), for metrics.
// Every state is there, even with none in it.
func PodCounts(l status.Ledger) map[string]int {
	out := map[string]int{}
	for _, name := range cri.PodSandboxState_name {
		out[lower(name, "SANDBOX_")] = 0
	}
	for _, p := range status.Pods(l, nil) {
		out[lower(status.PodState(p).String(), "SANDBOX_")]++
	}
	return out
}

// ContainerCounts answers the containers by CRI state, as PodCounts.
func ContainerCounts(l status.Ledger) map[string]int {
	out := map[string]int{}
	for _, name := range cri.ContainerState_name {
		out[lower(name, "CONTAINER_")] = 0
	}
	for _, c := range status.Containers(l, nil) {
		out[lower(status.ContainerState(c).String(), "CONTAINER_")]++
	}
	return out
}

// TaskCounts answers the containers by the law's phase, those nobody is shown
// included, as PodCounts.
func TaskCounts(l status.Ledger) map[string]int {
	out := map[string]int{}
	for p := lifecycle.Making; p < lifecycle.Gone; p++ {
		out[p.String()] = 0
	}
	for _, c := range l.Containers() {
		out[c.State.Phase.String()]++
	}
	return out
}

func lower(name, prefix string) string { return strings.ToLower(strings.TrimPrefix(name, prefix)) }
