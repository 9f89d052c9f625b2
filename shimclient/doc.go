// Package shimclient speaks with the shims: the small processes that stand
// between a daemon and its containers and outlive the daemon.
//
// It owns the starting of a shim (both dialects of the bootstrap), the finding
// of one that an earlier daemon left, the task calls, the socket on which shims
// publish events, the shims' log lines, and their end. It knows a shim by its
// pid and start time and holds a pidfd of it; a socket that answers is no
// evidence that the same shim, or any, is behind it.
//
// It refuses to know what containers are for: no CRI, no pods. And it refuses
// to conclude: a connection that breaks is [ErrUnreachable] and never "not
// found"; only the kernel's word on the shim's process is [ErrGone]. What a
// shim says about a container is passed on as the shim's word, which the
// kernel's outranks.
package shimclient
