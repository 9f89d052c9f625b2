package spec

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

type edit func(c *runtime.ContainerConfig, p *runtime.PodSandboxConfig, o *Options)

// Each is refused with an error that names the field, before anything is done.
func TestRefused(t *testing.T) {
	sc := func(c *runtime.ContainerConfig) *runtime.LinuxContainerSecurityContext {
		return c.Linux.SecurityContext
	}
	mount := func(m *runtime.Mount) edit {
		return func(c *runtime.ContainerConfig, _ *runtime.PodSandboxConfig, _ *Options) {
			c.Mounts = []*runtime.Mount{m}
		}
	}
	res := func(r *runtime.LinuxContainerResources) edit {
		return func(c *runtime.ContainerConfig, _ *runtime.PodSandboxConfig, _ *Options) { c.Linux.Resources = r }
	}
	caps := func(k *runtime.Capability) edit {
		return func(c *runtime.ContainerConfig, _ *runtime.PodSandboxConfig, _ *Options) { sc(c).Capabilities = k }
	}
	ns := func(n *runtime.NamespaceOption) edit {
		return func(c *runtime.ContainerConfig, _ *runtime.PodSandboxConfig, _ *Options) { sc(c).NamespaceOptions = n }
	}
	cfg := func(f func(c *runtime.ContainerConfig)) edit {
		return func(c *runtime.ContainerConfig, _ *runtime.PodSandboxConfig, _ *Options) { f(c) }
	}
	image := &runtime.ImageSpec{Image: "sha256:1"}
	two := append(userns().Uids, userns().Uids...)
	const (
		arg     = 0
		machine = 1
	)
	kinds := []error{errdefs.ErrInvalidArgument, errdefs.ErrFailedPrecondition}
	for name, c := range map[string]struct {
		edit  edit
		field string
		kind  int
	}{
		"no metadata":              {cfg(func(c *runtime.ContainerConfig) { c.Metadata = nil }), "config.metadata.name", arg},
		"a name that is a path":    {cfg(func(c *runtime.ContainerConfig) { c.Metadata.Name = "../x" }), "config.metadata.name", arg},
		"no image":                 {cfg(func(c *runtime.ContainerConfig) { c.Image = nil }), "config.image.image", arg},
		"log path out (2025-0750)": {cfg(func(c *runtime.ContainerConfig) { c.LogPath = "../../../etc/cron.d/x" }), "config.log_path", arg},
		"absolute log path":        {cfg(func(c *runtime.ContainerConfig) { c.LogPath = "/etc/x" }), "config.log_path", arg},
		"log path is a directory":  {cfg(func(c *runtime.ContainerConfig) { c.LogPath = "./" }), "config.log_path", arg},
		"relative log directory": {func(c *runtime.ContainerConfig, p *runtime.PodSandboxConfig, _ *Options) {
			c.LogPath, p.LogDirectory = "x", "var/log"
		}, "log_directory", arg},
		"NUL in args":      {cfg(func(c *runtime.ContainerConfig) { c.Args = []string{"a", "b\x00"} }), "config.args[1]", arg},
		"env without key":  {cfg(func(c *runtime.ContainerConfig) { c.Envs = []*runtime.KeyValue{{Value: []byte("x")}} }), "config.envs[0].key", arg},
		"env key with =":   {cfg(func(c *runtime.ContainerConfig) { c.Envs = []*runtime.KeyValue{{Key: "A=B"}} }), "config.envs[0].key", arg},
		"NUL in env":       {cfg(func(c *runtime.ContainerConfig) { c.Envs = []*runtime.KeyValue{{Key: "A", Value: []byte{0}}} }), "config.envs[0].value", arg},
		"nil env":          {cfg(func(c *runtime.ContainerConfig) { c.Envs = []*runtime.KeyValue{nil} }), "config.envs[0]", arg},
		"cwd of a process": {cfg(func(c *runtime.ContainerConfig) { c.WorkingDir = "/proc/self/fd/7" }), "config.working_dir", arg},
		"stop signal":      {cfg(func(c *runtime.ContainerConfig) { c.StopSignal = 99 }), "config.stop_signal", arg},

		"no container path":       {mount(&runtime.Mount{HostPath: "/x"}), "config.mounts[0].container_path", arg},
		"relative container path": {mount(&runtime.Mount{HostPath: "/x", ContainerPath: "x"}), "config.mounts[0].container_path", arg},
		"over the root":           {mount(&runtime.Mount{HostPath: "/x", ContainerPath: "/a/.."}), "config.mounts[0].container_path", arg},
		"no host path":            {mount(&runtime.Mount{ContainerPath: "/x"}), "config.mounts[0].host_path", arg},
		"host path with ..":       {mount(&runtime.Mount{ContainerPath: "/x", HostPath: "/srv/../etc"}), "config.mounts[0].host_path", arg},
		"endless host path":       {mount(&runtime.Mount{ContainerPath: "/x", HostPath: "/" + strings.Repeat("a", 5000)}), "config.mounts[0].host_path", arg},
		"unknown propagation":     {mount(&runtime.Mount{ContainerPath: "/x", HostPath: "/x", Propagation: 9}), "config.mounts[0].propagation", arg},
		"rro without ro":          {mount(&runtime.Mount{ContainerPath: "/x", HostPath: "/x", RecursiveReadOnly: true}), "recursive_read_only", arg},
		"rro with propagation": {mount(&runtime.Mount{ContainerPath: "/x", HostPath: "/x", Readonly: true, RecursiveReadOnly: true,
			Propagation: runtime.MountPropagation_PROPAGATION_HOST_TO_CONTAINER}), "recursive_read_only", arg},
		"rro on an old kernel": {func(c *runtime.ContainerConfig, _ *runtime.PodSandboxConfig, o *Options) {
			c.Mounts = []*runtime.Mount{{ContainerPath: "/x", HostPath: "/x", Readonly: true, RecursiveReadOnly: true}}
			o.Kernel.RecursiveReadOnly = false
		}, "RROUnsupported", machine},
		"mount option suid":       {mount(&runtime.Mount{ContainerPath: "/x", HostPath: "/x", MountOptions: []string{"noexec", "suid"}}), "mount_options[1]", arg},
		"mount option injected":   {mount(&runtime.Mount{ContainerPath: "/x", HostPath: "/x", MountOptions: []string{"noexec,rw"}}), "mount_options[0]", arg},
		"image and host path":     {mount(&runtime.Mount{ContainerPath: "/x", HostPath: "/x", Image: image}), "config.mounts[0].host_path", arg},
		"image without reference": {mount(&runtime.Mount{ContainerPath: "/x", Image: &runtime.ImageSpec{}}), "config.mounts[0].image.image", arg},
		"image sub path out":      {mount(&runtime.Mount{ContainerPath: "/x", Image: image, ImageSubPath: "a/../../b"}), "image_sub_path", arg},
		"absolute image sub path": {mount(&runtime.Mount{ContainerPath: "/x", Image: image, ImageSubPath: "/etc"}), "image_sub_path", arg},
		"sub path without image":  {mount(&runtime.Mount{ContainerPath: "/x", HostPath: "/x", ImageSubPath: "a"}), "image_sub_path", arg},
		"shared image": {mount(&runtime.Mount{ContainerPath: "/x", Image: image,
			Propagation: runtime.MountPropagation_PROPAGATION_BIDIRECTIONAL}), "propagation", arg},
		"idmap without user namespace": {mount(&runtime.Mount{ContainerPath: "/x", HostPath: "/x", UidMappings: userns().Uids, GidMappings: userns().Gids}), "uidMappings", arg},
		"half an idmap": {func(c *runtime.ContainerConfig, p *runtime.PodSandboxConfig, _ *Options) {
			c.Mounts = []*runtime.Mount{{ContainerPath: "/x", HostPath: "/x", UidMappings: userns().Uids}}
			p.Linux.SecurityContext.NamespaceOptions.UsernsOptions = userns()
		}, "gidMappings", arg},
		"idmap on an old kernel": {func(c *runtime.ContainerConfig, p *runtime.PodSandboxConfig, o *Options) {
			c.Mounts = []*runtime.Mount{{ContainerPath: "/x", HostPath: "/x", UidMappings: userns().Uids, GidMappings: userns().Gids}}
			p.Linux.SecurityContext.NamespaceOptions.UsernsOptions = userns()
			o.Kernel.IDMapMounts = false
		}, "uidMappings", machine},

		"device without container path": {cfg(func(c *runtime.ContainerConfig) {
			c.Devices = []*runtime.Device{{HostPath: "/dev/fuse", Permissions: "rw"}}
		}), "config.devices[0].container_path", arg},
		"device permissions": {cfg(func(c *runtime.ContainerConfig) {
			c.Devices = []*runtime.Device{{HostPath: "/dev/fuse", ContainerPath: "/dev/fuse", Permissions: "rwx"}}
		}), "config.devices[0].permissions", arg},
		"CDI name": {cfg(func(c *runtime.ContainerConfig) { c.CDIDevices = []*runtime.CDIDevice{{Name: "gpu0"}} }), "config.CDI_devices[0].name", arg},
		"no CDI": {func(c *runtime.ContainerConfig, _ *runtime.PodSandboxConfig, o *Options) {
			c.CDIDevices, o.CDI = []*runtime.CDIDevice{{Name: "vendor.com/gpu=0"}}, nil
		}, "config.CDI_devices", machine},

		"negative user":                     {cfg(func(c *runtime.ContainerConfig) { sc(c).RunAsUser = &runtime.Int64Value{Value: -1} }), "run_as_user", arg},
		"user 2^32":                         {cfg(func(c *runtime.ContainerConfig) { sc(c).RunAsUser = &runtime.Int64Value{Value: 1 << 32} }), "run_as_user", arg},
		"group without user":                {cfg(func(c *runtime.ContainerConfig) { sc(c).RunAsGroup = &runtime.Int64Value{Value: 1} }), "run_as_group", arg},
		"two users":                         {cfg(func(c *runtime.ContainerConfig) { sc(c).RunAsUser, sc(c).RunAsUsername = &runtime.Int64Value{}, "root" }), "run_as_username", arg},
		"user name and group":               {cfg(func(c *runtime.ContainerConfig) { sc(c).RunAsUsername = "root:root" }), "run_as_username", arg},
		"supplemental 2^31":                 {cfg(func(c *runtime.ContainerConfig) { sc(c).SupplementalGroups = []int64{0, 1 << 31} }), "supplemental_groups[1]", arg},
		"groups policy":                     {cfg(func(c *runtime.ContainerConfig) { sc(c).SupplementalGroupsPolicy = 7 }), "supplemental_groups_policy", arg},
		"privileged in an unprivileged pod": {cfg(func(c *runtime.ContainerConfig) { sc(c).Privileged = true }), "privileged", arg},

		"unknown capability":         {caps(&runtime.Capability{AddCapabilities: []string{"NET_ADMINN"}}), "add_capabilities[0]", arg},
		"unknown dropped capability": {caps(&runtime.Capability{DropCapabilities: []string{"ALL", "NET_RAWW"}}), "drop_capabilities[1]", arg},
		"unknown ambient":            {caps(&runtime.Capability{AddAmbientCapabilities: []string{""}}), "add_ambient_capabilities[0]", arg},

		"seccomp, relative":      {cfg(func(c *runtime.ContainerConfig) { sc(c).Seccomp = local("strict.json") }), "seccomp.localhost_ref", arg},
		"seccomp without path":   {cfg(func(c *runtime.ContainerConfig) { sc(c).Seccomp = local("") }), "seccomp.localhost_ref", arg},
		"seccomp with ..":        {cfg(func(c *runtime.ContainerConfig) { sc(c).Seccomp = local("/profiles/../x") }), "seccomp.localhost_ref", arg},
		"seccomp type":           {cfg(func(c *runtime.ContainerConfig) { sc(c).Seccomp = &runtime.SecurityProfile{ProfileType: 9} }), "seccomp.profile_type", arg},
		"default with path":      {cfg(func(c *runtime.ContainerConfig) { sc(c).Seccomp = &runtime.SecurityProfile{LocalhostRef: "/x"} }), "seccomp.localhost_ref", arg},
		"old seccomp form":       {cfg(func(c *runtime.ContainerConfig) { sc(c).SeccompProfilePath = "strict" }), "seccomp_profile_path", arg}, //nolint:staticcheck // deprecated is what is tested
		"AppArmor with a line":   {cfg(func(c *runtime.ContainerConfig) { sc(c).Apparmor = local("a\nb") }), "apparmor.localhost_ref", arg},
		"SELinux level":          {cfg(func(c *runtime.ContainerConfig) { sc(c).SelinuxOptions = &runtime.SELinuxOption{Level: "s0:c1,x"} }), "selinux_options.level", arg},
		"SELinux type":           {cfg(func(c *runtime.ContainerConfig) { sc(c).SelinuxOptions = &runtime.SELinuxOption{Type: "a:b"} }), "selinux_options.type", arg},
		"relative masked path":   {cfg(func(c *runtime.ContainerConfig) { sc(c).MaskedPaths = []string{"/a", "proc"} }), "masked_paths[1]", arg},
		"relative readonly path": {cfg(func(c *runtime.ContainerConfig) { sc(c).ReadonlyPaths = []string{""} }), "readonly_paths[0]", arg},

		"node's network in a pod's":    {ns(&runtime.NamespaceOption{Network: runtime.NamespaceMode_NODE}), "namespace_options.network", arg},
		"own network":                  {ns(&runtime.NamespaceOption{Network: runtime.NamespaceMode_CONTAINER}), "namespace_options.network", arg},
		"node's IPC in a pod's":        {ns(&runtime.NamespaceOption{Ipc: runtime.NamespaceMode_NODE}), "namespace_options.ipc", arg},
		"node's processes in a pod's":  {ns(&runtime.NamespaceOption{Pid: runtime.NamespaceMode_NODE}), "namespace_options.pid", arg},
		"target without id":            {ns(&runtime.NamespaceOption{Pid: runtime.NamespaceMode_TARGET}), "namespace_options.target_id", arg},
		"id without target":            {ns(&runtime.NamespaceOption{TargetId: "x"}), "namespace_options.target_id", arg},
		"user namespace the pod lacks": {ns(&runtime.NamespaceOption{UsernsOptions: userns()}), "userns_options", arg},
		"two mappings":                 {ns(&runtime.NamespaceOption{UsernsOptions: &runtime.UserNamespace{Uids: two, Gids: two}}), "userns_options.uids", arg},
		"a container without root":     {ns(&runtime.NamespaceOption{UsernsOptions: mapped(1000, 1, 1000)}), "userns_options.uids[0].container_id", arg},
		"a mapping of nothing":         {ns(&runtime.NamespaceOption{UsernsOptions: mapped(1000, 0, 0)}), "userns_options.uids[0].length", arg},
		"a mapping beyond the last id": {ns(&runtime.NamespaceOption{UsernsOptions: mapped(1<<32-1, 0, 65536)}), "userns_options.uids[0]", arg},
		"no mapping":                   {ns(&runtime.NamespaceOption{UsernsOptions: &runtime.UserNamespace{}}), "userns_options.uids", arg},
		"user namespace of another":    {ns(&runtime.NamespaceOption{UsernsOptions: &runtime.UserNamespace{Mode: runtime.NamespaceMode_TARGET}}), "userns_options.mode", arg},
		"the node's, with mappings":    {ns(&runtime.NamespaceOption{UsernsOptions: &runtime.UserNamespace{Mode: runtime.NamespaceMode_NODE, Uids: two}}), "userns_options", arg},
		"cpu period":                   {res(&runtime.LinuxContainerResources{CpuPeriod: 10}), "config.linux.resources.cpu_period", arg},
		"cpu quota":                    {res(&runtime.LinuxContainerResources{CpuQuota: -2}), "cpu_quota", arg},
		"cpu shares":                   {res(&runtime.LinuxContainerResources{CpuShares: -1}), "cpu_shares", arg},
		"cpuset":                       {res(&runtime.LinuxContainerResources{CpusetCpus: "0-1\n"}), "cpuset_cpus", arg},
		"mems":                         {res(&runtime.LinuxContainerResources{CpusetMems: "all"}), "cpuset_mems", arg},
		"memory":                       {res(&runtime.LinuxContainerResources{MemoryLimitInBytes: -5}), "memory_limit_in_bytes", arg},
		"swap below memory":            {res(&runtime.LinuxContainerResources{MemoryLimitInBytes: 9, MemorySwapLimitInBytes: 8}), "memory_swap_limit_in_bytes", arg},
		"OOM score":                    {res(&runtime.LinuxContainerResources{OomScoreAdj: 1001}), "oom_score_adj", arg},
		"page size":                    {res(&runtime.LinuxContainerResources{HugepageLimits: []*runtime.HugepageLimit{{PageSize: "../2MB"}}}), "hugepage_limits[0].page_size", arg},
		"page size that is not there":  {res(&runtime.LinuxContainerResources{HugepageLimits: []*runtime.HugepageLimit{{PageSize: "64KB", Limit: 1}}}), "hugepage_limits[0].page_size", machine},
		"cgroup file by path":          {res(&runtime.LinuxContainerResources{Unified: map[string]string{"../memory.max": "1"}}), "unified", arg},
		"cgroup file of the core":      {res(&runtime.LinuxContainerResources{Unified: map[string]string{"cgroup.procs": "1"}}), "unified", arg},
		"unified resources on cgroup 1": {func(c *runtime.ContainerConfig, _ *runtime.PodSandboxConfig, o *Options) {
			c.Linux.Resources = &runtime.LinuxContainerResources{Unified: map[string]string{"memory.max": "1"}}
			o.Kernel.CgroupV2 = false
		}, "unified", machine},
		"empty label key": {cfg(func(c *runtime.ContainerConfig) { c.Labels = map[string]string{"": "x"} }), "config.labels", arg},
	} {
		t.Run(name, func(t *testing.T) {
			cc, p, o := small(), pod(), options()
			c.edit(cc, p, &o)
			_, err := New(cc, p, o)
			if !errors.Is(err, kinds[c.kind]) || !strings.Contains(err.Error(), c.field) {
				t.Errorf("want %q and %v, got %v", c.field, kinds[c.kind], err)
			}
			if err != nil && len(err.Error()) > 600 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
	if _, err := New(nil, pod(), options()); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("nil config: %v", err)
	}
	if _, err := New(small(), nil, options()); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("nil pod: %v", err)
	}
}

func local(ref string) *runtime.SecurityProfile {
	return &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_Localhost, LocalhostRef: ref}
}

func mapped(host, container, length uint32) *runtime.UserNamespace {
	m := []*runtime.IDMapping{{HostId: host, ContainerId: container, Length: length}}
	return &runtime.UserNamespace{Mode: runtime.NamespaceMode_POD, Uids: m, Gids: m}
}
