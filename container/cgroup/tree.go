package cgroup

import (
	"bytes"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// mountRoot is where every distribution mounts cgroups.
const mountRoot = "/sys/fs/cgroup"

// tree is the set of mounted hierarchies that a path is looked up in.
type tree struct {
	// v2 is true where the one hierarchy is cgroup2.
	v2 bool
	// unified is the cgroup2 mount: everything on v2; on a hybrid host a
	// hierarchy without controllers, which still has cgroup.kill,
	// cgroup.freeze and pressure files; "" where there is none.
	unified string
	// v1 are the version 1 mounts, empty on v2.
	v1 []v1Mount
}

// v1Mount is one version 1 hierarchy.
type v1Mount struct {
	dir         string
	controllers []string // "cpu", "cpuacct", "name=systemd"
}

// theTree is this machine's. Hierarchies are mounted at boot and stay.
var theTree = sync.OnceValue(func() *tree {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return &tree{}
	}
	return parseTree(info, V2())
})

// V2 tells whether this machine uses the unified hierarchy for its controllers.
func V2() bool {
	var st unix.Statfs_t
	return unix.Statfs(mountRoot, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// parseTree finds the hierarchies in the text of /proc/self/mountinfo. Of
// several mounts of one hierarchy the first below /sys/fs/cgroup counts.
func parseTree(mountinfo []byte, v2 bool) *tree {
	t := &tree{v2: v2}
	if v2 {
		t.unified = mountRoot
		return t
	}
	seen := map[string]int{} // device -> index in v1
	for line := range bytes.Lines(mountinfo) {
		m, ok := parseMount(string(line))
		if !ok {
			continue
		}
		home := m.point == mountRoot || strings.HasPrefix(m.point, mountRoot+"/")
		if m.fstype == "cgroup2" {
			if t.unified == "" || home && !strings.HasPrefix(t.unified, mountRoot) {
				t.unified = m.point
			}
			continue
		}
		controllers := v1Controllers(m.options)
		if len(controllers) == 0 {
			continue
		}
		if i, dup := seen[m.device]; dup {
			if home && !strings.HasPrefix(t.v1[i].dir, mountRoot) {
				t.v1[i].dir = m.point
			}
			continue
		}
		seen[m.device] = len(t.v1)
		t.v1 = append(t.v1, v1Mount{dir: m.point, controllers: controllers})
	}
	return t
}

// mount is the part of a mountinfo line that matters here.
type mount struct{ device, point, fstype, options string }

// parseMount reads one line of mountinfo; false if it is no cgroup mount.
func parseMount(line string) (mount, bool) {
	before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
	if !ok {
		return mount{}, false
	}
	left, right := strings.Fields(before), strings.Fields(after)
	if len(left) < 6 || len(right) < 3 {
		return mount{}, false
	}
	if right[0] != "cgroup" && right[0] != "cgroup2" {
		return mount{}, false
	}
	return mount{device: left[2], point: left[4], fstype: right[0], options: right[2]}, true
}

// v1Controllers picks controller names out of a v1 superblock's options.
func v1Controllers(options string) []string {
	var out []string
	for o := range strings.SplitSeq(options, ",") {
		switch o {
		case "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids",
			"hugetlb", "net_cls", "net_prio", "perf_event", "rdma", "misc", "debug":
			out = append(out, o)
		default:
			if strings.HasPrefix(o, "name=") {
				out = append(out, o)
			}
		}
	}
	return out
}

// controller answers the directory of the v1 hierarchy with a controller, ""
// if it is not mounted.
func (t *tree) controller(name string) string {
	for _, m := range t.v1 {
		for _, c := range m.controllers {
			if c == name {
				return m.dir
			}
		}
	}
	return ""
}

// roots are the directories of all hierarchies.
func (t *tree) roots() []string {
	out := make([]string, 0, len(t.v1)+1)
	for _, m := range t.v1 {
		out = append(out, m.dir)
	}
	if t.unified != "" {
		out = append(out, t.unified)
	}
	return out
}

// Controllers lists what this machine's cgroups can do: on v2 the words of
// cgroup.controllers, on v1 the mounted controllers (without named ones).
func Controllers() []string { return theTree().controllers() }

func (t *tree) controllers() []string {
	if t.v2 {
		b, err := os.ReadFile(t.unified + "/cgroup.controllers")
		if err != nil {
			return nil
		}
		return strings.Fields(string(b))
	}
	var out []string
	for _, m := range t.v1 {
		for _, c := range m.controllers {
			if !strings.HasPrefix(c, "name=") {
				out = append(out, c)
			}
		}
	}
	return out
}
