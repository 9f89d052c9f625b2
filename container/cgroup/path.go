package cgroup

import (
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/containerd/errdefs"
)

// The cgroup drivers: who makes the directories.
const (
	// Cgroupfs makes them itself.
	Cgroupfs = "cgroupfs"
	// Systemd asks systemd for slices and scopes.
	Systemd = "systemd"
)

// unitPrefix starts the names of crid's systemd scopes.
const unitPrefix = "crid"

// AutoDriver answers the driver that fits this machine: systemd where it is
// PID 1 (it must be the only writer there), else cgroupfs.
func AutoDriver() string {
	if st, err := os.Stat("/run/systemd/system"); err == nil && st.IsDir() {
		return Systemd
	}
	return Cgroupfs
}

// Path builds what an OCI spec's linux.cgroupsPath says for a container below
// parent, and the directory (relative to the hierarchies' roots) that the
// runtime makes of it.
//
//	cgroupfs: "/kubepods/pod1", id  -> "/kubepods/pod1/ID" for both
//	systemd:  "kubepods-pod1.slice" -> "kubepods-pod1.slice:crid:ID",
//	          "/kubepods.slice/kubepods-pod1.slice/crid-ID.scope"
//
// With systemd the parent may also be a whole path, as the kubelet sends it;
// its last part is the slice. ErrInvalidArgument names what is wrong.
func Path(parent, id, driver string) (cgroupsPath, dir string, err error) {
	if id == "" || id == "." || id == ".." || strings.ContainsAny(id, "/:\x00\n") {
		return "", "", fmt.Errorf("cgroup name %q is not usable: %w", id, errdefs.ErrInvalidArgument)
	}
	if driver == Systemd {
		slice := path.Base(parent)
		dir, err := expandSlice(slice)
		if err != nil {
			return "", "", err
		}
		return slice + ":" + unitPrefix + ":" + id, path.Join(dir, unitName(unitPrefix, id)), nil
	}
	if !strings.HasPrefix(parent, "/") {
		parent = "/" + parent
	}
	if err := checkPath(parent); err != nil {
		return "", "", err
	}
	p := path.Join(parent, id)
	return p, p, nil
}

// ParentDir answers the directory of a pod's cgroup parent as the kubelet
// names it: the path itself with cgroupfs, the expanded slice with systemd.
func ParentDir(parent, driver string) (string, error) {
	if driver == Systemd {
		return expandSlice(path.Base(parent))
	}
	if !strings.HasPrefix(parent, "/") {
		parent = "/" + parent
	}
	if err := checkPath(parent); err != nil {
		return "", err
	}
	return path.Clean(parent), nil
}

// Slice is the name of the systemd slice that stands for a cgroup parent which
// the configuration names as a path: "/crid" and "crid.slice" are "crid.slice".
func Slice(parent string) string {
	return strings.TrimSuffix(path.Base(parent), ".slice") + ".slice"
}

// unitName is the systemd unit for prefix and name; a name that is a slice
// itself stays as it is.
func unitName(prefix, name string) string {
	if strings.HasSuffix(name, ".slice") {
		return name
	}
	if prefix == "" {
		return name + ".scope"
	}
	return prefix + "-" + name + ".scope"
}

// innermost is the cgroup that has a container's limits. With systemd on v2 crun
// leaves the scope as it is and puts them on a cgroup "container" in it
// (crun(1), run.oci.systemd.subgroup).
func (c *Cgroup) innermost() *Cgroup {
	if !c.t.v2 || !strings.HasSuffix(c.path, ".scope") {
		return c
	}
	if in := load(c.t, c.path+"/container"); in.Exists() {
		return in
	}
	return c
}

// expandSlice turns a slice's name into its path: every dash is one level
// (systemd.slice(5)): "a-b.slice" -> "/a.slice/a-b.slice".
func expandSlice(slice string) (string, error) {
	name, ok := strings.CutSuffix(slice, ".slice")
	if !ok || name == "" || strings.ContainsAny(name, "/:\x00\n") {
		return "", fmt.Errorf("cgroup parent %q is no systemd slice (it must be NAME.slice): "+
			"does the kubelet's cgroup driver agree with crid's cgroup_driver? %w", slice, errdefs.ErrInvalidArgument)
	}
	if name == "-" {
		return "/", nil
	}
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] != '-' {
			continue
		}
		if i == 0 || name[i-1] == '-' || i == len(name)-1 {
			return "", fmt.Errorf("cgroup parent %q is no systemd slice (misplaced dash): %w", slice, errdefs.ErrInvalidArgument)
		}
		b.WriteString("/" + name[:i] + ".slice")
	}
	b.WriteString("/" + slice)
	return b.String(), nil
}
