package spec

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/crid-project/crid/container/plan"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// kernel is a node with everything.
func kernel() plan.Kernel {
	return plan.Kernel{
		CgroupV2: true, Seccomp: true, Swap: true, HugepageSizes: []string{"2MB", "1GB"}, Capabilities: knownCaps(),
		MinOOMScoreAdj: -500, RecursiveReadOnly: true, IDMapMounts: true, OCIVersion: "1.2.0",
		CgroupMountOptions: []string{"nsdelegate"}, MaskedPaths: []string{"/sys/devices/system/cpu/cpu0/thermal_throttle"},
	}
}

// knownCaps are what a node's root usually has.
func knownCaps() []string {
	return []string{
		"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD", "CAP_NET_ADMIN",
		"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_ADMIN", "CAP_SYS_CHROOT",
	}
}

func options() Options {
	mode := os.FileMode(0o666)
	dev := func(path string, minor int64) oci.LinuxDevice {
		return oci.LinuxDevice{Path: path, Type: "c", Major: 10, Minor: minor, FileMode: &mode}
	}
	return Options{
		Kernel: kernel(),
		ReadFile: func(path string, _ int64) ([]byte, error) {
			if path != "/profiles/strict.json" {
				return nil, errors.New("no such profile")
			}
			return []byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["sethostname"],"action":"SCMP_ACT_ERRNO"}]}`), nil
		},
		Devices: func(path string) ([]oci.LinuxDevice, error) {
			switch path {
			case "/dev/fuse":
				return []oci.LinuxDevice{dev(path, 229)}, nil
			case "/dev/net":
				return []oci.LinuxDevice{dev("/dev/net/tun", 200), dev("/dev/net/deep/tap", 201)}, nil
			}
			return nil, errors.New("no such device")
		},
		HostDevices: func() ([]oci.LinuxDevice, error) {
			return []oci.LinuxDevice{dev("/dev/fuse", 229), dev("/dev/kvm", 232)}, nil
		},
		CDI: func(s *oci.Spec, names []string) error {
			for _, n := range names {
				s.Process.Env = append(s.Process.Env, "CDI="+n)
			}
			s.Mounts = append(s.Mounts, oci.Mount{Destination: "/opt", Type: "bind", Source: "/opt/cdi", Options: []string{"bind"}})
			return nil
		},
		PodAnnotations: []string{"census.io/pod"}, ContainerAnnotations: []string{"census.io/*"},
	}
}

func facts() plan.Facts {
	return plan.Facts{
		ID: "c1", PodID: "p1", PodName: "web", PodNamespace: "default", PodUID: "uid-1", Name: "nginx",
		Rootfs: "/run/crid/containers/c1/rootfs", CgroupsPath: "/kubepods/pod1/c1",
		NetNS: "/run/crid/pods/p1/ns/net", IPCNS: "/run/crid/pods/p1/ns/ipc", UTSNS: "/run/crid/pods/p1/ns/uts",
		Image: imagespec.ImageConfig{
			Entrypoint: []string{"/docker-entrypoint.sh"}, Cmd: []string{"nginx"}, Env: []string{"PATH=/usr/bin:/bin", "NGINX=1"},
			Labels: map[string]string{"io.kubernetes.cri.container-type": "sandbox", "containerd.io/restart.loguri": "binary:///bin/sh"},
		},
		ImageName: "docker.io/library/nginx:1", ImageID: "sha256:0", Home: "/root", Hostname: "web",
		HostnameFile: "/run/crid/pods/p1/hostname", HostsFile: "/run/crid/pods/p1/hosts", ResolvFile: "/run/crid/pods/p1/resolv.conf",
		ShmDir: "/run/crid/pods/p1/shm", Kernel: kernel(),
	}
}

// small is what a container needs at least.
func small() *runtime.ContainerConfig {
	return &runtime.ContainerConfig{
		Metadata: &runtime.ContainerMetadata{Name: "nginx"},
		Image:    &runtime.ImageSpec{Image: "sha256:0"},
		Linux: &runtime.LinuxContainerConfig{SecurityContext: &runtime.LinuxContainerSecurityContext{
			NamespaceOptions: &runtime.NamespaceOption{Pid: runtime.NamespaceMode_CONTAINER},
		}},
	}
}

func pod() *runtime.PodSandboxConfig {
	return &runtime.PodSandboxConfig{
		Metadata:     &runtime.PodSandboxMetadata{Name: "web", Namespace: "default", Uid: "uid-1"},
		Hostname:     "web",
		LogDirectory: "/var/log/pods/default_web_uid-1",
		Linux: &runtime.LinuxPodSandboxConfig{CgroupParent: "/kubepods/pod1", SecurityContext: &runtime.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtime.NamespaceOption{Pid: runtime.NamespaceMode_CONTAINER},
		}},
	}
}

func userns() *runtime.UserNamespace {
	m := func() []*runtime.IDMapping {
		return []*runtime.IDMapping{{HostId: 100000, ContainerId: 0, Length: 65536}}
	}
	return &runtime.UserNamespace{Mode: runtime.NamespaceMode_POD, Uids: m(), Gids: m()}
}

// full sets every field that can be set together.
func full() (*runtime.ContainerConfig, *runtime.PodSandboxConfig) {
	p := pod()
	p.Annotations = map[string]string{"census.io/pod": "1"}
	p.Linux.SecurityContext.Privileged = true
	p.Linux.SecurityContext.NamespaceOptions.UsernsOptions = userns()
	c := small()
	c.Metadata.Attempt = 2
	c.Image.UserSpecifiedImage, c.Image.Annotations = "nginx:1", map[string]string{"a": "b"}
	c.Command, c.Args, c.WorkingDir = []string{"/bin/sh"}, []string{"-c", "true"}, "/srv"
	c.Envs = []*runtime.KeyValue{{Key: "NGINX", Value: []byte("2")}, {Key: "MODE", Value: []byte("x=y")}}
	c.Mounts = []*runtime.Mount{
		{ContainerPath: "/data/cache", HostPath: "/srv/cache", Propagation: runtime.MountPropagation_PROPAGATION_HOST_TO_CONTAINER,
			MountOptions: []string{"noexec", "nosuid"}, UidMappings: userns().Uids, GidMappings: userns().Gids},
		{ContainerPath: "/data", HostPath: "/srv/data", Readonly: true, RecursiveReadOnly: true},
		{ContainerPath: "/etc/hosts", HostPath: "/var/lib/kubelet/hosts"},
		{ContainerPath: "/model", Image: &runtime.ImageSpec{Image: "sha256:1"}, ImageSubPath: "weights"},
	}
	c.Devices = []*runtime.Device{{ContainerPath: "/dev/fuse", HostPath: "/dev/fuse", Permissions: "rw"}}
	c.CDIDevices = []*runtime.CDIDevice{{Name: "vendor.com/gpu=0"}}
	c.Labels = map[string]string{"app": "web"}
	c.Annotations = map[string]string{"census.io/container": "1", "other": "2"}
	c.LogPath, c.Stdin, c.StdinOnce, c.Tty = "nginx/0.log", true, true, true
	c.StopSignal = runtime.Signal_SIGNAL_SIGRTMINPLUS3
	c.Linux.Resources = &runtime.LinuxContainerResources{
		CpuPeriod: 100000, CpuQuota: 50000, CpuShares: 512, MemoryLimitInBytes: 64 << 20, MemorySwapLimitInBytes: 96 << 20, OomScoreAdj: -998,
		CpusetCpus: "0-1", CpusetMems: "0", HugepageLimits: []*runtime.HugepageLimit{{PageSize: "2MB", Limit: 4 << 20}},
		Unified: map[string]string{"memory.high": "60000000"},
	}
	sc := c.Linux.SecurityContext
	sc.Capabilities = &runtime.Capability{
		AddCapabilities: []string{"NET_ADMIN"}, DropCapabilities: []string{"NET_RAW", "cap_kill"}, AddAmbientCapabilities: []string{"NET_BIND_SERVICE"},
	}
	sc.NamespaceOptions.UsernsOptions = userns()
	sc.RunAsUser, sc.RunAsGroup = &runtime.Int64Value{Value: 1000}, &runtime.Int64Value{Value: 1001}
	sc.SupplementalGroups, sc.NoNewPrivs, sc.ReadonlyRootfs = []int64{2000}, true, true
	sc.MaskedPaths, sc.ReadonlyPaths = []string{"/proc/kcore"}, []string{"/proc/sys"}
	sc.Seccomp = &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_Localhost, LocalhostRef: "/profiles/strict.json"}
	sc.Apparmor = &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_Unconfined}
	return c, p
}

func fullFacts() plan.Facts {
	f := facts()
	f.UserNS = "/run/crid/pods/p1/ns/user"
	f.User = oci.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{1001, 2000}}
	f.ImageMounts = map[int]string{3: "/var/lib/crid/images/mounts/x"}
	f.VolumeDirs = map[string]string{"/var/cache": "/var/lib/crid/containers/c1/volumes/0"}
	return f
}

// build makes the spec of a configuration that must be sound.
func build(t *testing.T, c *runtime.ContainerConfig, p *runtime.PodSandboxConfig, o Options, f plan.Facts) *oci.Spec {
	t.Helper()
	pl, err := New(c, p, o)
	if err != nil {
		t.Fatal(err)
	}
	s, err := pl.Spec(f)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func golden(name string) string { return filepath.Join("testdata", name+".json") }
