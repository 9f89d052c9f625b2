package confine

import (
	"slices"

	"github.com/crid-project/crid/container/spec/field"
)

// defaultMasked and defaultReadonly are what Kubernetes' default proc mount
// hides; a client that names no paths gets them too.
var (
	defaultMasked = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	}
	defaultReadonly = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
	// alwaysMasked leak what other tenants compute through energy readings
	// (GHSA-7ww5-4wqc-m92c); older clients' lists lack it.
	alwaysMasked = []string{"/sys/devices/virtual/powercap"}
)

// Paths checks masked_paths or readonly_paths.
func Paths(name string, in []string) ([]string, error) {
	const most = 4096
	if len(in) > most {
		return nil, field.Invalid(name, "has %d entries, at most %d are taken", len(in), most)
	}
	var out []string
	for i, p := range in {
		clean, err := field.AbsPath(field.At(name, i), p, true)
		if err != nil {
			return nil, err
		}
		out = append(out, clean)
	}
	return out, nil
}

// Masks returns the masked and read-only paths of a process that is not
// privileged. A list that was sent is honoured; an empty one means the
// defaults, except in a user namespace, where it is how the kubelet asks for an
// unmasked proc (procMount: Unmasked, which it allows only there).
// machine are further default masks of this node.
func Masks(masked, readonly []string, userNamespace bool, machine []string) (mask, ro []string) {
	switch {
	case len(masked) > 0:
		mask = union(masked, alwaysMasked)
	case !userNamespace:
		mask = union(defaultMasked, machine)
	}
	switch {
	case len(readonly) > 0:
		ro = readonly
	case !userNamespace:
		ro = defaultReadonly
	}
	return mask, slices.Clone(ro)
}

func union(a, b []string) []string {
	out := slices.Clone(a)
	for _, p := range b {
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}
