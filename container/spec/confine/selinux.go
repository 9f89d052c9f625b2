package confine

import (
	"regexp"

	"github.com/crid-project/crid/container/spec/field"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// LabelFunc makes a process and a mount label from options ("user:u",
// "role:r", "type:t", "level:s0:c1,c2", or the single "disable").
type LabelFunc func(options []string) (process, mount string, err error)

var (
	selinuxWord  = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,128}$`)
	selinuxLevel = regexp.MustCompile(`^s\d{1,2}(-s\d{1,2})?(:c\d{1,4}(\.c\d{1,4})?(,c\d{1,4}(\.c\d{1,4})?){0,64})?$`)
)

// SELinuxOptions checks in and returns it as options for a [LabelFunc]; nil
// where nothing is asked for.
func SELinuxOptions(name string, in *runtime.SELinuxOption) ([]string, error) {
	var out []string
	for _, o := range []struct {
		key, value string
		shape      *regexp.Regexp
	}{
		{"user", in.GetUser(), selinuxWord}, {"role", in.GetRole(), selinuxWord},
		{"type", in.GetType(), selinuxWord}, {"level", in.GetLevel(), selinuxLevel},
	} {
		if o.value == "" {
			continue
		}
		if !o.shape.MatchString(o.value) {
			return nil, field.Invalid(name+"."+o.key, "is not a SELinux %s: %q", o.key, field.Short(o.value))
		}
		out = append(out, o.key+":"+o.value)
	}
	return out, nil
}
