package spec

import (
	"path"
	"regexp"
	"strings"

	"github.com/crid-project/crid/container/plan"
	"github.com/crid-project/crid/container/spec/confine"
	"github.com/crid-project/crid/container/spec/field"
	"github.com/crid-project/crid/container/spec/resources"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// builder is a checked configuration, from which specs are built.
type builder struct {
	cfg  *runtime.ContainerConfig
	pod  *runtime.PodSandboxConfig
	opts Options
	plan *plan.Container

	mounts   []mount
	devices  []device
	cdi      []string
	env      []string
	caps     *confine.CapWish
	seccomp  *confine.Profile
	apparmor *confine.Profile
	selinux  []string
	masked   []string
	readonly []string
	pass     map[string]string // annotations that go into the spec
}

// New checks cfg, which runs in pod, and says what it asks for. Errors name the
// field and wrap ErrInvalidArgument (the request is wrong) or
// ErrFailedPrecondition (this node cannot do it). It does no I/O but by opts,
// keeps copies of cfg and pod, and gives the same plan for the same input.
func New(cfg *runtime.ContainerConfig, pod *runtime.PodSandboxConfig, opts Options) (*plan.Container, error) {
	if cfg == nil {
		return nil, field.Invalid("config", "must be set")
	}
	if pod == nil {
		return nil, field.Invalid("sandbox_config", "must be set")
	}
	b := &builder{
		cfg: Seal(cfg).cri, pod: podCopy(pod), opts: opts,
		plan: &plan.Container{
			Stdin: cfg.GetStdin(), StdinOnce: cfg.GetStdinOnce(), TTY: cfg.GetTty(),
			ReadonlyRootfs: cfg.GetLinux().GetSecurityContext().GetReadonlyRootfs(),
			Privileged:     cfg.GetLinux().GetSecurityContext().GetPrivileged(),
			CgroupParent:   pod.GetLinux().GetCgroupParent(),
		},
	}
	for _, check := range []func() error{
		b.identity, b.logPath, b.process, b.user, b.namespaces, b.security, b.limits, b.checkMounts, b.checkDevices, b.annotations,
	} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	b.plan.Spec, b.plan.Volumes = b.build, b.volumes
	return b.plan, nil
}

// containerName is what Kubernetes allows (a DNS label), and a little more for
// other clients: it becomes part of names, never of paths.
var containerName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$`)

func (b *builder) identity() error {
	name := b.cfg.GetMetadata().GetName()
	if b.cfg.GetMetadata() == nil || name == "" {
		return field.Invalid("config.metadata.name", "must be set")
	}
	if !containerName.MatchString(name) {
		return field.Invalid("config.metadata.name", "must be letters, digits and -_. only, got %q", field.Short(name))
	}
	b.plan.Name = name
	image := b.cfg.GetImage().GetImage()
	if image == "" {
		return field.Invalid("config.image.image", "must be set")
	}
	b.plan.Image = image
	return field.Line("config.image.image", image, 1024)
}

// logPath joins log_path to the pod's log directory and refuses to leave it
// (CVE-2025-0750).
func (b *builder) logPath() error {
	dir, rel := b.pod.GetLogDirectory(), b.cfg.GetLogPath()
	if rel == "" || dir == "" {
		return nil
	}
	dir, err := field.AbsPath("sandbox_config.log_directory", dir, false)
	if err != nil {
		return err
	}
	if err := field.Line("config.log_path", rel, field.MaxPath-1); err != nil {
		return err
	}
	if rel[0] == '/' || field.HasUp(rel) {
		return field.Invalid("config.log_path", `must be relative to the log directory and without "..", got %q`, field.Short(rel))
	}
	full := path.Join(dir, rel)
	if full == dir {
		return field.Invalid("config.log_path", "must name a file, got %q", field.Short(rel))
	}
	if len(full) >= field.MaxPath {
		return field.Invalid("config.log_path", "is too long: %d bytes with the log directory", len(full))
	}
	b.plan.LogPath = full
	return nil
}

func (b *builder) user() error {
	sc, name := b.cfg.GetLinux().GetSecurityContext(), "config.linux.security_context"
	uid, err := confine.ID(name+".run_as_user", sc.GetRunAsUser())
	if err != nil {
		return err
	}
	gid, err := confine.ID(name+".run_as_group", sc.GetRunAsGroup())
	if err != nil {
		return err
	}
	username := sc.GetRunAsUsername()
	switch {
	case uid != nil && username != "":
		return field.Invalid(name+".run_as_username", "cannot be set together with run_as_user")
	case gid != nil && uid == nil && username == "":
		return field.Invalid(name+".run_as_group", "needs run_as_user or run_as_username")
	case strings.ContainsAny(username, ":/") || len(username) > 256:
		return field.Invalid(name+".run_as_username", "is not a user name: %q", field.Short(username))
	}
	if err := field.Line(name+".run_as_username", username, 256); err != nil {
		return err
	}
	groups, err := confine.Groups(name+".supplemental_groups", sc.GetSupplementalGroups())
	if err != nil {
		return err
	}
	u := plan.User{UID: uid, GID: gid, Name: username, SupplementalGroups: groups}
	switch sc.GetSupplementalGroupsPolicy() {
	case runtime.SupplementalGroupsPolicy_Merge:
	case runtime.SupplementalGroupsPolicy_Strict:
		u.Strict = true
	default:
		return field.Invalid(name+".supplemental_groups_policy", "unknown policy %d", sc.GetSupplementalGroupsPolicy())
	}
	b.plan.User = u
	return nil
}

func (b *builder) security() (err error) {
	sc, name := b.cfg.GetLinux().GetSecurityContext(), "config.linux.security_context"
	if sc.GetPrivileged() && !b.pod.GetLinux().GetSecurityContext().GetPrivileged() {
		return field.Invalid(name+".privileged", "the pod was not run as privileged, so no privileged container may run in it")
	}
	if b.caps, err = confine.Capabilities(name+".capabilities", sc.GetCapabilities(), sc.GetPrivileged()); err != nil {
		return err
	}
	//nolint:staticcheck // deprecated fields are honoured as long as cri-api has them
	oldSeccomp, oldAppArmor := sc.GetSeccompProfilePath(), sc.GetApparmorProfile()
	if b.seccomp, err = confine.Seccomp(name+".seccomp", sc.GetSeccomp(), name+".seccomp_profile_path", oldSeccomp); err != nil {
		return err
	}
	if b.apparmor, err = confine.AppArmor(name+".apparmor", sc.GetApparmor(), name+".apparmor_profile", oldAppArmor); err != nil {
		return err
	}
	if b.selinux, err = confine.SELinuxOptions(name+".selinux_options", sc.GetSelinuxOptions()); err != nil {
		return err
	}
	if b.masked, err = confine.Paths(name+".masked_paths", sc.GetMaskedPaths()); err != nil {
		return err
	}
	b.readonly, err = confine.Paths(name+".readonly_paths", sc.GetReadonlyPaths())
	return err
}

func (b *builder) limits() (err error) {
	b.plan.Resources, err = resources.Resources("config.linux.resources", b.cfg.GetLinux().GetResources(), b.opts.Kernel)
	return err
}

// Resources is [resources.Resources] for a container's update.
func Resources(in *runtime.LinuxContainerResources, k plan.Kernel) (*oci.LinuxResources, error) {
	return resources.Resources("linux", in, k)
}
