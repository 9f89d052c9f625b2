package cgroup

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A kernel without the hugetlb controller has huge pages all the same. A kubelet names their sizes in every container's limits, and with them in
// the spec runc cannot start anything.
func TestHugePagesAreLimitedOnlyWhereAControllerCounts(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"hugepages-2048kB", "hugepages-1048576kB"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if got := hugepageSizes(dir, []string{"cpu", "memory"}); len(got) != 0 {
		t.Errorf("without a controller the sizes are %q", got)
	}
	got := hugepageSizes(dir, []string{"cpu", "hugetlb"})
	slices.Sort(got)
	if !slices.Equal(got, []string{"1GB", "2MB"}) {
		t.Errorf("with one they are %q", got)
	}
}
