// Package resources turns CRI's LinuxContainerResources into the OCI runtime
// spec's, for containers, pods and updates alike.
//
// It owns the checks and the meaning of "0 is not specified". It refuses to
// know cgroup files: what the machine has is given as plan.Kernel.
package resources
