// Command crid is a CRI runtime service for Kubernetes nodes, and the command
// line to its configuration, its fitness check, its images and its reset.
//
// It owns: flags, signals, locks, readiness, exit codes, what is printed. The
// daemon itself is wired in serve.go, which fills in the hooks of hooks.go.
// It refuses to know how anything is done.
package main
