// Package host is the real node behind container/spec's Options: it reads
// seccomp profiles, looks devices up, asks CDI, SELinux and AppArmor.
//
// It owns those looks, each bounded. It refuses to know CRI messages and what
// is done with the answers.
package host
