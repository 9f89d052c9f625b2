package host

import (
	"sync/atomic"

	"github.com/containerd/containerd/v2/contrib/apparmor"
	"github.com/crid-project/crid/container/plan"
	"github.com/crid-project/crid/container/spec"
	"github.com/crid-project/crid/container/spec/confine"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/selinux/go-selinux/label"
)

// appArmorProfile is the name under which the default profile is loaded.
const appArmorProfile = "crid-default"

// Options returns the looks at this node for a kernel whose facts are known.
// cdiDirs are the directories of CDI specs; none means CDI's own defaults.
// Allow-lists and limits are left for the caller to add.
func Options(k plan.Kernel, cdiDirs ...string) spec.Options {
	o := spec.Options{
		Kernel:      k,
		ReadFile:    ReadFile,
		Devices:     Devices,
		HostDevices: HostDevices,
		CDI: func(s *oci.Spec, names []string) error {
			return injectCDI(cdiDirs, s, names)
		},
	}
	if k.SELinux {
		o.SELinux = label.InitLabels
	}
	if k.AppArmor {
		o.AppArmor = AppArmor()
	}
	return o
}

// appArmorHasDefault is true once this process has loaded the default profile:
// a fact about the kernel, hence one for all handlers.
var appArmorHasDefault atomic.Bool

// AppArmor looks into the kernel's list of profiles, and loads the default one
// with apparmor_parser when it is first needed.
func AppArmor() confine.AppArmorSource {
	return confine.AppArmorSource{
		Default: func() (string, error) {
			// Loading twice does no harm, so no lock is needed.
			if !appArmorHasDefault.Load() {
				if err := apparmor.LoadDefaultProfile(appArmorProfile); err != nil {
					return "", err
				}
				appArmorHasDefault.Store(true)
			}
			return appArmorProfile, nil
		},
		Loaded: appArmorLoaded,
	}
}
