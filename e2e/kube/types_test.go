//go:build e2e

package kube

import (
	"encoding/json"
	"slices"
	"time"
)

// pod is what the tests read of a Kubernetes Pod.
type pod struct {
	Metadata struct {
		Name, Namespace, UID string
		DeletionTimestamp    *time.Time
	}
	Spec   struct{ NodeName string }
	Status podStatus
}

type podStatus struct {
	Phase, PodIP, HostIP, Reason, Message, QOSClass string
	Conditions                                      []struct{ Type, Status, Reason, Message string }
	InitContainerStatuses                           []containerStatus
	ContainerStatuses                               []containerStatus
	EphemeralContainerStatuses                      []containerStatus
	Resources                                       json.RawMessage
}

type containerStatus struct {
	Name, ContainerID, Image, ImageID string
	Ready                             bool
	Started                           *bool
	RestartCount                      int
	State, LastState                  containerState
	Resources                         struct{ Limits, Requests map[string]string }
	User                              struct {
		Linux struct {
			UID, GID           int64
			SupplementalGroups []int64
		}
	}
	StopSignal   string
	VolumeMounts []struct{ Name, MountPath string }
}

type containerState struct {
	Waiting    *struct{ Reason, Message string }
	Running    *struct{ StartedAt time.Time }
	Terminated *struct {
		ExitCode              int
		Reason, Message       string
		StartedAt, FinishedAt time.Time
		ContainerID           string
	}
}

// container is the status of the container of that name; the zero value if there is none yet.
func (p *pod) container(name string) containerStatus {
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses) {
		if c.Name == name {
			return c
		}
	}
	return containerStatus{}
}

func (p *pod) condition(kind string) string {
	for _, c := range p.Status.Conditions {
		if c.Type == kind {
			return c.Status
		}
	}
	return ""
}

func (p *pod) ready() bool { return p.condition("Ready") == "True" }
