// Package store is the ledger: one record per pod and per container, in memory
// and on disk, their names, and the only writer of either.
//
// Readers get immutable snapshots and never wait. A change goes through the
// law (package lifecycle), is visible at once, is announced to subscribers, and
// is written to disk behind it; whoever is about to cause an effect calls Flush
// first, so that the intent is on record before the effect.
//
// What is on disk is described in FORMAT.md. Recovery has no fatal path: what
// cannot be read is moved to quarantine and reported.
//
// It refuses to know how anything is done, and what is inside a sealed CRI
// configuration.
package store
