// Package multinode tries crid on three nodes of one cluster: each is a kubelet and a crid in a network namespace of its own, joined by a bridge
// in a fourth, where the control plane and the registry are. Pods' subnets are routed between the nodes.
//
//	make test-multinode
//
// The machine's own network is not touched: there is no device, address or rule outside of the four namespaces.
package multinode
