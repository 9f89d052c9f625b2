package cgroup

import (
	"os"
	"path"
	"slices"
)

// Children lists the names of the cgroups directly below p, in any hierarchy,
// each once, sorted. One that does not exist has none.
func Children(p string) []string {
	t := theTree()
	var out []string
	for _, root := range t.roots() {
		entries, err := os.ReadDir(path.Join(root, path.Clean("/"+p)))
		if err != nil {
			continue
		}
		for _, e := range entries {
			if e.IsDir() && !slices.Contains(out, e.Name()) {
				out = append(out, e.Name())
			}
		}
	}
	slices.Sort(out)
	return out
}
