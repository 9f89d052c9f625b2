package fitness

import (
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// The oldest CNI plugins that work, and the version advised.
var (
	oldestPlugins  = [4]int{0, 8, 6, 1 << 30}
	advisedPlugins = [4]int{1, 9, 0, 1 << 30}
)

// firstConfig answers the network configuration that counts: the first in
// lexical order.
func firstConfig(dir string) (path string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		switch filepath.Ext(e.Name()) {
		case ".conf", ".conflist", ".json":
			return filepath.Join(dir, e.Name()), nil
		}
	}
	return "", fs.ErrNotExist
}

// pluginsOf lists the plugin types that a configuration names, the IPAM's too.
func pluginsOf(path string) ([]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	type plugin struct {
		Type string `json:"type"`
		IPAM struct {
			Type string `json:"type"`
		} `json:"ipam"`
	}
	var list struct {
		plugin
		Plugins []plugin `json:"plugins"`
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, err
	}
	var out []string
	for _, p := range append(list.Plugins, list.plugin) {
		for _, t := range []string{p.Type, p.IPAM.Type} {
			if t != "" && !slices.Contains(out, t) {
				out = append(out, t)
			}
		}
	}
	return out, nil
}

func networkConfig(ctx context.Context, n *node) []Finding {
	const name = "network"
	dir := n.c.CNI.ConfDir
	path, err := firstConfig(dir)
	if err != nil {
		if n.c.CNI.DefaultNetwork.Write {
			return append([]Finding{ok(name, "%s is empty: crid will write its default network", dir)},
				plugins(ctx, n, []string{"bridge", "host-local", "portmap"})...)
		}
		return []Finding{warn(name, "install a network (Calico, Cilium, flannel …), or set cni.default_network.write = true",
			"no configuration in %s: only pods on the host's network will run", dir)}
	}
	types, err := pluginsOf(path)
	if err != nil || len(types) == 0 {
		return []Finding{fail(name, "correct or remove that file", "%s is no CNI configuration: %v", path, err)}
	}
	return append([]Finding{ok(name, "%s (%s)", path, strings.Join(types, ", "))}, plugins(ctx, n, types)...)
}

// plugins looks for each plugin and asks for its version.
func plugins(ctx context.Context, n *node, types []string) []Finding {
	const name = "CNI plugins"
	var missing, old []string
	var good, oldest string
	for _, t := range types {
		path := ""
		for _, dir := range n.c.CNI.BinDirs {
			p := filepath.Join(dir, filepath.Base(t))
			if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
				path = p
				break
			}
		}
		if path == "" {
			missing = append(missing, t)
			continue
		}
		// Without CNI_COMMAND the standard plugins say "CNI bridge plugin v1.9.1".
		text, _ := output(ctx, path, nil)
		text, _, _ = strings.Cut(text, "\n")
		v := versionText.FindString(text)
		if v == "" || !strings.Contains(text, "plugin v") {
			continue // a third party's, with its own numbers
		}
		if good == "" || below(parseVersion(v), parseVersion(oldest)) {
			good, oldest = t, v
		}
		if below(parseVersion(v), oldestPlugins) {
			old = append(old, t+" "+v)
		}
	}
	switch {
	case missing != nil:
		return []Finding{fail(name, "install them there, or set cni.bin_dirs", "not in %s: %s", strings.Join(n.c.CNI.BinDirs, ", "), strings.Join(missing, ", "))}
	case old != nil:
		return []Finding{fail(name, "install CNI plugins 1.9.0 or newer", "too old: %s", strings.Join(old, ", "))}
	case good != "" && below(parseVersion(oldest), advisedPlugins):
		return []Finding{warn(name, "install CNI plugins 1.9.0 or newer", "%s %s works, but is old", good, oldest)}
	case good != "":
		return []Finding{ok(name, "all there, version %s", oldest)}
	}
	return []Finding{ok(name, "all there")}
}

func forwarding(_ context.Context, n *node) []Finding {
	var out []Finding
	if n.read("/proc/sys/net/ipv4/ip_forward") == "1" {
		out = append(out, ok("ip_forward", "on"))
	} else {
		out = append(out, warn("ip_forward", "sysctl -w net.ipv4.ip_forward=1 (and write it into /etc/sysctl.d)",
			"off: pods reach nobody outside their node (the bridge plugin turns it on, others may not)"))
	}
	switch n.read("/proc/sys/net/bridge/bridge-nf-call-iptables") {
	case "1":
		out = append(out, ok("br_netfilter", "on"))
	case "":
		out = append(out, warn("br_netfilter", "modprobe br_netfilter (and name it in /etc/modules-load.d)",
			"not loaded: services may not work between pods on one bridge"))
	default:
		out = append(out, warn("br_netfilter", "sysctl -w net.bridge.bridge-nf-call-iptables=1", "loaded, but bridged packets pass iptables by"))
	}
	return out
}

func packetFilter(_ context.Context, _ *node) []Finding {
	for _, p := range []string{"iptables", "/usr/sbin/iptables", "/sbin/iptables"} {
		if path, err := exec.LookPath(p); err == nil {
			return []Finding{ok("iptables", "%s", path)}
		}
	}
	for _, p := range []string{"nft", "/usr/sbin/nft"} {
		if path, err := exec.LookPath(p); err == nil {
			return []Finding{warn("iptables", "apt-get install iptables, unless your plugins use nftables", "missing; %s is there", path)}
		}
	}
	return []Finding{warn("iptables", "apt-get install iptables", "missing: CNI's bridge (ipMasq) and portmap need it")}
}
