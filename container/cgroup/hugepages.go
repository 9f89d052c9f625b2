package cgroup

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// HugepageSizes are the sizes of huge pages that can be limited here, as the
// hugetlb controller writes them ("64KB", "2MB", "1GB"); found once.
var HugepageSizes = sync.OnceValue(func() []string {
	return hugepageSizes("/sys/kernel/mm/hugepages", Controllers())
})

// hugepageSizes is empty without the controller: the kernel may know sizes and
// keep no account of them. The kubelet sends a limit for each size that the
// machine has, asked for or not.
func hugepageSizes(dir string, controllers []string) []string {
	if !slices.Contains(controllers, "hugetlb") {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if s := hugepageName(e.Name()); s != "" {
			out = append(out, s)
		}
	}
	return out
}

// hugepageName turns "hugepages-2048kB" into "2MB".
func hugepageName(dir string) string {
	n, ok := strings.CutPrefix(dir, "hugepages-")
	if !ok {
		return ""
	}
	kb, err := strconv.ParseUint(strings.TrimSuffix(n, "kB"), 10, 64)
	if err != nil {
		return ""
	}
	switch {
	case kb >= 1<<20:
		return strconv.FormatUint(kb>>20, 10) + "GB"
	case kb >= 1<<10:
		return strconv.FormatUint(kb>>10, 10) + "MB"
	}
	return strconv.FormatUint(kb, 10) + "KB"
}
