// Package pause is the program of the sandbox process, and a root file system
// with nothing else in it. It is embedded: nothing is pulled for a sandbox, and
// nothing has to be pinned against image garbage collection.
//
// The programs are built from src/pause.c by `make pause` and are part of the
// source, so that building crid needs no C compiler.
package pause

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// Rootfs lays the root file system out under dir and answers its path. All pods
// share it read-only. Idempotent; an older program is replaced by rename, so
// that running ones keep theirs.
func Rootfs(dir string) (string, error) {
	root := filepath.Join(dir, "rootfs")
	for _, d := range []string{"dev", "proc", "sys", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil { //nolint:gosec // a user namespace's root passes through
			return "", fmt.Errorf("make sandbox root: %w", err)
		}
	}
	for _, f := range []string{"etc/resolv.conf", "etc/hostname", "etc/hosts"} {
		if _, err := os.Lstat(filepath.Join(root, f)); err == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(root, f), nil, 0o644); err != nil { //nolint:gosec // as above
			return "", fmt.Errorf("make sandbox root: %w", err)
		}
	}
	path := filepath.Join(root, "pause")
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, program) {
		return root, nil
	}
	if err := os.WriteFile(path+".new", program, 0o755); err != nil { //nolint:gosec // it is run by any user
		return "", fmt.Errorf("write sandbox program: %w", err)
	}
	if err := os.Chmod(path+".new", 0o755); err != nil { //nolint:gosec // as above
		return "", fmt.Errorf("write sandbox program: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return "", fmt.Errorf("write sandbox program: %w", err)
	}
	return root, nil
}
