// Package stats answers CRI's statistics and the kubelet's metrics.
//
// It owns: reading many containers at once with a deadline for each, so that a
// stuck one costs only itself; the processor rate between two calls; and the
// table of cadvisor-named series. Nothing is collected in the background: an
// idle node costs nothing.
//
// It refuses to know cgroup files, netlink and layers; those are behind
// [Source]. Shims are never asked.
package stats
