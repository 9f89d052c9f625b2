package memory

import (
	"math"
	"os"
	"path/filepath"
	"testing"
)

func TestTheLimitOfOnesOwnMemory(t *testing.T) {
	mount := t.TempDir()
	put := func(file, text string) {
		t.Helper()
		path := filepath.Join(mount, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("system.slice/memory.max", "500000000")
	put("system.slice/crid.service/memory.max", "max")
	put("memory/a/memory.limit_in_bytes", "9223372036854771712")
	put("memory/a/b/memory.limit_in_bytes", "134217728")
	for groups, want := range map[string]int64{
		"0::/system.slice/crid.service\n":           500000000,
		"0::/elsewhere\n":                           math.MaxInt64,
		"4:cpu,cpuacct:/a/b\n3:memory:/a/b\n0::/\n": 134217728,
		"3:memory:/a\n":                             9223372036854771712,
		"3:memory:/../../etc\n":                     math.MaxInt64,
		"":                                          math.MaxInt64,
		"nonsense\n3:hugetlb,memory:/a/b\n0::/system.slice\n": 134217728,
	} {
		if got := memoryLimit(groups, mount); got != want {
			t.Errorf("%q: %d, not %d", groups, got, want)
		}
	}
}
