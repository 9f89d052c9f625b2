package spec

import (
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/crid-project/crid/container/plan"
	"github.com/crid-project/crid/container/spec/confine"
	"github.com/crid-project/crid/container/spec/field"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func podCopy(pod *runtime.PodSandboxConfig) *runtime.PodSandboxConfig { return proto.CloneOf(pod) }

// namespaces reads namespace_options. Network, IPC and the user namespace are
// the pod's whatever the container says; a container that asks for the node's
// where the pod has its own is refused rather than quietly given the pod's.
func (b *builder) namespaces() error {
	name := "config.linux.security_context.namespace_options"
	mine := b.cfg.GetLinux().GetSecurityContext().GetNamespaceOptions()
	pods := b.pod.GetLinux().GetSecurityContext().GetNamespaceOptions()
	for _, ns := range []struct {
		name      string
		mine, pod runtime.NamespaceMode
		own       *bool
	}{
		{".network", mine.GetNetwork(), pods.GetNetwork(), &b.plan.HostNetwork},
		{".ipc", mine.GetIpc(), pods.GetIpc(), &b.plan.HostIPC},
	} {
		*ns.own = ns.pod == runtime.NamespaceMode_NODE
		switch ns.mine {
		case runtime.NamespaceMode_POD:
		case runtime.NamespaceMode_NODE:
			if !*ns.own {
				return field.Invalid(name+ns.name, "cannot be NODE, the pod's is %s", ns.pod)
			}
		default:
			return field.Invalid(name+ns.name, "must be POD or NODE, got %s", ns.mine)
		}
	}
	if err := b.pidNamespace(name, mine, pods); err != nil {
		return err
	}
	return b.userNamespace(name+".userns_options", mine.GetUsernsOptions(), pods.GetUsernsOptions())
}

func (b *builder) pidNamespace(name string, mine, pods *runtime.NamespaceOption) error {
	target := mine.GetTargetId()
	switch mode := mine.GetPid(); mode {
	case runtime.NamespaceMode_POD:
		// Also where the pod was run with CONTAINER: the hands make a namespace
		// to share when the first container asks for one.
		b.plan.PID = plan.PIDPod
		if pods.GetPid() == runtime.NamespaceMode_NODE {
			b.plan.PID = plan.PIDNode // the pod's is the node's
		}
	case runtime.NamespaceMode_CONTAINER:
		b.plan.PID = plan.PIDContainer
	case runtime.NamespaceMode_NODE:
		if pods.GetPid() != runtime.NamespaceMode_NODE {
			return field.Invalid(name+".pid", "cannot be NODE, the pod's is %s", pods.GetPid())
		}
		b.plan.PID = plan.PIDNode
	case runtime.NamespaceMode_TARGET:
		if target == "" {
			return field.Invalid(name+".target_id", "must be set with pid TARGET")
		}
		b.plan.PID, b.plan.TargetID = plan.PIDTarget, target
		return field.Line(name+".target_id", target, 256)
	default:
		return field.Invalid(name+".pid", "unknown mode %d", mode)
	}
	if target != "" {
		return field.Invalid(name+".target_id", "must only be set with pid TARGET")
	}
	return nil
}

// userNamespace takes the pod's mappings; a container may repeat them, not
// differ.
func (b *builder) userNamespace(name string, mine, pods *runtime.UserNamespace) error {
	uids, gids, err := confine.UserNamespace("sandbox_config.linux.security_context.namespace_options.userns_options", pods)
	if err != nil {
		return err
	}
	if mine != nil {
		u, g, err := confine.UserNamespace(name, mine)
		if err != nil {
			return err
		}
		if !slices.Equal(u, uids) || !slices.Equal(g, gids) {
			return field.Invalid(name, "must be the same as the pod's")
		}
	}
	if uids != nil {
		b.plan.UserNS = &plan.IDMap{UIDs: uids, GIDs: gids}
	}
	return nil
}

// addNamespaces fills in linux.namespaces: joined by path, or own ones.
func (b *builder) addNamespaces(s *oci.Spec, f plan.Facts) error {
	ns := []oci.LinuxNamespace{{Type: oci.MountNamespace}}
	join := func(t oci.LinuxNamespaceType, path string) {
		if path != "" {
			ns = append(ns, oci.LinuxNamespace{Type: t, Path: path})
		}
	}
	join(oci.NetworkNamespace, f.NetNS)
	join(oci.IPCNamespace, f.IPCNS)
	join(oci.UTSNamespace, f.UTSNS)
	switch b.plan.PID {
	case plan.PIDContainer:
		ns = append(ns, oci.LinuxNamespace{Type: oci.PIDNamespace})
	case plan.PIDNode:
	case plan.PIDPod, plan.PIDTarget:
		if f.PIDNS == "" {
			return fmt.Errorf("join process namespace: none was found to join: %w", errdefs.ErrFailedPrecondition)
		}
		join(oci.PIDNamespace, f.PIDNS)
	}
	if f.Kernel.CgroupV2 && !b.plan.Privileged {
		ns = append(ns, oci.LinuxNamespace{Type: oci.CgroupNamespace})
	}
	if m := b.plan.UserNS; m != nil {
		ns = append(ns, oci.LinuxNamespace{Type: oci.UserNamespace, Path: f.UserNS})
		s.Linux.UIDMappings, s.Linux.GIDMappings = slices.Clone(m.UIDs), slices.Clone(m.GIDs)
	}
	s.Linux.Namespaces = ns
	return nil
}
