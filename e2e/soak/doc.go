// Package soak keeps a daemon busy as a kubelet does, for as long as is wanted, while a seed decides what breaks: shims, the daemon itself, runc,
// the network's plugin, disks, the registry, cgroups, namespaces, single processes. Every minute the faults pause; within 30 seconds what
// is there must be what is desired, and what CRI says must be what the kernel says.
//
//	make soak                          90 seconds
//	make soak DURATION=2h SEED=7
//
// Some laws are looked at all the time (truth.go), the rest in the pauses (calm.go), and at the end nothing may be left. What broke a law is told with the
// seed; the timeline, in .results, has every fault, call that failed and violation with its time. The same seed gives the same faults in the same
// order, but not the same interleaving: a machine is not deterministic.
//
// It owns the load, the faults' order, and the laws. It refuses to know how a fault is made (chaos) and how crid works inside.
package soak
