package plan

import "strings"

// SysctlPath returns the file below /proc/sys of a key of Pod.Sysctls. A dot
// separates elements, a slash stands for a dot inside one:
// "net.ipv4.conf.eth0/100.forwarding" is net/ipv4/conf/eth0.100/forwarding.
func SysctlPath(key string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, key)
}
