package harness

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/e2e/project"
)

// Home is the part of the machine that belongs to one daemon: folders, a bridge with a subnet, a cgroup. Its path is short, because a
// unix socket's may have 107 bytes and a shim's socket ends in 64 hexadecimal digits.
type Home struct {
	Dir     string
	Name    string // of the home, its bridge and its network: "ce" and a number
	Subnet  netip.Prefix
	Cgroup  string // parent of the pods' cgroups, absolute in each hierarchy
	Systemd bool   // cgroups are made by systemd: parents are slices
	CNI     bool   // whether the plugins are there
	Started bool
}

// homes is where homes are made. A disk, not a tmpfs: writable layers and images lie in there.
const homes = "/var/tmp"

// DriverEnv names the environment variable that chooses the cgroup driver: CRID_E2E_CGROUP_DRIVER=systemd, where systemd is process 1.
// Without it the driver is cgroupfs.
const DriverEnv = "CRID_E2E_CGROUP_DRIVER"

// parent is the cgroup parent of one pod as CRI wants it: a path, or the name of a slice.
func (h *Home) parent(uid string) string {
	if h.Systemd {
		return strings.TrimSuffix(filepath.Base(h.Cgroup), ".slice") + "-pod" + strings.ReplaceAll(uid, "-", "_") + ".slice"
	}
	return h.Cgroup + "/pod" + uid
}

// ParentPath is where a pod's parent is in each hierarchy, below /sys/fs/cgroup or a controller's folder there.
func (h *Home) ParentPath(parent string) string {
	if h.Systemd {
		return filepath.Join(h.Cgroup, parent)
	}
	return parent
}

// Network tells what the CNI configuration of a home has.
type Network int

// The networks a home can have.
const (
	Full  Network = iota // bridge with masquerade, portmap
	Plain                // bridge only: half the time of an ADD where iptables is slow
	None                 // no configuration at all
)

// Sub-folders and files of a home.
func (h *Home) Root() string     { return filepath.Join(h.Dir, "root") }
func (h *Home) State() string    { return filepath.Join(h.Dir, "state") }
func (h *Home) Socket() string   { return filepath.Join(h.Dir, "sock") }
func (h *Home) Certs() string    { return filepath.Join(h.Dir, "certs.d") }
func (h *Home) CNIConf() string  { return filepath.Join(h.Dir, "cni") }
func (h *Home) CNICache() string { return filepath.Join(h.Dir, "cni-cache") }
func (h *Home) IPAM() string     { return filepath.Join(h.Dir, "ipam") }
func (h *Home) Tmp() string      { return filepath.Join(h.Dir, "tmp") }
func (h *Home) PodLogs() string  { return filepath.Join(h.Dir, "pods") }
func (h *Home) Log() string      { return filepath.Join(h.Dir, "daemon.log") }
func (h *Home) Config() string   { return filepath.Join(h.Dir, "config.toml") }

// NetworkEnv names the environment variable that takes masquerade and port mapping out of every home's network: CRID_E2E_NETWORK=plain. In an
// emulated machine iptables costs as much time as the rest of a pod.
const NetworkEnv = "CRID_E2E_NETWORK"

// NewHome makes a home that nobody else has. The caller removes it with Remove.
func NewHome(network Network) (*Home, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("make a home: it needs root")
	}
	if network == Full && os.Getenv(NetworkEnv) == "plain" {
		network = Plain
	}
	for n := range 200 {
		h := &Home{Name: fmt.Sprintf("ce%d", n), Subnet: netip.MustParsePrefix(fmt.Sprintf("10.249.%d.0/24", n))}
		h.Dir, h.Cgroup = filepath.Join(homes, h.Name), "/crid-e2e-"+h.Name
		if h.Systemd = os.Getenv(DriverEnv) == "systemd"; h.Systemd {
			h.Cgroup = "/crid_e2e_" + h.Name + ".slice"
		}
		err := os.Mkdir(h.Dir, 0o711) // the name is taken by whoever makes the folder
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("make a home: %w", err)
		}
		if err := h.furnish(network); err != nil {
			return nil, errors.Join(fmt.Errorf("make a home: %w", err), h.Remove())
		}
		return h, nil
	}
	return nil, fmt.Errorf("make a home: %s/ce* are all taken; remove those that no test uses", homes)
}

func (h *Home) furnish(network Network) error {
	for _, d := range []string{h.Certs(), h.CNIConf(), h.CNICache(), h.IPAM(), h.Tmp(), h.PodLogs()} {
		if err := os.MkdirAll(d, 0o711); err != nil {
			return err
		}
	}
	if network == None {
		return nil
	}
	bin, err := project.Bin("cni")
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(bin, "bridge")); err != nil {
		return err
	}
	h.CNI = true
	if err := h.writeNetwork(network); err != nil {
		return err
	}
	return h.blackhole(true)
}

func (h *Home) writeNetwork(network Network) error {
	bridge := map[string]any{
		"type": "bridge", "bridge": h.Name, "isGateway": true, "ipMasq": network == Full, "hairpinMode": true,
		"ipam": map[string]any{"type": "host-local", "dataDir": h.IPAM(), "ranges": [][]any{{map[string]any{"subnet": h.Subnet.String()}}},
			"routes": []any{map[string]any{"dst": "0.0.0.0/0"}}},
	}
	plugins := []any{bridge}
	if network == Full {
		plugins = append(plugins, map[string]any{"type": "portmap", "capabilities": map[string]any{"portMappings": true}, "snat": true})
	}
	text, err := json.MarshalIndent(map[string]any{"cniVersion": "1.0.0", "name": h.Name, "plugins": plugins}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(h.CNIConf(), "10-"+h.Name+".conflist"), text, 0o644)
}

// blackhole adds or removes a last-resort route by which a packet to a pod's address never leaves the machine, also when the bridge is
// gone. The metric is so high that the bridge's own route always wins.
func (h *Home) blackhole(add bool) error {
	_, subnet, err := parseCIDR(h.Subnet.String())
	if err != nil {
		return err
	}
	route := &netlink.Route{Dst: subnet, Type: unix.RTN_UNREACHABLE, Priority: 0xff000000}
	if add {
		return netlink.RouteReplace(route)
	}
	if err := netlink.RouteDel(route); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// Remove takes away whatever the home has left: processes, mounts, the bridge, the route, cgroups, folders. It is not a daemon's own clean-up
// but what makes the machine usable after one has failed; a test looks at the census before. It may be called twice.
func (h *Home) Remove() error {
	errs := []error{h.killAll(), h.unmountAll()}
	if link, err := netlink.LinkByName(h.Name); err == nil {
		errs = append(errs, netlink.LinkDel(link))
	}
	errs = append(errs, h.blackhole(false), h.removeCgroups())
	if left := mountsUnder(h.Dir); len(left) > 0 {
		return errors.Join(append(errs, fmt.Errorf("remove home: still mounted, so nothing is deleted: %s", strings.Join(left, " ")))...)
	}
	return errors.Join(append(errs, removeTree(h.Dir))...)
}
