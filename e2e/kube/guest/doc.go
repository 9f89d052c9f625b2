// Package guest tries crid under a real kubelet on a machine with cgroup v2 and systemd: as the shipped service, with the cgroup driver that the two
// agree on by themselves. It needs a machine that is thrown away, because it installs crid where a node has it: hack/kube/guest.sh boots one.
//
//	make test-kubelet-v2
package guest
