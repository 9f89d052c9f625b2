// Package status tells CRI what the ledger's records say: one function per CRI
// message, pure, from immutable snapshots, in microseconds.
//
// It owns how phases become CRI states, reasons and messages, what list filters
// match, and what verbose status shows. It refuses to know who asks, and it
// never asks a shim, a cgroup or a registry.
package status
