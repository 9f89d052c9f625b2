// Package node answers the CRI calls about the runtime itself: version, status,
// configuration.
//
// It owns what a kubelet is told about this node at start-up. It refuses to
// know pods and containers; readiness is asked of whoever knows.
package node
