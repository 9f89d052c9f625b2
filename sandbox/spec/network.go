package spec

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/crid-project/crid/container/spec/field"
	"github.com/crid-project/crid/sandbox/plan"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Bounds of a resolv.conf. Resolvers read far less; the kubelet sends at most
// 3 servers and 32 search domains of 2,048 bytes in all.
const (
	maxServers  = 32
	maxSearches = 64
	maxOptions  = 64
	maxDNSWord  = 255
)

// dns checks dns_config. Each entry becomes a word on a line of resolv.conf.
func (b *builder) dns() error {
	in := b.cfg.GetDnsConfig()
	if in == nil {
		return nil
	}
	for _, l := range []struct {
		name string
		list []string
		most int
	}{
		{"servers", in.GetServers(), maxServers}, {"searches", in.GetSearches(), maxSearches}, {"options", in.GetOptions(), maxOptions},
	} {
		name := "config.dns_config." + l.name
		if len(l.list) > l.most {
			return field.Invalid(name, "has %d entries, at most %d are taken", len(l.list), l.most)
		}
		for i, w := range l.list {
			if w == "" || len(w) > maxDNSWord || strings.ContainsFunc(w, func(r rune) bool { return r <= ' ' || r == 0x7f || r == 0xfffd }) {
				return field.Invalid(field.At(name, i), "must be one word, got %q", field.Short(w))
			}
			if l.name != "servers" {
				continue
			}
			if _, err := netip.ParseAddr(w); err != nil {
				return field.Invalid(field.At(name, i), "must be an IP address, got %q", field.Short(w))
			}
		}
	}
	b.plan.DNS = &plan.DNS{
		Servers: slices.Clone(in.GetServers()), Searches: slices.Clone(in.GetSearches()), Options: slices.Clone(in.GetOptions()),
	}
	return nil
}

const maxPorts = 65536

// ports keeps the mappings with a host port; 0 explicitly means none. With the
// node's network there is nothing to map.
func (b *builder) ports() error {
	in := b.cfg.GetPortMappings()
	if len(in) > maxPorts {
		return field.Invalid("config.port_mappings", "has %d entries, at most %d are taken", len(in), maxPorts)
	}
	seen := map[plan.Port]bool{}
	for i, p := range in {
		name := field.At("config.port_mappings", i)
		out := plan.Port{ContainerPort: p.GetContainerPort(), HostPort: p.GetHostPort(), HostIP: p.GetHostIp()}
		switch p.GetProtocol() {
		case runtime.Protocol_TCP:
			out.Protocol = "tcp"
		case runtime.Protocol_UDP:
			out.Protocol = "udp"
		case runtime.Protocol_SCTP:
			out.Protocol = "sctp"
		default:
			return field.Invalid(name+".protocol", "unknown protocol %d", p.GetProtocol())
		}
		if out.HostPort < 0 || out.HostPort > 65535 {
			return field.Invalid(name+".host_port", "must be from 0 to 65535, got %d", out.HostPort)
		}
		if out.ContainerPort < 0 || out.ContainerPort > 65535 || out.HostPort > 0 && out.ContainerPort == 0 {
			return field.Invalid(name+".container_port", "must be from 1 to 65535, got %d", out.ContainerPort)
		}
		if out.HostIP != "" {
			ip, err := netip.ParseAddr(out.HostIP)
			if err != nil || ip.Zone() != "" {
				return field.Invalid(name+".host_ip", "must be an IP address, got %q", field.Short(out.HostIP))
			}
			out.HostIP = ip.String()
		}
		if out.HostPort == 0 || b.plan.HostNetwork || seen[out] {
			continue
		}
		seen[out] = true
		b.plan.Ports = append(b.plan.Ports, out)
	}
	return nil
}
