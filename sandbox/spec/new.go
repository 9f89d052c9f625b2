package spec

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/crid-project/crid/container/spec/confine"
	"github.com/crid-project/crid/container/spec/field"
	"github.com/crid-project/crid/container/spec/resources"
	"github.com/crid-project/crid/sandbox/plan"
	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	security = "config.linux.security_context"
	nsOption = security + ".namespace_options"
)

// builder is a checked configuration.
type builder struct {
	cfg  *runtime.PodSandboxConfig
	opts Options
	plan *plan.Pod

	uid, gid *int64
	groups   []int64
	seccomp  *confine.Profile
	apparmor *confine.Profile
}

// New checks cfg and says what it asks for. Errors name the field and wrap
// ErrInvalidArgument (the request is wrong) or ErrFailedPrecondition (this node
// cannot do it). It does no I/O but by opts.SELinux.
func New(cfg *runtime.PodSandboxConfig, opts Options) (*plan.Pod, error) {
	if cfg == nil {
		return nil, field.Invalid("config", "must be set")
	}
	b := &builder{cfg: proto.CloneOf(cfg), opts: opts, plan: &plan.Pod{
		Privileged: cfg.GetLinux().GetSecurityContext().GetPrivileged(),
	}}
	for _, check := range []func() error{
		b.identity, b.logDirectory, b.namespaces, b.hostname, b.cgroupParent, b.dns, b.ports, b.sysctls, b.bandwidth, b.security, b.limits,
	} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	b.plan.PauseSpec = b.pauseSpec
	b.plan.Annotations = b.cfg.GetAnnotations()
	return b.plan, nil
}

// podName matches what Kubernetes allows for names, namespaces and uids, and a
// little more for other clients. They become parts of names and of arguments to
// CNI plugins ("K=V;K=V"), never of paths.
var podName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,252}[a-zA-Z0-9])?$`)

func (b *builder) identity() error {
	m := b.cfg.GetMetadata()
	if m == nil {
		return field.Invalid("config.metadata", "must be set")
	}
	for _, f := range []struct{ name, value string }{{"name", m.GetName()}, {"namespace", m.GetNamespace()}, {"uid", m.GetUid()}} {
		if f.value == "" {
			return field.Invalid("config.metadata."+f.name, "must be set")
		}
		if !podName.MatchString(f.value) {
			return field.Invalid("config.metadata."+f.name, "must be letters, digits and -_. only, at most 254 of them, got %q", field.Short(f.value))
		}
	}
	for name, in := range map[string]map[string]string{"config.labels": b.cfg.GetLabels(), "config.annotations": b.cfg.GetAnnotations()} {
		if _, ok := in[""]; ok {
			return field.Invalid(name, "a key must not be empty")
		}
	}
	b.plan.Name, b.plan.Namespace, b.plan.UID, b.plan.Attempt = m.GetName(), m.GetNamespace(), m.GetUid(), m.GetAttempt()
	return nil
}

func (b *builder) logDirectory() error {
	dir := b.cfg.GetLogDirectory()
	if dir == "" {
		return nil
	}
	clean, err := field.AbsPath("config.log_directory", dir, false)
	if err == nil && clean == "/" {
		err = field.Invalid("config.log_directory", "must not be the root")
	}
	b.plan.LogDirectory = clean
	return err
}

// namespaces reads namespace_options. CRI's default is POD for each, the
// process namespace included.
func (b *builder) namespaces() error {
	ns := b.cfg.GetLinux().GetSecurityContext().GetNamespaceOptions()
	for _, o := range []struct {
		name string
		mode runtime.NamespaceMode
		host *bool
	}{
		{".network", ns.GetNetwork(), &b.plan.HostNetwork},
		{".ipc", ns.GetIpc(), &b.plan.HostIPC},
	} {
		switch o.mode {
		case runtime.NamespaceMode_POD:
		case runtime.NamespaceMode_NODE:
			*o.host = true
		default:
			return field.Invalid(nsOption+o.name, "must be POD or NODE, got %s", o.mode)
		}
	}
	switch ns.GetPid() {
	case runtime.NamespaceMode_POD:
		b.plan.PodPID = true
	case runtime.NamespaceMode_CONTAINER:
	case runtime.NamespaceMode_NODE:
		b.plan.HostPID = true
	default:
		return field.Invalid(nsOption+".pid", "must be POD, CONTAINER or NODE, got %s", ns.GetPid())
	}
	if ns.GetTargetId() != "" {
		return field.Invalid(nsOption+".target_id", "must not be set for a pod")
	}
	uids, gids, err := confine.UserNamespace(nsOption+".userns_options", ns.GetUsernsOptions())
	if err != nil {
		return err
	}
	if uids != nil {
		b.plan.UserNS = &plan.IDMap{UIDs: uids, GIDs: gids}
		if b.plan.HostPID || b.plan.HostIPC {
			return field.Invalid(nsOption+".userns_options", "cannot be POD together with the node's process or IPC namespace")
		}
	}
	return nil
}

// hostname is written into /etc/hostname and given to sethostname(2). It may end in a dot: where the kubelet has no clusterDomain, the hostname of a pod
// with setHostnameAsFQDN is "web-0.sub.ns.svc.".
var hostname = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,62}[a-zA-Z0-9.])?$`)

func (b *builder) hostname() error {
	h := b.cfg.GetHostname()
	if h == "" {
		return nil
	}
	if !hostname.MatchString(h) {
		return field.Invalid("config.hostname", "must be letters, digits and -_. only, at most 64 of them, got %q", field.Short(h))
	}
	if !b.plan.HostNetwork { // which means the node's UTS namespace
		b.plan.Hostname = h
	}
	return nil
}

// cgroupParent accepts an absolute path, or the name of a systemd slice. The
// colon separates the parts of a systemd cgroup path in an OCI spec.
func (b *builder) cgroupParent() error {
	const name = "config.linux.cgroup_parent"
	p := b.cfg.GetLinux().GetCgroupParent()
	if p == "" {
		return nil
	}
	if err := field.Line(name, p, field.MaxPath-1); err != nil {
		return err
	}
	if field.HasUp(p) || strings.ContainsAny(p, ":") {
		return field.Invalid(name, `must not contain ".." or ":", got %q`, field.Short(p))
	}
	if !strings.HasPrefix(p, "/") && strings.HasSuffix(p, ".slice") && !strings.Contains(p, "/") {
		b.plan.CgroupParent = p
		return nil
	}
	b.plan.CgroupParent = path.Join("/", p)
	return nil
}

func (b *builder) security() (err error) {
	sc := b.cfg.GetLinux().GetSecurityContext()
	if b.uid, err = confine.ID(security+".run_as_user", sc.GetRunAsUser()); err != nil {
		return err
	}
	if b.gid, err = confine.ID(security+".run_as_group", sc.GetRunAsGroup()); err != nil {
		return err
	}
	if b.gid != nil && b.uid == nil {
		return field.Invalid(security+".run_as_group", "needs run_as_user")
	}
	if b.groups, err = confine.Groups(security+".supplemental_groups", sc.GetSupplementalGroups()); err != nil {
		return err
	}
	if _, ok := runtime.SupplementalGroupsPolicy_name[int32(sc.GetSupplementalGroupsPolicy())]; !ok {
		return field.Invalid(security+".supplemental_groups_policy", "unknown policy %d", sc.GetSupplementalGroupsPolicy())
	}
	//nolint:staticcheck // deprecated, but honoured as long as cri-api has it
	old := sc.GetSeccompProfilePath()
	if b.seccomp, err = confine.Seccomp(security+".seccomp", sc.GetSeccomp(), security+".seccomp_profile_path", old); err != nil {
		return err
	}
	if b.apparmor, err = confine.AppArmor(security+".apparmor", sc.GetApparmor(), "", ""); err != nil {
		return err
	}
	return b.labels(sc)
}

// labels makes the SELinux labels that the pod and its containers share.
func (b *builder) labels(sc *runtime.LinuxSandboxSecurityContext) error {
	options, err := confine.SELinuxOptions(security+".selinux_options", sc.GetSelinuxOptions())
	if err != nil || b.opts.SELinux == nil || !b.opts.Kernel.SELinux {
		return err
	}
	if sc.GetPrivileged() && len(options) == 0 {
		options = []string{"disable"}
	}
	if b.plan.ProcessLabel, b.plan.MountLabel, err = b.opts.SELinux(options); err != nil {
		return fmt.Errorf("%s.selinux_options: make labels: %w", security, err)
	}
	return nil
}

func (b *builder) limits() (err error) {
	if in := b.cfg.GetLinux().GetOverhead(); in != nil {
		if b.plan.Overhead, err = resources.Resources("config.linux.overhead", in, b.opts.Kernel); err != nil {
			return err
		}
	}
	if in := b.cfg.GetLinux().GetResources(); in != nil {
		b.plan.Resources, err = resources.Resources("config.linux.resources", in, b.opts.Kernel)
	}
	return err
}
