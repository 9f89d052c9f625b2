// Package spec opens a CRI PodSandboxConfig: it checks every field, says what
// the hands have to do for it ([plan.Pod]), and builds the OCI runtime spec of
// the sandbox container for pods that need a process.
//
// It owns CRI's rules for pods: names, DNS, ports, sysctls, bandwidth,
// namespaces. What pods and containers share is in container/spec's
// sub-packages. It refuses to know disks, processes, CNI and the ledger; it is
// pure but for the functions in [Options].
package spec
