package confine

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/errdefs"
	"github.com/crid-project/crid/container/spec/field"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// MaxProfile is the largest seccomp profile file that is read, in bytes.
const MaxProfile = 1 << 20

// seccompActions are the default actions a profile may have.
var seccompActions = []oci.LinuxSeccompAction{
	oci.ActKill, oci.ActKillProcess, oci.ActKillThread, oci.ActTrap, oci.ActErrno, oci.ActTrace, oci.ActAllow, oci.ActLog, oci.ActNotify,
}

// Seccomp checks the seccomp wish of a container or pod; nil is "unconfined",
// by CRI's words on the deprecated field.
func Seccomp(name string, in *runtime.SecurityProfile, oldName, old string) (*Profile, error) {
	p, err := newProfile(name, in, oldName, old)
	if err != nil || p == nil {
		return nil, err
	}
	if p.Type == runtime.SecurityProfile_Localhost {
		if p.Ref, err = field.AbsPath(p.Name+".localhost_ref", p.Ref, false); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// ApplySeccomp puts the profile into spec. It must come after the
// capabilities, by which the default profile widens itself. read reads at most
// that many bytes of a file on the node. A privileged process has none.
func ApplySeccomp(spec *oci.Spec, p *Profile, privileged, available bool, read func(path string, limit int64) ([]byte, error)) error {
	switch {
	case privileged || p.unconfined():
		return nil
	case !available:
		return field.Unsupported(p.Name, "this kernel has no seccomp; only Unconfined can be asked for")
	case p.Type == runtime.SecurityProfile_RuntimeDefault:
		spec.Linux.Seccomp = seccomp.DefaultProfile(spec)
		return nil
	case read == nil:
		return field.Unsupported(p.Name, "profiles on the node cannot be read here")
	}
	raw, err := read(p.Ref, MaxProfile)
	if err != nil {
		return fmt.Errorf("%s: read seccomp profile %q: %w", p.Name, p.Ref, err)
	}
	profile := &oci.LinuxSeccomp{}
	if err := json.Unmarshal(raw, profile); err != nil {
		return fmt.Errorf("%s: parse seccomp profile %q: %w: %w", p.Name, p.Ref, err, errdefs.ErrInvalidArgument)
	}
	if !slices.Contains(seccompActions, profile.DefaultAction) {
		return field.Invalid(p.Name, "seccomp profile %q has defaultAction %q, which is none", p.Ref, field.Short(string(profile.DefaultAction)))
	}
	spec.Linux.Seccomp = profile
	return nil
}
