package spec

import (
	"slices"
	"strconv"

	cspec "github.com/crid-project/crid/container/spec"
	"github.com/crid-project/crid/container/spec/confine"
	"github.com/crid-project/crid/sandbox/plan"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	defaultOCIVersion = "1.0.2"
	pauseShares       = 2    // the least weight: it only sleeps
	pauseOOMScoreAdj  = -998 // the pod lives as long as it does
	pauseBinary       = "/pause"
	annotationLogDir  = "io.kubernetes.cri.sandbox-log-directory"
	annotationImage   = "io.kubernetes.cri.podsandbox.image-name"
	annotationCPU     = "io.kubernetes.cri.sandbox-cpu-"
	annotationMemory  = "io.kubernetes.cri.sandbox-memory"
	pauseImage        = "crid/pause" // embedded: a name for those who ask, nothing to pull
)

// pauseSpec builds the spec of the process that holds the pod's namespaces. It
// needs nothing, and gets nothing: no capabilities, a read-only root, no new
// privileges.
func (b *builder) pauseSpec(f plan.Facts) (*oci.Spec, error) {
	adj, shares := max(pauseOOMScoreAdj, f.MinOOMScoreAdj), uint64(pauseShares)
	s := &oci.Spec{
		Version: f.OCIVersion,
		Root:    &oci.Root{Path: f.Rootfs, Readonly: true},
		Process: &oci.Process{
			User:            b.pauseUser(),
			Args:            []string{pauseBinary},
			Env:             []string{"PATH=/"},
			Cwd:             "/",
			Capabilities:    &oci.LinuxCapabilities{},
			NoNewPrivileges: true,
			OOMScoreAdj:     &adj,
			SelinuxLabel:    b.plan.ProcessLabel,
		},
		Linux: &oci.Linux{
			CgroupsPath: f.CgroupsPath,
			MountLabel:  b.plan.MountLabel,
			Resources: &oci.LinuxResources{
				CPU:     &oci.LinuxCPU{Shares: &shares},
				Devices: []oci.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}},
			},
		},
		Mounts:      b.pauseMounts(f),
		Annotations: b.annotations(f),
	}
	if s.Version == "" {
		s.Version = defaultOCIVersion
	}
	s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = confine.Masks(nil, nil, false, nil)
	b.pauseNamespaces(s, f)
	if err := confine.ApplySeccomp(s, b.seccomp.Default(b.opts.SeccompProfile), b.plan.Privileged, f.Seccomp, b.opts.ReadFile); err != nil {
		return nil, err
	}
	var err error
	s.Process.ApparmorProfile, err = confine.AppArmorName(b.apparmor, b.plan.Privileged, b.opts.Kernel.AppArmor, b.opts.AppArmor)
	return s, err
}

func (b *builder) pauseUser() oci.User {
	u := oci.User{}
	if b.uid != nil {
		u.UID = uint32(*b.uid)
	}
	if b.gid != nil {
		u.GID = uint32(*b.gid)
	}
	u.AdditionalGids = []uint32{u.GID}
	for _, g := range b.groups {
		if id := uint32(g); !slices.Contains(u.AdditionalGids, id) {
			u.AdditionalGids = append(u.AdditionalGids, id)
		}
	}
	return u
}

func (b *builder) pauseMounts(f plan.Facts) []oci.Mount {
	sys := oci.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}}
	if b.plan.HostNetwork && b.plan.UserNS != nil {
		// The kernel refuses a new sysfs to who does not own the network namespace.
		sys = oci.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: []string{"rbind", "rro", "nosuid", "noexec", "nodev"}}
	}
	out := []oci.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		sys,
	}
	bind := func(dst, src string) {
		if src != "" {
			out = append(out, oci.Mount{Destination: dst, Type: "bind", Source: src, Options: []string{"rbind", "ro", "nosuid", "nodev", "noexec"}})
		}
	}
	bind("/dev/shm", f.ShmDir)
	bind("/etc/resolv.conf", f.ResolvFile) // how a sandboxed runtime learns the pod's DNS
	return out
}

func (b *builder) pauseNamespaces(s *oci.Spec, f plan.Facts) {
	ns := []oci.LinuxNamespace{{Type: oci.MountNamespace}}
	for _, n := range []struct {
		kind oci.LinuxNamespaceType
		path string
	}{{oci.NetworkNamespace, f.NetNS}, {oci.IPCNamespace, f.IPCNS}, {oci.UTSNamespace, f.UTSNS}} {
		if n.path != "" {
			ns = append(ns, oci.LinuxNamespace{Type: n.kind, Path: n.path})
		}
	}
	if !b.plan.HostPID {
		ns = append(ns, oci.LinuxNamespace{Type: oci.PIDNamespace})
	}
	if f.CgroupV2 {
		ns = append(ns, oci.LinuxNamespace{Type: oci.CgroupNamespace})
	}
	if m := b.plan.UserNS; m != nil {
		ns = append(ns, oci.LinuxNamespace{Type: oci.UserNamespace, Path: f.UserNS})
		s.Linux.UIDMappings, s.Linux.GIDMappings = slices.Clone(m.UIDs), slices.Clone(m.GIDs)
	}
	s.Linux.Namespaces = ns
}

// annotations are what shims and sandboxed runtimes know a pod by, and those
// that the handler lets through.
func (b *builder) annotations(f plan.Facts) map[string]string {
	out := cspec.PassThrough(b.cfg.GetAnnotations(), b.opts.PodAnnotations)
	out[cspec.AnnotationContainerType] = "sandbox"
	out[cspec.AnnotationSandboxID] = f.ID
	out[cspec.AnnotationSandboxName] = b.plan.Name
	out[cspec.AnnotationSandboxNamespace] = b.plan.Namespace
	out[cspec.AnnotationSandboxUID] = b.plan.UID
	out[annotationLogDir] = b.plan.LogDirectory
	out[annotationImage] = pauseImage
	if r := b.cfg.GetLinux().GetResources(); r != nil {
		addSizes(out, r)
	}
	return out
}

// addSizes tells a virtual machine's runtime how large the pod will be.
func addSizes(out map[string]string, r *runtime.LinuxContainerResources) {
	out[annotationCPU+"period"] = strconv.FormatInt(r.GetCpuPeriod(), 10)
	out[annotationCPU+"quota"] = strconv.FormatInt(r.GetCpuQuota(), 10)
	out[annotationCPU+"shares"] = strconv.FormatInt(r.GetCpuShares(), 10)
	out[annotationMemory] = strconv.FormatInt(r.GetMemoryLimitInBytes(), 10)
}
