package cni

import (
	"fmt"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

// idle is true for a plugin of the standard set that would only pass the result
// on: port mappings or limits that this pod does not have. It must be installed
// all the same, so that a node is not found incomplete by the first pod that
// needs it.
func (n *Networks) idle(p *libcni.PluginConfig, r *record) bool {
	if !n.cfg.SkipIdle || p.Network.Type != "portmap" {
		return false
	}
	_, asked := r.CapabilityArgs["portMappings"]
	if asked || !p.Network.Capabilities["portMappings"] {
		return false
	}
	_, err := n.find(p.Network.Type)
	return err == nil
}

// configure is what one plugin of the chain reads: its own part of the list
// with the network's name and version, the result so far, and the capability
// arguments that it says it understands.
func configure(list *libcni.NetworkConfigList, p *libcni.PluginConfig, prev types.Result, caps map[string]any) ([]byte, error) {
	inject := map[string]any{"name": list.Name, "cniVersion": list.CNIVersion}
	if prev != nil {
		inject["prevResult"] = prev
	}
	able := map[string]any{}
	for name, on := range p.Network.Capabilities {
		if value, ok := caps[name]; ok && on {
			able[name] = value
		}
	}
	if len(able) > 0 {
		inject["runtimeConfig"] = able
	}
	conf, err := libcni.InjectConf(p, inject)
	if err != nil {
		return nil, fmt.Errorf("configure plugin %s: %w", p.Network.Type, err)
	}
	return conf.Bytes, nil
}
