package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Default describes the network that [WriteDefault] writes.
type Default struct {
	// Name of the network; empty: crid.
	Name string
	// Bridge is the bridge's name; empty: cni-crid0.
	Bridge string
	// Subnets are the pods' address ranges, at most one of each family; empty:
	// 10.88.0.0/16.
	Subnets []string
	// DataDir is where host-local keeps its leases; empty: its own default,
	// /var/lib/cni/networks.
	DataDir string
	// MTU of the pods' interfaces; 0: the bridge plugin's choice.
	MTU int
	// Firewall and Bandwidth add those plugins to the chain.
	Firewall, Bandwidth bool
}

// DefaultFile is the name of the file that [WriteDefault] writes.
const DefaultFile = "10-crid.conflist"

// WriteDefault writes a bridge network to dir if dir holds no network
// configuration at all, and tells whether it did. It never overwrites a file.
func WriteDefault(dir string, d Default) (written bool, err error) {
	conf, err := d.conflist()
	if err != nil {
		return false, fmt.Errorf("write default network: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, fmt.Errorf("write default network: %w", err)
	}
	files, err := confFiles(dir, ".conf", ".conflist", ".json")
	if err != nil {
		return false, fmt.Errorf("write default network: %w", err)
	}
	if len(files) > 0 {
		return false, nil
	}
	tmp := filepath.Join(dir, fmt.Sprintf(".%s.%d", DefaultFile, os.Getpid()))
	if err := os.WriteFile(tmp, conf, 0o644); err != nil {
		return false, fmt.Errorf("write default network: %w", err)
	}
	defer os.Remove(tmp)
	// A rename that fails if the name has come to be in the meantime.
	err = unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, filepath.Join(dir, DefaultFile), unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EEXIST) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("write default network: %w", err)
	}
	return true, nil
}

func (d Default) conflist() ([]byte, error) {
	if d.Name == "" {
		d.Name = "crid"
	}
	if d.Bridge == "" {
		d.Bridge = "cni-crid0"
	}
	if len(d.Subnets) == 0 {
		d.Subnets = []string{"10.88.0.0/16"}
	}
	var ranges [][]map[string]string
	var routes []map[string]string
	seen := map[bool]bool{}
	for _, s := range d.Subnets {
		p, err := netip.ParsePrefix(s)
		if err != nil || seen[p.Addr().Is4()] {
			return nil, fmt.Errorf("subnet %q is not an address range, or the second of its family: %w", s, errdefs.ErrInvalidArgument)
		}
		seen[p.Addr().Is4()] = true
		ranges = append(ranges, []map[string]string{{"subnet": p.Masked().String()}})
		all := "::/0"
		if p.Addr().Is4() {
			all = "0.0.0.0/0"
		}
		routes = append(routes, map[string]string{"dst": all})
	}
	ipam := map[string]any{"type": "host-local", "ranges": ranges, "routes": routes}
	if d.DataDir != "" {
		ipam["dataDir"] = d.DataDir
	}
	bridge := map[string]any{
		"type": "bridge", "bridge": d.Bridge, "isGateway": true, "ipMasq": true, "hairpinMode": true, "ipam": ipam,
	}
	if d.MTU > 0 {
		bridge["mtu"] = d.MTU
	}
	plugins := []map[string]any{bridge, {"type": "portmap", "snat": true, "capabilities": map[string]bool{"portMappings": true}}}
	if d.Firewall {
		plugins = append(plugins, map[string]any{"type": "firewall"})
	}
	if d.Bandwidth {
		plugins = append(plugins, map[string]any{"type": "bandwidth", "capabilities": map[string]bool{"bandwidth": true}})
	}
	conf, err := json.MarshalIndent(map[string]any{"cniVersion": "1.0.0", "name": d.Name, "plugins": plugins}, "", "  ")
	if err != nil {
		return nil, err
	}
	list, err := parseList(conf)
	if err != nil {
		return nil, err
	}
	return append(list.Bytes, '\n'), nil
}
