package cni

import (
	"fmt"
	"net"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"

	"github.com/crid-project/crid/cni/netns"
)

// inNamespace calls fn with the namespace path that a DEL is given.
//
// A pod's namespace may be gone (a reboot, an unmount by hand). Plugins stumble
// over a path that is none; without a path they release the address, but leave
// what they look up through the interface: the bridge plugin its masquerading
// rules, which are then there for ever. So they are shown a namespace that has
// the pod's interface and addresses as they were, for as long as the call takes.
func (n *Networks) inNamespace(r *record, fn func(path string) error) error {
	if r.NetNS == "" {
		return fn("")
	}
	ok, err := netns.IsPinned(r.NetNS)
	if err != nil {
		return err
	}
	if ok {
		return fn(r.NetNS)
	}
	called := false
	err = netns.Temporary(func() error { return haunt(r) }, func(path string) error {
		called = true
		return fn(path)
	})
	if err != nil && !called {
		n.log.Warn("pod's network namespace is gone; its rules may stay", "pod", r.ContainerID, "error", err)
		return fn("")
	}
	return err
}

// haunt gives the calling thread's namespace the interface of r's result.
func haunt(r *record) error {
	raw, err := r.result()
	if err != nil {
		return err
	}
	if raw == nil {
		return nil // never attached, as far as is known: an empty namespace
	}
	res, err := types100.NewResultFromResult(raw)
	if err != nil {
		return fmt.Errorf("read network result: %w", err)
	}
	// A veth with both ends here: the kernels that run pods have it, and not all
	// of them have dummy.
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: r.IfName}, PeerName: "crid-ghost"}
	if err := netlink.LinkAdd(link); err != nil {
		return fmt.Errorf("make interface %s: %w", r.IfName, err)
	}
	for _, ip := range res.IPs {
		if ip == nil || ip.Address.IP == nil {
			continue
		}
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: ip.Address.IP, Mask: ip.Address.Mask}}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("give %s the address %s: %w", r.IfName, ip.Address.IP, err)
		}
	}
	return nil
}
