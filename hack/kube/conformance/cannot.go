package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// cannot is a spec that no runtime passes on a machine that lacks something.
type cannot struct {
	spec    string // a part of its name
	reason  string
	missing func() bool
}

var cannots = []cannot{
	{"PrivilegedPod should enable privileged commands", "the kernel has no dummy network device", noDummy},
	{"Summary API when querying /stats/summary should report resource usage", "it wants kubelet, runtime and system in cgroups of their own, which are not set up here", noSystem},
}

// noDummy tries to make the device that the spec makes.
func noDummy() bool {
	link := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "trydummy"}}
	err := netlink.LinkAdd(link)
	if err == nil {
		_ = netlink.LinkDel(link)
	}
	return errors.Is(err, unix.EOPNOTSUPP)
}

// noSystem: the suite's own way to start a kubelet sorts the whole machine's processes into cgroups (/kubelet, /system, /runtime). Here it must not.
func noSystem() bool { return true }

// judge separates the failures: what cannot pass on this machine, with the reason, is none of the runtime's.
func (o *outcome) judge(list []cannot) (reasons map[string]string, err error) {
	reasons = map[string]string{}
	for name := range o.failed {
		for _, c := range list {
			if strings.Contains(strings.ReplaceAll(name, "[It] ", ""), c.spec) && c.missing() {
				reasons[name] = c.reason
			}
		}
	}
	if n := len(o.failed) - len(reasons); n > 0 {
		return reasons, fmt.Errorf("%d specs failed that can pass here", n)
	}
	return reasons, nil
}
