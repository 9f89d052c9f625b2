package user

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/crid-project/crid/image/inroot"
)

const (
	passwdFile = "/etc/passwd"
	groupFile  = "/etc/group"
	// maxFile bounds passwd and group (CVE-2026-47262, CVE-2025-4437).
	maxFile = 1 << 20
	// maxLine bounds one line; longer ones are skipped, as a C library would
	// with its own buffers.
	maxLine = 64 << 10
	// maxGroups is the kernel's NGROUPS_MAX.
	maxGroups = 65536
)

// account is a line of passwd.
type account struct {
	name     string
	uid, gid uint32
	home     string
}

// membership is a line of group.
type membership struct {
	name    string
	gid     uint32
	members []string
}

// readLines returns the lines of a file in the root; none if there is no file.
func readLines(root *inroot.Root, name string) ([]string, error) {
	raw, err := root.ReadFile(name, maxFile)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("resolve user: %w", err)
	}
	return strings.Split(string(raw), "\n"), nil
}

// findAccount returns the first account that matches.
func findAccount(root *inroot.Root, match func(account) bool) (account, bool, error) {
	lines, err := readLines(root, passwdFile)
	for _, line := range lines {
		f := fields(line, 7)
		if len(f) < 4 {
			continue
		}
		uid, ok1 := parseID(f[2])
		gid, ok2 := parseID(f[3])
		if !ok1 || !ok2 {
			continue
		}
		a := account{name: f[0], uid: uid, gid: gid}
		if len(f) > 5 {
			a.home = f[5]
		}
		if match(a) {
			return a, true, nil
		}
	}
	return account{}, false, err
}

// groups returns the groups that match.
func groups(root *inroot.Root, match func(membership) bool) ([]membership, error) {
	lines, err := readLines(root, groupFile)
	var out []membership
	for _, line := range lines {
		f := fields(line, 4)
		if len(f) < 3 {
			continue
		}
		gid, ok := parseID(f[2])
		if !ok {
			continue
		}
		m := membership{name: f[0], gid: gid}
		if len(f) > 3 && f[3] != "" {
			m.members = strings.Split(f[3], ",")
		}
		if match(m) {
			out = append(out, m)
		}
	}
	return out, err
}

// fields splits a line; nil for comments, blank and overlong ones.
func fields(line string, n int) []string {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' || len(line) > maxLine {
		return nil
	}
	return strings.SplitN(line, ":", n)
}

// parseID reads an id of a file. One that does not fit makes the line invalid,
// it is never wrapped.
func parseID(s string) (uint32, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	v, err := strconv.ParseUint(s, 10, 32)
	return uint32(v), err == nil && v <= MaxID
}
