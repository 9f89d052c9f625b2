// Package sandbox is the hands that work on pods: they make a pod's namespaces,
// network and shim, and give all of it back, because the law says that it is
// owed.
//
// A sandbox has two forms. Pinned, the usual one, has no process: its
// namespaces are kept alive by bind mounts, and its containers join them by
// path. The pause form has a process where one is needed (containers that share
// a process namespace, a handler that wants a sandbox container); it runs from
// a program embedded here, so that nothing is pulled for it.
//
// It owns the connections to shims. It refuses to know CRI messages and the
// insides of containers.
package sandbox
