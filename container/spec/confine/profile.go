package confine

import (
	"strings"

	"github.com/crid-project/crid/container/spec/field"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Profile is a checked SecurityProfile. Nil means that none was named.
type Profile struct {
	Name string // of the field, for errors
	Type runtime.SecurityProfile_ProfileType
	// Ref is the localhost reference: a path for seccomp, a name for AppArmor.
	Ref string
}

// Default answers what stands for p on this node: RuntimeDefault is the profile
// in file if that is set, a path on the node; anything else is p itself.
func (p *Profile) Default(file string) *Profile {
	if p == nil || file == "" || p.Type != runtime.SecurityProfile_RuntimeDefault {
		return p
	}
	return &Profile{Name: p.Name, Type: runtime.SecurityProfile_Localhost, Ref: file}
}

// unconfined tells whether no profile applies.
func (p *Profile) unconfined() bool {
	return p == nil || p.Type == runtime.SecurityProfile_Unconfined
}

// newProfile reads a SecurityProfile, or the deprecated string where there is
// no message ("runtime/default", "docker/default", "unconfined",
// "localhost/<ref>", "" for not specified).
func newProfile(name string, in *runtime.SecurityProfile, oldName, old string) (*Profile, error) {
	const localhost = "localhost/"
	if in == nil {
		switch {
		case old == "":
			return nil, nil
		case old == "runtime/default" || old == "docker/default":
			return &Profile{Name: oldName, Type: runtime.SecurityProfile_RuntimeDefault}, nil
		case old == "unconfined":
			return &Profile{Name: oldName, Type: runtime.SecurityProfile_Unconfined}, nil
		case strings.HasPrefix(old, localhost) && len(old) > len(localhost):
			return &Profile{Name: oldName, Type: runtime.SecurityProfile_Localhost, Ref: old[len(localhost):]}, nil
		}
		return nil, field.Invalid(oldName, `must be "runtime/default", "unconfined" or "localhost/<profile>", got %q`, field.Short(old))
	}
	// The reference should come bare, but clients that used to write the
	// deprecated string still send the prefix.
	p := &Profile{Name: name, Type: in.GetProfileType(), Ref: strings.TrimPrefix(in.GetLocalhostRef(), localhost)}
	switch p.Type {
	case runtime.SecurityProfile_RuntimeDefault, runtime.SecurityProfile_Unconfined:
		if p.Ref != "" {
			return nil, field.Invalid(name+".localhost_ref", "must only be set with profile_type Localhost, got %q", field.Short(p.Ref))
		}
	case runtime.SecurityProfile_Localhost:
		if p.Ref == "" {
			return nil, field.Invalid(name+".localhost_ref", "must be set with profile_type Localhost")
		}
	default:
		return nil, field.Invalid(name+".profile_type", "unknown type %d", p.Type)
	}
	return p, nil
}
