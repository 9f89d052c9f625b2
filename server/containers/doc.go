// Package containers answers the CRI calls about containers: their life, their
// status, and running commands in them.
//
// It owns the CRI meaning of these calls: what is idempotent, what a missing
// container answers, which requests a state refuses, how a partial resource
// update is merged into the configuration. It refuses to know how a container
// is made; that is package container's, behind [Hands].
package containers
