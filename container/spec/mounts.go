package spec

import (
	"path"
	"slices"
	"strings"

	"github.com/crid-project/crid/container/plan"
	"github.com/crid-project/crid/container/spec/confine"
	"github.com/crid-project/crid/container/spec/field"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"
)

// mount is one checked entry of config.mounts.
type mount struct {
	index       int
	dst, src    string // src is empty for an image mount
	image       bool
	propagation runtime.MountPropagation
	mode        string // "rw", "ro" or "rro"
	options     []string
	uids, gids  []oci.LinuxIDMapping
}

// maxMounts bounds the list; the kernel's own bound is 100,000 in a namespace.
const maxMounts = 4096

// mountOptions are the mount_options that may be asked for: those that only
// take something away, or concern access times.
var mountOptions = []string{"noexec", "nodev", "nosuid", "nosymfollow", "noatime", "nodiratime", "relatime"}

func (b *builder) checkMounts() error {
	in := b.cfg.GetMounts()
	if len(in) > maxMounts {
		return field.Invalid("config.mounts", "has %d entries, at most %d are taken", len(in), maxMounts)
	}
	for i, m := range in {
		out, err := b.checkMount(field.At("config.mounts", i), i, m)
		if err != nil {
			return err
		}
		b.mounts = append(b.mounts, out)
		b.planMount(out, m)
	}
	return nil
}

// planMount tells the hands what a mount needs of the node.
func (b *builder) planMount(m mount, in *runtime.Mount) {
	if m.image {
		b.plan.ImageMounts = append(b.plan.ImageMounts, plan.ImageMount{
			Index: m.index, Image: in.GetImage().GetImage(), SubPath: strings.TrimPrefix(path.Clean("/"+in.GetImageSubPath()), "/"),
		})
		return
	}
	add := func(list *[]string) {
		if !slices.Contains(*list, m.src) {
			*list = append(*list, m.src)
		}
	}
	add(&b.plan.HostDirs)
	switch m.propagation {
	case runtime.MountPropagation_PROPAGATION_BIDIRECTIONAL:
		add(&b.plan.SharedPaths)
	case runtime.MountPropagation_PROPAGATION_HOST_TO_CONTAINER:
		add(&b.plan.SlavePaths)
	case runtime.MountPropagation_PROPAGATION_PRIVATE:
	}
	if in.GetSelinuxRelabel() && b.opts.SELinux != nil {
		add(&b.plan.Relabel)
	}
}

func (b *builder) checkMount(name string, i int, in *runtime.Mount) (out mount, err error) {
	out = mount{index: i, propagation: in.GetPropagation()}
	if out.dst, err = field.AbsPath(name+".container_path", in.GetContainerPath(), true); err != nil {
		return out, err
	}
	if out.dst == "/" {
		return out, field.Invalid(name+".container_path", "must not be the root")
	}
	if _, ok := runtime.MountPropagation_name[int32(out.propagation)]; !ok {
		return out, field.Invalid(name+".propagation", "unknown propagation %d", out.propagation)
	}
	if in.GetImage() != nil {
		err = checkImageMount(name, in)
		out.image = true
	} else {
		if in.GetImageSubPath() != "" {
			return out, field.Invalid(name+".image_sub_path", "needs image")
		}
		out.src, err = field.AbsPath(name+".host_path", in.GetHostPath(), false)
	}
	if err != nil {
		return out, err
	}
	if out.mode, err = b.accessMode(name, in); err != nil {
		return out, err
	}
	for j, o := range in.GetMountOptions() {
		if !slices.Contains(mountOptions, o) {
			return out, field.Invalid(field.At(name+".mount_options", j), "must be one of %s, got %q",
				strings.Join(mountOptions, ", "), field.Short(o))
		}
		if !slices.Contains(out.options, o) {
			out.options = append(out.options, o)
		}
	}
	out.uids, out.gids, err = b.mountMappings(name, in)
	return out, err
}

func checkImageMount(name string, in *runtime.Mount) error {
	sub := in.GetImageSubPath()
	switch {
	case in.GetHostPath() != "":
		return field.Invalid(name+".host_path", "must be empty where image is set")
	case in.GetImage().GetImage() == "":
		return field.Invalid(name+".image.image", "must be set")
	case in.GetPropagation() != runtime.MountPropagation_PROPAGATION_PRIVATE:
		return field.Invalid(name+".propagation", "must be PRIVATE for an image, got %s", in.GetPropagation())
	case sub != "" && (sub[0] == '/' || field.HasUp(sub)):
		return field.Invalid(name+".image_sub_path", `must be relative and without "..", got %q`, field.Short(sub))
	}
	if err := field.Line(name+".image_sub_path", sub, field.MaxPath-1); err != nil {
		return err
	}
	return field.Line(name+".image.image", in.GetImage().GetImage(), 1024)
}

// accessMode applies the rules CRI states at recursive_read_only. An image is
// always read-only.
func (b *builder) accessMode(name string, in *runtime.Mount) (string, error) {
	ro := in.GetReadonly() || in.GetImage() != nil
	if !in.GetRecursiveReadOnly() {
		if ro {
			return "ro", nil
		}
		return "rw", nil
	}
	switch {
	case !ro:
		return "", field.Invalid(name+".recursive_read_only", "needs readonly")
	case in.GetPropagation() != runtime.MountPropagation_PROPAGATION_PRIVATE:
		return "", field.Invalid(name+".recursive_read_only", "needs PRIVATE propagation, got %s", in.GetPropagation())
	case !b.opts.Kernel.RecursiveReadOnly:
		return "", field.Unsupported(name+".recursive_read_only",
			"%v: needs Linux 5.12 and a runtime with the rro mount option", crierrors.ErrRROUnsupported)
	}
	return "rro", nil
}

func (b *builder) mountMappings(name string, in *runtime.Mount) (uids, gids []oci.LinuxIDMapping, err error) {
	if len(in.GetUidMappings()) == 0 && len(in.GetGidMappings()) == 0 {
		return nil, nil, nil
	}
	if b.plan.UserNS == nil {
		return nil, nil, field.Invalid(name+".uidMappings", "needs a pod with a user namespace")
	}
	if uids, err = confine.IDMappings(name+".uidMappings", in.GetUidMappings()); err != nil {
		return nil, nil, err
	}
	if gids, err = confine.IDMappings(name+".gidMappings", in.GetGidMappings()); err != nil {
		return nil, nil, err
	}
	if !b.opts.Kernel.IDMapMounts {
		return nil, nil, field.Unsupported(name+".uidMappings", "kernel and runtime must support idmapped mounts (Linux 5.12, runc 1.2)")
	}
	return uids, gids, nil
}

// addMounts fills in mounts: the standard ones, the pod's files, the image's
// volumes and those asked for, each of which replaces a former one at the same
// place; then sorted by depth so that none hides another.
func (b *builder) addMounts(s *oci.Spec, f plan.Facts) error {
	asked := make(map[string]bool, len(b.mounts))
	for _, m := range b.mounts {
		asked[m.dst] = true
	}
	var all []oci.Mount
	for _, m := range slices.Concat(b.standardMounts(f), b.podMounts(f), b.volumeMounts(f)) {
		if asked[m.Destination] || asked["/dev"] && strings.HasPrefix(m.Destination, "/dev/") {
			continue
		}
		all = append(all, m)
	}
	for _, m := range b.mounts {
		src := m.src
		if m.image {
			if src = f.ImageMounts[m.index]; src == "" {
				return field.Unsupported(field.At("config.mounts", m.index)+".image", "was not mounted")
			}
		}
		all = append(all, oci.Mount{
			Destination: m.dst, Source: src, Type: "bind", UIDMappings: m.uids, GIDMappings: m.gids,
			Options: append([]string{"rbind", propagation(s, m.propagation), m.mode}, m.options...),
		})
	}
	s.Mounts = sortMounts(all)
	return nil
}

// propagation returns the mount option, and sets the root's propagation, which
// must let through what a mount is to receive or send.
func propagation(s *oci.Spec, p runtime.MountPropagation) string {
	switch p {
	case runtime.MountPropagation_PROPAGATION_BIDIRECTIONAL:
		s.Linux.RootfsPropagation = "rshared"
		return "rshared"
	case runtime.MountPropagation_PROPAGATION_HOST_TO_CONTAINER:
		if s.Linux.RootfsPropagation == "" {
			s.Linux.RootfsPropagation = "rslave"
		}
		return "rslave"
	default:
		return "rprivate"
	}
}

// sortMounts orders by the number of path elements; equals keep their order.
func sortMounts(m []oci.Mount) []oci.Mount {
	slices.SortStableFunc(m, func(a, b oci.Mount) int {
		return strings.Count(path.Clean(a.Destination), "/") - strings.Count(path.Clean(b.Destination), "/")
	})
	return m
}

func (b *builder) standardMounts(f plan.Facts) []oci.Mount {
	access := "ro"
	if b.plan.Privileged {
		access = "rw"
	}
	sys := oci.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", access}}
	if b.plan.HostNetwork && b.plan.UserNS != nil {
		// The kernel refuses a new sysfs to who does not own the network namespace.
		sys = oci.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: []string{"rbind", "rro", "nosuid", "noexec", "nodev"}}
	}
	cgroup := []string{"nosuid", "noexec", "nodev", "relatime", access}
	if b.plan.Privileged || !f.Kernel.CgroupV2 {
		cgroup = append(cgroup, f.Kernel.CgroupMountOptions...)
	}
	return []oci.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts",
			Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		sys,
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: cgroup},
	}
}

// podMounts are /dev/shm and the files in /etc that the pod's containers share.
func (b *builder) podMounts(f plan.Facts) []oci.Mount {
	shm := oci.Mount{Destination: "/dev/shm", Type: "bind", Source: f.ShmDir, Options: []string{"rbind", "rprivate", "rw", "nosuid", "noexec", "nodev"}}
	switch {
	case f.ShmDir != "":
	case b.plan.HostIPC:
		shm.Source = "/dev/shm"
	default:
		shm = oci.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
			Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}}
	}
	out := []oci.Mount{shm}
	mode := "rw"
	if b.plan.ReadonlyRootfs {
		mode = "ro"
	}
	for _, e := range []struct{ dst, src string }{
		{"/etc/hostname", f.HostnameFile}, {"/etc/hosts", f.HostsFile}, {"/etc/resolv.conf", f.ResolvFile},
	} {
		if e.src != "" {
			out = append(out, b.owned(f, oci.Mount{Destination: e.dst, Type: "bind", Source: e.src, Options: []string{"rbind", "rprivate", mode}}))
		}
	}
	return out
}

// owned maps a mount of ours into the pod's user namespace, so that its root
// owns what is root's on the node.
func (b *builder) owned(f plan.Facts, m oci.Mount) oci.Mount {
	if u := b.plan.UserNS; u != nil && f.Kernel.IDMapMounts {
		m.UIDMappings, m.GIDMappings = slices.Clone(u.UIDs), slices.Clone(u.GIDs)
	}
	return m
}

func (b *builder) volumeMounts(f plan.Facts) []oci.Mount {
	var out []oci.Mount
	for _, dst := range sortedKeys(f.VolumeDirs) {
		out = append(out, b.owned(f, oci.Mount{
			Destination: path.Clean("/" + dst), Type: "bind", Source: f.VolumeDirs[dst], Options: []string{"rbind", "rprivate", "rw"},
		}))
	}
	return out
}
