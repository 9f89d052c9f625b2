package spec

import (
	"regexp"
	"strings"

	"github.com/crid-project/crid/container/spec/field"
)

// maxSysctlValue is the longest value taken; the kernel cuts at a page.
const maxSysctlValue = 4095

// sysctlKey is the dotted form: elements of letters, digits and a few signs; a
// slash stands for a dot inside an element (an interface "eth0.100").
var sysctlKey = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9_@/-]*(\.[a-zA-Z0-9_][a-zA-Z0-9_@/-]*)+$`)

// sysctls keeps keys that belong to a namespace the pod owns: everything else
// would be written to the node (CVE-2022-0532, CVE-2022-0811).
func (b *builder) sysctls() error {
	in := b.cfg.GetLinux().GetSysctls()
	if len(in) == 0 {
		return nil
	}
	out := make(map[string]string, len(in))
	for raw, value := range in {
		name := field.Key("config.linux.sysctls", raw)
		key := dotted(raw)
		if len(key) > 255 || !sysctlKey.MatchString(key) || strings.Contains(key, "//") {
			return field.Invalid(name, "is not the name of a sysctl")
		}
		switch {
		case strings.HasPrefix(key, "net."):
			if b.plan.HostNetwork {
				return field.Invalid(name, "cannot be set with the node's network namespace")
			}
		case isIPC(key):
			if b.plan.HostIPC {
				return field.Invalid(name, "cannot be set with the node's IPC namespace")
			}
		default:
			return field.Invalid(name, "is not namespaced; only kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.* and net.* can be set for a pod")
		}
		if err := field.Line(name, value, maxSysctlValue); err != nil {
			return err
		}
		if old, ok := out[key]; ok && old != value {
			return field.Invalid(name, "is given twice with different values")
		}
		out[key] = value
	}
	b.plan.Sysctls = out
	return nil
}

// isIPC tells whether a key belongs to the IPC namespace: the same list that
// runc and Kubernetes have.
func isIPC(key string) bool {
	switch key {
	case "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced", "kernel.shm_next_id",
		"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.msg_next_id", "kernel.sem_next_id":
		return true
	}
	return strings.HasPrefix(key, "fs.mqueue.")
}

// dotted returns the dotted form of a key in either form. As in sysctl(8), the
// first separator decides: "net/ipv4/conf/eth0.100/x" is slash-separated and
// becomes "net.ipv4.conf.eth0/100.x".
func dotted(key string) string {
	i := strings.IndexAny(key, "./")
	if i < 0 || key[i] == '.' {
		return key
	}
	return strings.Map(func(r rune) rune {
		switch r {
		case '/':
			return '.'
		case '.':
			return '/'
		}
		return r
	}, key)
}
