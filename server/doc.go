// Package server speaks CRI: messages to ours, errors to gRPC codes, and
// nothing else.
//
// It puts the parts together that answer the calls, each a package of its own
// with the few things that it needs: node (the runtime itself), pods,
// containers, images, stats, events. Every call passes through rpc (validation,
// deadline, recovery, codes, metrics, log). fault holds the one table of error
// codes, status the one translation of records, chunk the streaming lists.
// Beside CRI there are metrics (Prometheus) and admin (the local admin socket).
//
// It refuses to know how anything is done, and keeps no state but what
// statistics remember between two calls.
package server
