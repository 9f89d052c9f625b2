package story

import (
	"os"
	"path/filepath"
	"strings"
)

// V2 tells whether the machine has cgroup v2 alone.
func V2() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

// CgroupDir is the container's folder of a v1 controller ("memory"), or its only one on v2.
func (c *Container) CgroupDir(controller string) string {
	c.Pod.T.Helper()
	for line := range strings.Lines(c.Proc("cgroup")) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if V2() && fields[1] == "" {
			return filepath.Join("/sys/fs/cgroup", fields[2])
		}
		for name := range strings.SplitSeq(fields[1], ",") {
			if name == controller && name != "" {
				return filepath.Join("/sys/fs/cgroup", controller, fields[2])
			}
		}
	}
	c.Pod.T.Fatalf("the container is in no cgroup of %s", controller)
	return ""
}

// Limit reads a setting where the kernel keeps it: v1 is "memory.limit_in_bytes", v2 "memory.max".
func (c *Container) Limit(v1, v2 string) string {
	c.Pod.T.Helper()
	controller, _, _ := strings.Cut(v1, ".")
	file := v1
	if V2() {
		file = v2
	}
	data, err := os.ReadFile(filepath.Join(c.CgroupDir(controller), file))
	if err != nil {
		c.Pod.T.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}
