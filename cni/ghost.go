package cni

import (
	"encoding/json"
	"fmt"
	"net"

	"github.com/containernetworking/cni/libcni"
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
//
// The same rules stay if the interface alone is gone: deleted by hand, or by a
// DEL that was cut off before it came to the rules. It is put back then.
func (n *Networks) inNamespace(list *libcni.NetworkConfigList, r *record, fn func(path string) error) error {
	if r.NetNS == "" {
		return fn("")
	}
	ok, err := netns.IsPinned(r.NetNS)
	if err != nil {
		return err
	}
	if ok {
		if masquerades(list) {
			if err := netns.Do(r.NetNS, func() error { return haunt(r) }); err != nil {
				n.log.Warn("pod's interface is gone; its rules may stay", "pod", r.ContainerID, "error", err)
			}
		}
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

// masquerades tells whether a plugin of the network has rules that it looks up
// through the interface.
func masquerades(list *libcni.NetworkConfigList) bool {
	for _, p := range list.Plugins {
		var conf struct {
			IPMasq bool `json:"ipMasq"`
		}
		if json.Unmarshal(p.Bytes, &conf) == nil && conf.IPMasq {
			return true
		}
	}
	return false
}

// haunt gives the calling thread's namespace the interface of r's result, unless
// it has it.
func haunt(r *record) error {
	if _, err := netlink.LinkByName(r.IfName); err == nil {
		return nil
	}
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
