package fitness

import (
	"context"
	"slices"
	"strings"

	"github.com/crid-project/crid/container/cgroup"
)

func cgroups(_ context.Context, n *node) []Finding {
	have, v2 := cgroup.Controllers(), cgroup.V2()
	out := cgroupVersion(have, v2)
	systemd := cgroup.AutoDriver() == cgroup.Systemd
	driver := n.c.DriverFor(n.c.DefaultRuntime, cgroup.AutoDriver)
	switch {
	case driver == cgroup.Systemd && !systemd:
		out = append(out, fail("cgroup driver", "set cgroup_driver = \"cgroupfs\" or \"auto\"", "systemd is asked for, but it does not run here"))
	case driver == cgroup.Cgroupfs && systemd:
		out = append(out, warn("cgroup driver", "set cgroup_driver = \"systemd\" or \"auto\" (and SystemdCgroup in the handler's options)",
			"cgroupfs on a machine where systemd writes cgroups, too"))
	default:
		out = append(out, ok("cgroup driver", "%s", driver))
	}
	return out
}

// cgroupVersion judges version and controllers.
func cgroupVersion(have []string, v2 bool) []Finding {
	const name = "cgroups"
	need, wish := []string{"cpu", "memory", "pids", "cpuset"}, []string{"io", "hugetlb"}
	version := "v2"
	if !v2 {
		need, wish = append(need, "cpuacct", "freezer", "devices"), []string{"blkio", "hugetlb"}
		version = "v1"
	}
	lacks := func(list []string) (missing []string) {
		for _, c := range list {
			if !slices.Contains(have, c) {
				missing = append(missing, c)
			}
		}
		return missing
	}
	if missing := lacks(need); missing != nil {
		return []Finding{fail(name, "enable them on the kernel's command line (cgroup_enable=memory …), or mount /sys/fs/cgroup",
			"%s without the controllers %s", version, strings.Join(missing, ", "))}
	}
	var out []Finding
	if v2 {
		out = append(out, ok(name, "v2 with %s", strings.Join(have, ", ")))
	} else {
		out = append(out, warn(name, "boot with systemd.unified_cgroup_hierarchy=1; until then kubelets since 1.35 need failCgroupV1: false",
			"v1 with %s", strings.Join(have, ", ")))
	}
	if missing := lacks(wish); missing != nil {
		out = append(out, warn(name, "use a kernel with them, if pods need their limits", "no controller for %s", strings.Join(missing, ", ")))
	}
	return out
}
