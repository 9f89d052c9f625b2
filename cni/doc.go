// Package cni attaches pods to the node's network by the Container Network
// Interface: it watches the configuration directory, runs the plugins of the
// first valid network, and takes every attachment away again.
//
// It owns the promise that a lease is never lost. What an ADD is about to do is
// a record ([Networks.Prepare]) before the first plugin runs, and DEL works
// from that record alone: the network as it was configured then, never the file
// that lies in the directory now. Records have the format of libcni's result
// cache, and are kept there too, so that what lost its pod is still found.
//
// It owns the plugins' processes: a deadline for each attachment, a process
// group of their own, bounded output, an environment without the daemon's.
//
// It refuses to know containers and what a pod is beyond its name. Namespaces
// are made by its sub-package netns.
package cni
