package harness

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
)

// Census is what there is of things that a pod can leave behind: a line for each, such as "mount /run/crid/pods/1a2b/ns/net", with how many
// times it is there. Ids are left as they are: a thing that was there before is not news.
type Census map[string]int

// Census counts now. What belongs to other runtimes on the machine is not counted, with two exceptions that carry no owner's mark: veths
// and the iptables chains of CNI, of which only those of the home's own network are.
func (d *Daemon) Census(ctx context.Context) Census {
	c := Census{}
	h := d.Home
	for _, p := range h.members() {
		c["process in a cgroup: "+short(p.Command)]++
	}
	for _, p := range h.processes() {
		if p.Pid != d.Pid() {
			c["shim or helper: "+short(p.Command)]++
		}
	}
	for _, m := range mountsUnder(h.Dir) {
		c["mount "+m]++
	}
	for _, dir := range h.cgroupDirs() {
		// The parent that a pod names is the kubelet's to remove, here the home's (see Pod); what is in it is the runtime's.
		_, below, _ := strings.Cut(dir, h.Cgroup)
		if (strings.HasPrefix(below, "/pod") || strings.HasSuffix(below, ".slice")) && strings.Count(below, "/") == 1 {
			continue
		}
		c["cgroup "+strings.TrimPrefix(dir, cgroupRoot)]++
	}
	c.network(ctx, h)
	c.files(h)
	if pid := d.Pid(); pid != 0 {
		if d.Kind.Name() == "crid" {
			d.collect(ctx)
			c.goroutines(ctx, d)
		}
		c.descriptors(pid)
	}
	return c
}

func short(s string) string {
	if len(s) > 120 {
		return s[:120] + "..."
	}
	return s
}

// network counts named namespaces, veths on the home's bridge, leases and iptables rules.
func (c Census) network(ctx context.Context, h *Home) {
	if entries, err := os.ReadDir("/run/netns"); err == nil {
		for _, e := range entries {
			c["netns "+e.Name()]++
		}
	}
	if bridge, err := netlink.LinkByName(h.Name); err == nil {
		for _, l := range links() {
			if l.Attrs().MasterIndex == bridge.Attrs().Index {
				c["veth "+l.Attrs().Name]++
			}
		}
	}
	_ = filepath.WalkDir(h.IPAM(), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() && entry.Name() != "lock" && !strings.HasPrefix(entry.Name(), "last_reserved_ip") {
			c["address lease "+entry.Name()]++
		}
		return nil
	})
	c.iptables(ctx, h)
}

// links lists the machine's interfaces. While others make and remove some, the kernel says so and has given half a list.
func links() []netlink.Link {
	for range 100 {
		if all, err := netlink.LinkList(); err == nil {
			return all
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

func (c Census) iptables(ctx context.Context, h *Home) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for _, table := range []string{"nat", "filter"} {
		out, err := exec.CommandContext(ctx, "iptables", "-w", "5", "-t", table, "-S").Output()
		if err != nil {
			continue // no iptables, or no such table
		}
		subnet := strings.TrimSuffix(h.Subnet.Addr().String(), "0")
		for rule := range strings.Lines(string(out)) {
			if strings.Contains(rule, "CNI-") && ofNetwork(rule, h.Name, subnet) {
				c["iptables "+table+" "+strings.TrimSpace(rule)]++
			}
		}
	}
}

var networkName = regexp.MustCompile(`name: \\*"([^"\\]*)`)

// ofNetwork tells whether a rule is of a network: by the name in its comment, else by the subnet in it. (Another network on the machine may have
// the same one.)
func ofNetwork(rule, name, subnet string) bool {
	if m := networkName.FindStringSubmatch(rule); m != nil {
		return m[1] == name
	}
	return strings.Contains(rule, `"`+name+`"`) || strings.Contains(rule, subnet)
}

// files counts folders, sockets, fifos and unfinished downloads under root and state. Content that outlives pods (images) is not counted.
func (c Census) files(h *Home) {
	for _, top := range []string{h.State(), h.Root()} {
		_ = filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return nil //nolint:nilerr // what vanishes while we look is not there
			}
			rel := strings.TrimPrefix(path, h.Dir+"/")
			depth := strings.Count(rel, "/")
			switch {
			case entry.IsDir() && kept(path):
				return fs.SkipDir
			case entry.IsDir() && depth > 5:
				return fs.SkipDir
			case entry.IsDir() && depth < 2: // what is made once and for good
			case entry.IsDir():
				c["folder "+rel]++
			case entry.Type()&fs.ModeNamedPipe != 0:
				c["fifo "+rel]++
			case entry.Type()&fs.ModeSocket != 0:
				c["socket "+rel]++
			}
			return nil
		})
	}
}

// kept are the folders of content and images of both runtimes, and mounted root file systems.
func kept(path string) bool {
	for _, name := range []string{"/images", "io.containerd.content.v1.content", "io.containerd.snapshotter.v1.overlayfs", "/rootfs"} {
		if strings.HasSuffix(path, name) {
			return true
		}
	}
	return false
}

var fdNumber = regexp.MustCompile(`\[?\d+\]?`)

// descriptors counts what the daemon holds open, by kind. Sockets come and go with clients and registries, so only those of
// other kinds are counted.
func (c Census) descriptors(pid int) {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil || strings.HasPrefix(target, "socket:") {
			continue
		}
		if strings.HasPrefix(target, "pipe:") || strings.HasPrefix(target, "anon_inode:") || strings.HasPrefix(target, "net:") {
			target = fdNumber.ReplaceAllString(target, "")
		}
		target = strings.Replace(target, dir[:len(dir)-len("/fd")]+"/", "/proc/self/", 1) // a daemon that was started again has another pid
		c["open file "+target]++
	}
}

// Diff tells what is in after and not in c, and the reverse, a line each, sorted: "+ mount ..." is a leak.
func (c Census) Diff(after Census) []string {
	var out []string
	keys := maps.Clone(c)
	maps.Copy(keys, after)
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		switch n := after[k] - c[k]; {
		case n == 1:
			out = append(out, "+ "+k)
		case n > 1:
			out = append(out, fmt.Sprintf("+ %d times %s", n, k))
		case n == -1:
			out = append(out, "- "+k)
		case n < -1:
			out = append(out, fmt.Sprintf("- %d times %s", -n, k))
		}
	}
	return out
}

// Leaks is Diff less what has gone.
func (c Census) Leaks(after Census) []string {
	return slices.DeleteFunc(c.Diff(after), func(s string) bool { return strings.HasPrefix(s, "-") })
}

// Settle counts until nothing is there that was not there before, or the limit is over, and tells what was left. Clean-up may go on
// for a moment after the call that asked for it.
func (d *Daemon) Settle(ctx context.Context, before Census, limit time.Duration) []string {
	deadline := time.Now().Add(limit)
	for {
		left := before.Leaks(d.Census(ctx))
		if len(left) == 0 || time.Now().After(deadline) || ctx.Err() != nil {
			return left
		}
		time.Sleep(100 * time.Millisecond)
	}
}
