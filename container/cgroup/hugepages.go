package cgroup

import (
	"os"
	"strconv"
	"strings"
	"sync"
)

// HugepageSizes are the sizes of huge pages this machine has, as the hugetlb
// controller writes them ("64KB", "2MB", "1GB"); found once.
var HugepageSizes = sync.OnceValue(func() []string {
	entries, err := os.ReadDir("/sys/kernel/mm/hugepages")
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
})

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
