// Package netns makes a pod's namespaces without a process to hold them, and
// keeps them alive by bind mounts ("pins") under a directory of the caller.
//
// It owns the moment of making: unshare, hostname, loopback, sysctls, the pins,
// and their removal. A namespace is made on an operating system thread that is
// thrown away afterwards, so that no other goroutine ever runs inside it. With
// an id mapping, a child process that is stopped before its first instruction
// stands in for the thread, because only a process can own a user namespace.
//
// It refuses to know pods, CNI and containers.
package netns
