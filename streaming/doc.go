// Package streaming serves exec, attach and port-forward connections over k8s.io/cri-streaming.
//
// It owns the HTTP server and its limits, the one-use URLs, the two WebSocket protocols that the library lacks
// (v5.channel.k8s.io, and SPDY tunnelled through a WebSocket for port-forward), everything over SPDY, where the library can
// be made to leak, the news that a client has gone, and the way into a pod's network namespace. The older WebSocket
// protocols are the library's.
//
// It refuses to know containers and pods (see Runtime), CRI messages (their getters are enough), and who may ask: whoever
// holds a URL may use it, once, within a minute. That is safe on a loopback address only, so it listens nowhere else
// unless told to.
package streaming
