// Package cluster runs Kubernetes' own programs, from bin/kube, around a container runtime: a kubelet by itself, or with etcd, API server,
// controller manager and scheduler a cluster, on loopback or in network namespaces.
//
// It owns certificates, configurations, ports, the cgroup that a kubelet keeps its pods in, and the order of starting and stopping. It
// refuses to know the runtime: that is a socket. Everything lies in the folder it is given, but for what a kubelet always writes
// (/var/log/containers, /var/lib/kubelet/device-plugins) and the cgroups.
package cluster
