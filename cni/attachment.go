package cni

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/pkg/utils"
)

// Attachment is one pod's wish to be on the network.
type Attachment struct {
	// ID is the pod's id, CNI_CONTAINERID.
	ID string
	// NetNS is the path of the pod's network namespace.
	NetNS string
	// Name, Namespace, UID are the pod's, for plugins that know Kubernetes.
	Name, Namespace, UID string
	// Ports are the mappings with a host port; others are left out.
	Ports []Port
	// Ingress, Egress are limits in bits per second; 0: none.
	Ingress, Egress uint64
	// Args are further CNI_ARGS; they cannot replace the pod's name.
	Args map[string]string
	// Annotations are the pod's, for plugins with the capability
	// io.kubernetes.cri.pod-annotations.
	Annotations map[string]string
	// DNS is given to plugins with the capability dns; nil: not given.
	DNS *DNS
	// CgroupPath is the pod's cgroup parent, for the capability cgroupPath.
	CgroupPath string
}

// Port is one port mapping.
type Port struct {
	Protocol      string // "tcp", "udp", "sctp"
	ContainerPort int32
	HostPort      int32
	HostIP        string
}

// DNS is the content of a resolv.conf.
type DNS struct {
	Servers  []string `json:"servers,omitempty"`
	Searches []string `json:"searches,omitempty"`
	Options  []string `json:"options,omitempty"`
}

// validate refuses what could not be told to a plugin without meaning
// something else: CNI_ARGS has no quoting.
func (a Attachment) validate() error {
	if err := utils.ValidateContainerID(a.ID); err != nil {
		return fmt.Errorf("pod id %q: %s: %w", a.ID, err.Msg, errdefs.ErrInvalidArgument)
	}
	for _, kv := range a.cniArgs() {
		if kv[0] == "" || strings.ContainsAny(kv[0], "=;\x00\n") || strings.ContainsAny(kv[1], ";\x00\n") {
			return fmt.Errorf("CNI argument %q=%q has a character that CNI_ARGS cannot hold: %w", kv[0], kv[1], errdefs.ErrInvalidArgument)
		}
	}
	if strings.ContainsRune(a.NetNS, 0) {
		return fmt.Errorf("network namespace path %q: %w", a.NetNS, errdefs.ErrInvalidArgument)
	}
	for _, p := range a.Ports {
		if p.HostPort < 0 || p.HostPort > math.MaxUint16 || p.ContainerPort < 0 || p.ContainerPort > math.MaxUint16 {
			return fmt.Errorf("port mapping %d to %d is out of range: %w", p.HostPort, p.ContainerPort, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// cniArgs are CNI_ARGS as Kubernetes runtimes give them.
func (a Attachment) cniArgs() [][2]string {
	args := [][2]string{
		{"IgnoreUnknown", "1"},
		{"K8S_POD_NAMESPACE", a.Namespace},
		{"K8S_POD_NAME", a.Name},
		{"K8S_POD_INFRA_CONTAINER_ID", a.ID},
		{"K8S_POD_UID", a.UID},
	}
	for _, key := range slices.Sorted(maps.Keys(a.Args)) {
		if !slices.ContainsFunc(args[:5], func(kv [2]string) bool { return kv[0] == key }) {
			args = append(args, [2]string{key, a.Args[key]})
		}
	}
	return args
}

// capabilities are the dynamic settings of CNI's CONVENTIONS.md. A plugin gets
// those that its configuration says it is capable of.
func (a Attachment) capabilities() map[string]any {
	caps := map[string]any{}
	var ports []map[string]any
	for _, p := range a.Ports {
		if p.HostPort <= 0 {
			continue
		}
		ports = append(ports, map[string]any{
			"hostPort": p.HostPort, "containerPort": p.ContainerPort,
			"protocol": strings.ToLower(p.Protocol), "hostIP": p.HostIP,
		})
	}
	if len(ports) > 0 {
		caps["portMappings"] = ports
	}
	if a.Ingress > 0 || a.Egress > 0 {
		// The burst is the largest that tc takes: the limit is the rate alone.
		limits := map[string]any{}
		if a.Ingress > 0 {
			limits["ingressRate"], limits["ingressBurst"] = a.Ingress, uint64(math.MaxUint32)
		}
		if a.Egress > 0 {
			limits["egressRate"], limits["egressBurst"] = a.Egress, uint64(math.MaxUint32)
		}
		caps["bandwidth"] = limits
	}
	if a.DNS != nil {
		caps["dns"] = a.DNS
	}
	if a.CgroupPath != "" {
		caps["cgroupPath"] = a.CgroupPath
	}
	if len(a.Annotations) > 0 {
		caps["io.kubernetes.cri.pod-annotations"] = a.Annotations
	}
	return caps
}
