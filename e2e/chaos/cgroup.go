package chaos

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Freeze freezes cgroups (those of one container, in every hierarchy), and tells whether one of them can be.
func Freeze(dirs []string) bool { return freezer(dirs, "FROZEN", "1") }

// Thaw undoes it. Cgroups that are gone need no thaw.
func Thaw(dirs []string) { freezer(dirs, "THAWED", "0") }

func freezer(dirs []string, v1, v2 string) (done bool) {
	for _, dir := range dirs {
		for file, word := range map[string]string{"freezer.state": v1, "cgroup.freeze": v2} {
			path := filepath.Join(dir, file)
			if _, err := os.Stat(path); err == nil && os.WriteFile(path, []byte(word), 0) == nil {
				done = true
			}
		}
	}
	return done
}

// Evict moves every process of a cgroup to the root of its hierarchy and removes the cgroup, as a tidy script does.
func Evict(dir string) error {
	root := "/sys/fs/cgroup"
	if rest, ok := strings.CutPrefix(dir, root+"/"); ok {
		if first, _, _ := strings.Cut(rest, "/"); !strings.HasPrefix(first, "crid") { // v1: a folder for each hierarchy
			root = filepath.Join(root, first)
		}
	}
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	for n := len(dirs) - 1; n >= 0 && err == nil; n-- {
		err = empty(dirs[n], root)
	}
	return err
}

func empty(dir, root string) error {
	var last error
	for range 20 {
		data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			return ignoreGone(err)
		}
		for pid := range strings.FieldsSeq(string(data)) {
			if _, err := strconv.Atoi(pid); err == nil {
				_ = os.WriteFile(filepath.Join(root, "cgroup.procs"), []byte(pid), 0) // it may have ended
			}
		}
		if last = ignoreGone(os.Remove(dir)); last == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return last
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
