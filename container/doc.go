// Package container is the hands that work on containers: they make, launch,
// signal, kill, reap and erase, each because the law says that it is owed, and
// each named by what is true afterwards.
//
// A request (Create, Start, Stop, Remove) puts an event to the law and waits
// for a state; the context of the request ends the waiting and never the work.
//
// It owns the container's bundle, its writable layer's use, its streams and
// its cgroup's end. It refuses to know CRI messages, how a shim is launched,
// and the insides of pods.
package container
