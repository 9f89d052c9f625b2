// Package harness runs a real container runtime for a test, a lane or a benchmark: crid from bin/, or containerd as its peer, as root,
// with everything that it owns (root, state, socket, CNI configuration and leases, bridge, cgroup parent, logs) in a Home of its own, so that
// several run side by side and nothing is left behind.
//
// It owns starting, stopping and killing the daemon, a CRI client, short ways to make pods and containers, crictl, and the census:
// a list of everything that a pod can leave on a machine, taken before and after and compared.
//
// It refuses to know what is being tested. Nothing in it waits without a limit, and it signals only processes that it has started or that
// lie in a Home's cgroup or carry its path.
package harness
