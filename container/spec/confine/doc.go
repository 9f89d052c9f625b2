// Package confine turns what CRI asks for about a process's rights into parts
// of the OCI runtime spec: user and group ids, user namespace mappings,
// capabilities, seccomp, AppArmor, SELinux, masked and read-only paths. Pods
// and containers share it.
//
// It owns those rules. It refuses to know disks: profiles are read, labels are
// made and loaded profiles are looked up by functions given to it.
package confine
