// Package cgroup reads and works the kernel's control groups directly, for
// both versions: v1 with every mounted controller (hybrid hosts included) and
// v2.
//
// It owns: where a container's cgroup lies, who is in it, ending and freezing
// all of it, its counters (statistics, OOM kills), pod-level limits, and its
// removal. It never climbs above the path it was given and refuses to end or
// remove a hierarchy's root.
//
// It refuses to know: containers' records, shims, OCI runtimes and CRI. The
// runtime makes a container's cgroup; crid makes only its own parent.
package cgroup
