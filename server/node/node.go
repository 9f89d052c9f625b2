package node

import (
	"context"
	"encoding/json"
	"log/slog"
	"regexp"
	"runtime"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// Name is the runtime's name in Version.
	Name = "crid"
	// kubeletAPI is the only version of the kubelet's runtime API there ever
	// was; a kubelet refuses any other answer, whatever it asked for.
	kubeletAPI = "0.1.0"
	// criAPI is the version of CRI that is spoken. Older ones are gRPC
	// services of their own, which gRPC answers with Unimplemented.
	criAPI = "v1"
)

// Handler is a runtime handler with what it can do.
type Handler struct {
	Name string
	// Default is true for the one that the empty name selects.
	Default bool
	// RecursiveReadOnly, UserNamespaces are features of kernel and runtime.
	RecursiveReadOnly, UserNamespaces bool
}

// Deps are what a [Node] needs.
type Deps struct {
	// Version is crid's own, as semantic versioning wants it.
	Version string
	// Systemd is true for the systemd cgroup driver.
	Systemd bool
	// Handlers answers the configured handlers, in a stable order.
	Handlers func() []Handler
	// Runtime and Network tell whether pods can be run, and with a network;
	// reason says why not. Both must answer at once.
	Runtime, Network func() (ok bool, reason string)
	// HostNetworkUserNS: pods with host network and user namespace work.
	HostNetworkUserNS bool
	// Info is shown in verbose status, by key; values become JSON. It must
	// hold no secrets.
	Info func() map[string]any
	// PodCIDR is told what UpdateRuntimeConfig brings; may be nil.
	PodCIDR func(string) error
	Log     *slog.Logger
}

// Node implements the calls about the runtime of CRI's RuntimeService.
type Node struct{ d Deps }

// New makes a [Node].
func New(d Deps) *Node {
	if d.Log == nil {
		d.Log = slog.Default()
	}
	return &Node{d}
}

// Version answers what is spoken here; whoever asked for another decides.
func (n *Node) Version(context.Context, *cri.VersionRequest) (*cri.VersionResponse, error) {
	return &cri.VersionResponse{
		Version: kubeletAPI, RuntimeName: Name, RuntimeVersion: numbered(n.d.Version), RuntimeApiVersion: criAPI,
	}, nil
}

// release is how a version begins that a kubelet can read.
var release = regexp.MustCompile(`^v?\d+\.\d+`)

// numbered makes a version one that begins with numbers, as a kubelet wants it
// (k8s.io/apimachinery/pkg/util/version): of a build that has no release it
// would show "crid://Unknown".
func numbered(version string) string {
	if release.MatchString(version) {
		return version
	}
	return "0.0.0-" + version
}

// Status answers the two conditions that a kubelet requires, the handlers and
// the features.
func (n *Node) Status(_ context.Context, r *cri.StatusRequest) (*cri.StatusResponse, error) {
	resp := &cri.StatusResponse{
		Status: &cri.RuntimeStatus{Conditions: []*cri.RuntimeCondition{
			condition(cri.RuntimeReady, "RuntimeNotReady", n.d.Runtime),
			condition(cri.NetworkReady, "NetworkPluginNotReady", n.d.Network),
		}},
		RuntimeHandlers: n.handlers(),
		Features: &cri.RuntimeFeatures{
			SupplementalGroupsPolicy:  true,
			UserNamespacesHostNetwork: n.d.HostNetworkUserNS,
			MountOptions:              true,
		},
	}
	if r.GetVerbose() {
		resp.Info = n.info()
	}
	return resp, nil
}

func condition(typ, reason string, ask func() (bool, string)) *cri.RuntimeCondition {
	c := &cri.RuntimeCondition{Type: typ, Status: true}
	if ask == nil {
		return c
	}
	if ok, why := ask(); !ok {
		c.Status, c.Reason, c.Message = false, reason, why
	}
	return c
}

// handlers lists every handler by its name, and the default again by the empty
// name, which is how most pods ask for it.
func (n *Node) handlers() []*cri.RuntimeHandler {
	var out []*cri.RuntimeHandler
	for _, h := range n.d.Handlers() {
		f := &cri.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: h.RecursiveReadOnly, UserNamespaces: h.UserNamespaces}
		if h.Default {
			out = append(out, &cri.RuntimeHandler{Name: "", Features: f})
		}
		out = append(out, &cri.RuntimeHandler{Name: h.Name, Features: f})
	}
	return out
}

func (n *Node) info() map[string]string {
	out := map[string]string{"golang": `"` + runtime.Version() + `"`}
	if n.d.Info == nil {
		return out
	}
	for k, v := range n.d.Info() {
		if b, err := json.Marshal(v); err == nil {
			out[k] = string(b)
		}
	}
	return out
}

// RuntimeConfig answers the cgroup driver, which a kubelet then uses too.
func (n *Node) RuntimeConfig(context.Context, *cri.RuntimeConfigRequest) (*cri.RuntimeConfigResponse, error) {
	driver := cri.CgroupDriver_CGROUPFS
	if n.d.Systemd {
		driver = cri.CgroupDriver_SYSTEMD
	}
	return &cri.RuntimeConfigResponse{Linux: &cri.LinuxRuntimeConfiguration{CgroupDriver: driver}}, nil
}

// UpdateRuntimeConfig takes note of the node's pod CIDR. The CNI configuration
// decides about addresses; nothing is changed by this.
func (n *Node) UpdateRuntimeConfig(_ context.Context, r *cri.UpdateRuntimeConfigRequest) (*cri.UpdateRuntimeConfigResponse, error) {
	cidr := r.GetRuntimeConfig().GetNetworkConfig().GetPodCidr()
	if cidr != "" {
		n.d.Log.Info("the kubelet told the pod CIDR", "pod_cidr", cidr)
		if n.d.PodCIDR != nil {
			if err := n.d.PodCIDR(cidr); err != nil {
				return nil, err
			}
		}
	}
	return &cri.UpdateRuntimeConfigResponse{}, nil
}
