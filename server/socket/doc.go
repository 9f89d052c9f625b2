// Package socket makes the unix sockets that crid listens on.
//
// It owns: one daemon per socket, stale sockets of a crash, permissions from
// the first moment on. It refuses to know what is served.
package socket
