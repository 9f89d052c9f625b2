// Package pods answers the CRI calls about pod sandboxes.
//
// It owns their CRI meaning: what is idempotent, what a missing pod answers,
// which requests a state refuses. It refuses to know how a pod is made; that is
// package sandbox's, behind [Hands].
package pods
