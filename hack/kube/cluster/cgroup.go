package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// hierarchies are the places where cgroups are mounted, v1 and v2.
func hierarchies() ([]string, error) {
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	var found []string
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 2 && (f[2] == "cgroup" || f[2] == "cgroup2") {
			found = append(found, f[1])
		}
	}
	return found, nil
}

// MakeCgroup makes a cgroup in every hierarchy: a kubelet refuses a cgroupRoot that is missing in any, name=systemd too, and in a cpuset
// without CPUs nothing can run. Empty and "/" are there already.
func MakeCgroup(path string) error {
	tops, err := hierarchies()
	if err != nil {
		return err
	}
	for _, top := range tops {
		at := top
		for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
			if name == "" {
				continue
			}
			parent := at
			at = filepath.Join(at, name)
			if err := os.MkdirAll(at, 0o755); err != nil {
				return fmt.Errorf("make cgroup: %w", err)
			}
			if err := inherit(parent, at); err != nil {
				return fmt.Errorf("make cgroup: %w", err)
			}
		}
	}
	return nil
}

// inherit gives a cgroup its parent's CPUs and memory nodes (v1), or its controllers (v2).
func inherit(parent, child string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		have, err := os.ReadFile(filepath.Join(child, file))
		if errors.Is(err, fs.ErrNotExist) || strings.TrimSpace(string(have)) != "" {
			continue
		}
		if _, err := os.Stat(filepath.Join(child, "cgroup.controllers")); err == nil {
			continue // v2: empty means all
		}
		all, err := os.ReadFile(filepath.Join(parent, file))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(child, file), all, 0); err != nil {
			return err
		}
	}
	controllers, err := os.ReadFile(filepath.Join(parent, "cgroup.controllers"))
	if err != nil {
		return nil // v1 has no such file
	}
	for c := range strings.FieldsSeq(string(controllers)) {
		if err := os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+"+c), 0); err != nil {
			return fmt.Errorf("%s: %w", c, err)
		}
	}
	return nil
}

// RemoveCgroup removes a cgroup and all below it from every hierarchy. Nothing may run there any more.
func RemoveCgroup(path string) error {
	if strings.Trim(path, "/") == "" {
		return errors.New("remove cgroup: not the root")
	}
	tops, err := hierarchies()
	if err != nil {
		return err
	}
	var errs []error
	for _, top := range tops {
		var dirs []string
		_ = filepath.WalkDir(filepath.Join(top, path), func(dir string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				dirs = append(dirs, dir)
			}
			return nil // it may vanish while we look
		})
		for _, dir := range slices.Backward(dirs) {
			errs = append(errs, rmdir(dir))
		}
	}
	return errors.Join(errs...)
}

// rmdir tries for a moment: processes that are dead but not waited for keep a cgroup busy.
func rmdir(dir string) error {
	var err error
	for range 50 {
		if err = os.Remove(dir); err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}
