package cni

import (
	"errors"
	"fmt"
	"net"
	"slices"

	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// Result is what the network gave a pod.
type Result struct {
	// IPs are the addresses of the pod's interface without prefix length, the
	// primary one first ([Config.IPPreference]).
	IPs []string
	// Interfaces are those inside the pod.
	Interfaces []Interface
	// DNS is what the plugins suggest; the kubelet's own wish comes first.
	DNS DNS
	// Network is the name of the network.
	Network string
	// Saved is the attachment's record: network and arguments as used, and the
	// result. DEL needs nothing else.
	Saved []byte
}

// Interface is one interface in the pod.
type Interface struct {
	Name, MAC string
	// IPs have a prefix length.
	IPs []string
}

// errNoAddress is the answer to a chain that worked and gave the pod nothing.
var errNoAddress = errors.New("no plugin gave the pod's interface an address")

// ResultOf reads the result out of a record; nil without an error if the record
// is an intent.
func (n *Networks) ResultOf(saved []byte) (*Result, error) {
	r, _, err := parseRecord(saved)
	if err != nil {
		return nil, err
	}
	if len(r.Result) == 0 {
		return nil, nil
	}
	return n.resultOf(r)
}

func (n *Networks) resultOf(r *record) (*Result, error) {
	raw, err := r.result()
	if err != nil {
		return nil, err
	}
	if raw == nil {
		return nil, errNoAddress
	}
	res, err := types100.NewResultFromResult(raw)
	if err != nil {
		return nil, fmt.Errorf("read network result: %w", err)
	}
	out := &Result{
		Network: r.NetworkName,
		DNS:     DNS{Servers: res.DNS.Nameservers, Searches: res.DNS.Search, Options: res.DNS.Options},
	}
	byIndex := map[int]int{} // of the result's interfaces to ours
	for i, iface := range res.Interfaces {
		if iface == nil || iface.Sandbox == "" {
			continue // on the node
		}
		byIndex[i] = len(out.Interfaces)
		out.Interfaces = append(out.Interfaces, Interface{Name: iface.Name, MAC: iface.Mac})
	}
	var ips []net.IP
	for _, ip := range res.IPs {
		if ip == nil || ip.Address.IP == nil {
			continue
		}
		name := r.IfName // an address without an interface is the pod's
		if ip.Interface != nil {
			at, ok := byIndex[*ip.Interface]
			if !ok {
				continue
			}
			name = out.Interfaces[at].Name
			out.Interfaces[at].IPs = append(out.Interfaces[at].IPs, ip.Address.String())
		}
		if name == r.IfName {
			ips = append(ips, ip.Address.IP)
		}
	}
	if len(ips) == 0 {
		return nil, errNoAddress
	}
	if out.Saved, err = r.marshal(); err != nil {
		return nil, err
	}
	out.IPs = order(ips, n.cfg.IPPreference)
	return out, nil
}

// order puts the first address of the preferred family in front and leaves the
// rest as the plugins gave it.
func order(ips []net.IP, preference string) []string {
	first := 0
	if preference != "cni" {
		four := preference != "ipv6"
		if i := slices.IndexFunc(ips, func(ip net.IP) bool { return (ip.To4() != nil) == four }); i > 0 {
			first = i
		}
	}
	out := []string{ips[first].String()}
	for i, ip := range ips {
		if i != first {
			out = append(out, ip.String())
		}
	}
	return out
}
