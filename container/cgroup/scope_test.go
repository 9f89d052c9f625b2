package cgroup

import (
	"os"
	"path/filepath"
	"testing"
)

// crun puts a container's limits on a cgroup in the scope: statistics of the scope alone know of no limit.
func TestStatsOfAScopeAreThoseOfTheContainerInIt(t *testing.T) {
	root := t.TempDir()
	for file, value := range map[string]string{
		"a.scope/memory.current": "50", "a.scope/memory.max": "max", "a.scope/container/memory.current": "40", "a.scope/container/memory.max": "100",
		"b.scope/memory.current": "50", "b.scope/memory.max": "200",
		"c/memory.current": "50", "c/memory.max": "max", "c/container/memory.current": "40", "c/container/memory.max": "100",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, file), []byte(value+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, limit := range map[string]uint64{"/a.scope": 100, "/b.scope": 200, "/c": Unlimited} {
		st, err := load(&tree{v2: true, unified: root}, name).Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if st.Memory.Limit != limit {
			t.Errorf("%s: limit %d, not %d", name, st.Memory.Limit, limit)
		}
	}
}
