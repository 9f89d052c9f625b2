package host

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"
)

// injectCDI edits spec for the named devices, by the CDI specs in dirs (none:
// CDI's own defaults). They are read anew each time: few containers ask, and
// nothing has to be watched meanwhile.
func injectCDI(dirs []string, spec *oci.Spec, names []string) error {
	opts := []cdi.Option{cdi.WithAutoRefresh(false)}
	if len(dirs) > 0 {
		opts = append(opts, cdi.WithSpecDirs(dirs...))
	}
	cache, err := cdi.NewCache(opts...)
	if err != nil {
		return fmt.Errorf("open CDI specs: %w", err)
	}
	missing, err := cache.InjectDevices(spec, names...)
	if err == nil {
		return nil
	}
	if len(missing) == 0 {
		return fmt.Errorf("inject CDI devices: %w", err)
	}
	// A broken spec of another vendor does not keep a device back; it is worth
	// a word where the device was not found.
	hint := ""
	if broken := cache.Refresh(); broken != nil {
		hint = fmt.Sprintf(" (some could not be read: %v)", broken)
	}
	return fmt.Errorf("no CDI spec in %s has %s%s: %w",
		strings.Join(cache.GetSpecDirectories(), ", "), strings.Join(missing, ", "), hint, errdefs.ErrNotFound)
}
