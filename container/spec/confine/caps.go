package confine

import (
	"slices"
	"strings"

	"github.com/crid-project/crid/container/spec/field"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// defaultCaps is what every container has that asks for nothing: the set that
// Docker settled on and Kubernetes documents.
var defaultCaps = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// knownCaps are all that capabilities(7) names, in the order of their numbers.
var knownCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
	"CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
	"CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
	"CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
	"CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

const allCaps = "ALL"

// CapWish is a checked Capability message: names in full, sorted, without
// doubles; "ALL" stands apart.
type CapWish struct {
	name                        string
	addAll, dropAll, ambientAll bool
	add, drop, ambient          []string
	privileged                  bool
}

// Capabilities checks in. Names may lack "CAP_" and be in any case; an unknown
// one is refused even where it would be dropped, since a misspelt drop leaves
// what was meant to go.
func Capabilities(name string, in *runtime.Capability, privileged bool) (*CapWish, error) {
	w := &CapWish{name: name, privileged: privileged}
	for _, l := range []struct {
		name  string
		in    []string
		all   *bool
		names *[]string
	}{
		{".add_capabilities", in.GetAddCapabilities(), &w.addAll, &w.add},
		{".drop_capabilities", in.GetDropCapabilities(), &w.dropAll, &w.drop},
		{".add_ambient_capabilities", in.GetAddAmbientCapabilities(), &w.ambientAll, &w.ambient},
	} {
		for i, c := range l.in {
			full := strings.ToUpper(c)
			if full == allCaps {
				*l.all = true
				continue
			}
			if !strings.HasPrefix(full, "CAP_") {
				full = "CAP_" + full
			}
			if !slices.Contains(knownCaps, full) {
				return nil, field.Invalid(field.At(name+l.name, i), "unknown capability %q", field.Short(c))
			}
			*l.names = append(*l.names, full)
		}
		slices.Sort(*l.names)
		*l.names = slices.Compact(*l.names)
	}
	return w, nil
}

// Sets returns the capability sets. have is what this process may give, and
// what ALL means. "ALL" is applied first, adding before dropping, then the
// single ones, so that add ALL drop NET_RAW and drop ALL add CHOWN mean what
// they say. Asking by name for a capability that this process lacks is
// refused, as the runtime would fail with a bare EPERM.
//
// Inheritable is empty but for the ambient ones, which need it: otherwise a
// file with inheritable capabilities in the image would gain them
// (CVE-2022-24769).
func (w *CapWish) Sets(have []string) (*oci.LinuxCapabilities, error) {
	if w.privileged {
		all := sorted(have)
		return &oci.LinuxCapabilities{Bounding: all, Permitted: slices.Clone(all), Effective: slices.Clone(all)}, nil
	}
	set := map[string]bool{}
	base := defaultCaps
	switch {
	case w.dropAll:
		base = nil
	case w.addAll:
		base = have
	}
	for _, c := range base {
		set[c] = slices.Contains(have, c)
	}
	var ambient []string
	if w.ambientAll {
		ambient = append(ambient, have...)
	}
	ambient = append(ambient, w.ambient...)
	for _, c := range slices.Concat(w.add, ambient) {
		if slices.Contains(w.drop, c) {
			continue
		}
		if !slices.Contains(have, c) {
			return nil, field.Unsupported(w.name, "%s was asked for, but this node's runtime does not have it to give", c)
		}
		set[c] = true
	}
	for _, c := range w.drop {
		delete(set, c)
	}
	var all []string
	for c, ok := range set {
		if ok {
			all = append(all, c)
		}
	}
	all = sorted(all)
	ambient = sorted(slices.DeleteFunc(ambient, func(c string) bool { return !set[c] }))
	return &oci.LinuxCapabilities{
		Bounding: all, Permitted: slices.Clone(all), Effective: slices.Clone(all),
		Inheritable: ambient, Ambient: slices.Clone(ambient),
	}, nil
}

func sorted(in []string) []string {
	out := slices.Clone(in)
	slices.Sort(out)
	return slices.Compact(out)
}
