package confine

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/crid-project/crid/container/spec/field"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// AppArmorSource tells about the profiles of this node's kernel. A nil member
// means that it cannot be found out here.
type AppArmorSource struct {
	// Default loads the default profile where needed and returns its name.
	Default func() (string, error)
	// Loaded tells whether the kernel has a profile of that name.
	Loaded func(name string) (bool, error)
}

// AppArmor checks the AppArmor wish of a container or pod.
func AppArmor(name string, in *runtime.SecurityProfile, oldName, old string) (*Profile, error) {
	p, err := newProfile(name, in, oldName, old)
	if err != nil || p == nil {
		return nil, err
	}
	if err := field.Line(p.Name+".localhost_ref", p.Ref, 1024); err != nil {
		return nil, err
	}
	if strings.ContainsAny(p.Ref, " \t") {
		return nil, field.Invalid(p.Name+".localhost_ref", "a profile name has no spaces, got %q", field.Short(p.Ref))
	}
	return p, nil
}

// AppArmorName returns the profile to run under, "" for none. Not specified
// means the default profile (kubernetes#51746), which a privileged process
// does not get. A kernel without AppArmor cannot confine: a named profile is
// refused, the default is left out.
func AppArmorName(p *Profile, privileged, available bool, src AppArmorSource) (string, error) {
	if p == nil {
		p = &Profile{Name: "apparmor", Type: runtime.SecurityProfile_RuntimeDefault}
	}
	switch {
	case p.Type == runtime.SecurityProfile_Unconfined:
		return "", nil
	case p.Type == runtime.SecurityProfile_RuntimeDefault:
		if privileged || !available || src.Default == nil {
			return "", nil
		}
		name, err := src.Default()
		if err != nil {
			return "", fmt.Errorf("%s: load default AppArmor profile: %w", p.Name, err)
		}
		return name, nil
	case !available:
		return "", field.Unsupported(p.Name, "this kernel has no AppArmor, profile %q cannot be applied", p.Ref)
	case src.Loaded == nil:
		return p.Ref, nil
	}
	ok, err := src.Loaded(p.Ref)
	if err != nil {
		return "", fmt.Errorf("%s: look up AppArmor profile %q: %w", p.Name, p.Ref, err)
	}
	if !ok {
		return "", fmt.Errorf("%s: AppArmor profile %q is not loaded; load it with apparmor_parser: %w", p.Name, p.Ref, errdefs.ErrFailedPrecondition)
	}
	return p.Ref, nil
}
