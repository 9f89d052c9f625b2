// Package project knows where things lie in a checkout: the root of the source tree, the programs that the Makefile puts into
// bin/, and the folder for what is made on the way. It refuses to know how any of them is used.
package project

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// RootEnv names the environment variable that overrides the search for the source tree, for test binaries that run elsewhere (in
// the cgroup v2 guest).
const RootEnv = "CRID_PROJECT"

// Root is the absolute path of the source tree: $CRID_PROJECT, or the nearest folder upwards of the working directory that
// holds crid's go.mod.
func Root() (string, error) {
	if dir := os.Getenv(RootEnv); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the source tree: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "hack", "parts.txt")); err == nil {
			return dir, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("find the source tree: %w", err)
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("find the source tree: no folder upwards of the working directory is crid's; set %s", RootEnv)
		}
		dir = up
	}
}

// Bin is the absolute path of a program that the Makefile builds, such as "crid", "runc" or "cni". It fails if there is none, and
// says what makes it.
func Bin(name string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, "bin", name)
	if _, err := os.Stat(path); err != nil {
		target := "make parts"
		if name == "crid" {
			target = "make build"
		}
		return "", fmt.Errorf("find %s (%s makes it): %w", name, target, err)
	}
	return path, nil
}

// BuildDir is the folder for intermediate files, $CRID_BUILD_DIR or .build in the source tree; it is ignored by git and can be
// removed at any time.
func BuildDir() (string, error) {
	if dir := os.Getenv("CRID_BUILD_DIR"); dir != "" {
		return filepath.Abs(dir)
	}
	root, err := Root()
	if err != nil {
		return "", err
	}
	return filepath.Join(root, ".build"), nil
}
