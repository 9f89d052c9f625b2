package spec

import (
	"errors"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/crid-project/crid/container/plan"
	"github.com/crid-project/crid/container/plan/signal"
	"github.com/crid-project/crid/container/spec/confine"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestCommandAndArgs(t *testing.T) {
	for name, c := range map[string]struct {
		command, args, entrypoint, cmd, want []string
	}{
		"the image's":               {nil, nil, []string{"e"}, []string{"c"}, []string{"e", "c"}},
		"args replace cmd":          {nil, []string{"a"}, []string{"e"}, []string{"c"}, []string{"e", "a"}},
		"command replaces both":     {[]string{"x"}, nil, []string{"e"}, []string{"c"}, []string{"x"}},
		"command and args":          {[]string{"x"}, []string{"a"}, []string{"e"}, []string{"c"}, []string{"x", "a"}},
		"an entrypoint cleared":     {nil, nil, []string{""}, []string{"c"}, []string{"c"}},
		"none at all":               {nil, nil, nil, nil, nil},
		"an empty first word":       {[]string{"", "x"}, nil, nil, nil, nil},
		"NUL from the image":        {nil, nil, []string{"a\x00b"}, nil, nil},
		"only args, no entry point": {nil, []string{"a"}, nil, []string{"c"}, []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, f := small(), facts()
			cfg.Command, cfg.Args = c.command, c.args
			f.Image.Entrypoint, f.Image.Cmd = c.entrypoint, c.cmd
			pl, err := New(cfg, pod(), options())
			if err != nil {
				t.Fatal(err)
			}
			s, err := pl.Spec(f)
			if c.want == nil {
				if !errors.Is(err, errdefs.ErrInvalidArgument) {
					t.Errorf("want an invalid argument, got %v", err)
				}
				return
			}
			if err != nil || !slices.Equal(s.Process.Args, c.want) {
				t.Errorf("got %v, %v", s, err)
			}
		})
	}
}

// CVE-2024-21626: a WORKDIR on one of the runtime's descriptors.
func TestWorkingDirs(t *testing.T) {
	for image, want := range map[string]string{
		"": "/", "/srv": "/srv", "srv": "/srv", "/srv/../etc/": "/etc", "../../x": "/x",
		"/proc/self/fd/7": "", "/proc/./self//fd/7": "", "/x/../proc/self/fd/7": "", "/proc/1/root": "", "/proc/thread-self/cwd": "",
		"/dev/fd/8": "", "proc/self": "", "/proc/selfish": "/proc/selfish", "/\x00": "",
	} {
		f := facts()
		f.Image.WorkingDir = image
		pl, err := New(small(), pod(), options())
		if err != nil {
			t.Fatal(err)
		}
		s, err := pl.Spec(f)
		switch {
		case want == "" && !errors.Is(err, errdefs.ErrInvalidArgument):
			t.Errorf("%q: want an invalid argument, got %v", image, err)
		case want != "" && (err != nil || s.Process.Cwd != want):
			t.Errorf("%q: want %q, got %v, %v", image, want, s, err)
		}
	}
}

func TestEnvironment(t *testing.T) {
	cfg, f := small(), facts()
	f.Image.Env = []string{"A=image", "B=image", "noequals", "=x", "N=a\x00b", "A=again"}
	cfg.Envs = []*runtime.KeyValue{{Key: "B", Value: []byte("config")}, {Key: "BIN", Value: []byte{'a', 0xff}}}
	f.Home = "/home/me\nx:x:0:0" // CVE-2022-4318
	got := build(t, cfg, pod(), options(), f).Process.Env
	want := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=web", "A=again", "B=config", "BIN=a\uFFFD", "HOME=/",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// CVE-2026-53488: an image's labels must not be read as the daemon's own.
func TestImageLabelsAreNoAnnotations(t *testing.T) {
	s := build(t, small(), pod(), options(), facts())
	if s.Annotations[AnnotationContainerType] != "container" || len(s.Annotations) != 7 {
		t.Errorf("annotations: %v", s.Annotations)
	}
}

func TestAnnotationsPassByAllowListOnly(t *testing.T) {
	in := map[string]string{
		"a.io/x": "", "a.io/y/z": "", "b.io/exact": "", "b.io/exacter": "", "c.io/1": "", "run.oci.handler": "",
		"org.systemd.property.CollectMode": "", "io.kubernetes.cri.sandbox-id": "", "io.containerd.x": "",
	}
	got := sortedKeys(PassThrough(in, []string{"a.io/*", "b.io/exact", "c.io/?", "org.systemd.property.*", "io.*"}))
	if want := []string{"a.io/x", "a.io/y/z", "b.io/exact", "c.io/1"}; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	if got := PassThrough(in, nil); len(got) != 0 {
		t.Errorf("without a list: %v", got)
	}
}

func TestCapabilities(t *testing.T) {
	all := knownCaps()
	for name, c := range map[string]struct {
		in               *runtime.Capability
		has, hasNot, amb []string
	}{
		"none asked":            {nil, []string{"CAP_CHOWN", "CAP_NET_RAW"}, []string{"CAP_SYS_ADMIN"}, nil},
		"add":                   {&runtime.Capability{AddCapabilities: []string{"net_admin"}}, []string{"CAP_NET_ADMIN"}, nil, nil},
		"add all but":           {&runtime.Capability{AddCapabilities: []string{"all"}, DropCapabilities: []string{"CHOWN"}}, []string{"CAP_SYS_ADMIN"}, []string{"CAP_CHOWN"}, nil},
		"drop all but":          {&runtime.Capability{AddCapabilities: []string{"CHOWN"}, DropCapabilities: []string{"ALL"}}, []string{"CAP_CHOWN"}, []string{"CAP_KILL"}, nil},
		"drop wins over add":    {&runtime.Capability{AddCapabilities: []string{"SYS_ADMIN"}, DropCapabilities: []string{"CAP_SYS_ADMIN"}}, nil, []string{"CAP_SYS_ADMIN"}, nil},
		"ambient is in all":     {&runtime.Capability{DropCapabilities: []string{"ALL"}, AddAmbientCapabilities: []string{"NET_ADMIN"}}, []string{"CAP_NET_ADMIN"}, []string{"CAP_KILL"}, []string{"CAP_NET_ADMIN"}},
		"dropped from ambient":  {&runtime.Capability{DropCapabilities: []string{"NET_ADMIN"}, AddAmbientCapabilities: []string{"NET_ADMIN"}}, nil, []string{"CAP_NET_ADMIN"}, nil},
		"privileged is another": {&runtime.Capability{DropCapabilities: []string{"ALL"}}, nil, all, nil},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := small()
			cfg.Linux.SecurityContext.Capabilities = c.in
			got := build(t, cfg, pod(), options(), facts()).Process.Capabilities
			for _, set := range [][]string{got.Bounding, got.Effective, got.Permitted} {
				for _, k := range c.has {
					if !slices.Contains(set, k) {
						t.Errorf("%s is missing in %v", k, got)
					}
				}
				for _, k := range c.hasNot {
					if slices.Contains(set, k) {
						t.Errorf("%s is in %v", k, got)
					}
				}
			}
			if !slices.Equal(got.Ambient, c.amb) || !slices.Equal(got.Inheritable, c.amb) { // CVE-2022-24769
				t.Errorf("ambient %v, inheritable %v", got.Ambient, got.Inheritable)
			}
		})
	}
}

func TestACapabilityThatTheNodeLacks(t *testing.T) {
	cfg := small()
	cfg.Linux.SecurityContext.Capabilities = &runtime.Capability{AddCapabilities: []string{"SYS_RESOURCE"}}
	pl, err := New(cfg, pod(), options())
	if err != nil {
		t.Fatal(err)
	}
	if _, err = pl.Spec(facts()); !errors.Is(err, errdefs.ErrFailedPrecondition) || !strings.Contains(err.Error(), "CAP_SYS_RESOURCE") {
		t.Errorf("got %v", err)
	}
}

func TestDefaultSeccompKeepsAFALGOut(t *testing.T) {
	const afALG = 38
	cfg := small()
	cfg.Linux.SecurityContext.Seccomp = &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_RuntimeDefault}
	s := build(t, cfg, pod(), options(), facts())
	if s.Linux.Seccomp == nil || s.Linux.Seccomp.DefaultAction != oci.ActErrno {
		t.Fatalf("seccomp: %+v", s.Linux.Seccomp)
	}
	for _, call := range s.Linux.Seccomp.Syscalls {
		if !slices.Contains(call.Names, "socket") || call.Action != oci.ActAllow {
			continue
		}
		if len(call.Args) == 0 {
			t.Error("socket is allowed for every family")
		}
		for _, a := range call.Args {
			if allows(a, afALG) {
				t.Errorf("socket(AF_ALG) is allowed by %+v", a)
			}
		}
	}
}

func allows(a oci.LinuxSeccompArg, v uint64) bool {
	switch a.Op {
	case oci.OpEqualTo:
		return v == a.Value
	case oci.OpLessEqual:
		return v <= a.Value
	case oci.OpLessThan:
		return v < a.Value
	case oci.OpGreaterEqual:
		return v >= a.Value
	case oci.OpGreaterThan:
		return v > a.Value
	case oci.OpNotEqual:
		return v != a.Value
	case oci.OpMaskedEqual:
		return v&a.Value == a.ValueTwo
	}
	return true
}

func TestSecurityProfiles(t *testing.T) {
	profile := func(k runtime.SecurityProfile_ProfileType, ref string) *runtime.SecurityProfile {
		return &runtime.SecurityProfile{ProfileType: k, LocalhostRef: ref}
	}
	const (
		def        = runtime.SecurityProfile_RuntimeDefault
		unconfined = runtime.SecurityProfile_Unconfined
		localhost  = runtime.SecurityProfile_Localhost
	)
	loaded := confine.AppArmorSource{
		Default: func() (string, error) { return "crid-default", nil },
		Loaded:  func(n string) (bool, error) { return n == "mine", nil },
	}
	for name, c := range map[string]struct {
		seccomp, apparmor          *runtime.SecurityProfile
		hasSeccomp, hasArmor, priv bool
		wantSeccomp                bool
		wantArmor, wantErr         string
	}{
		"nothing asked, all there":            {nil, nil, true, true, false, false, "crid-default", ""},
		"nothing asked, nothing there":        {nil, nil, false, false, false, false, "", ""},
		"default asked, nothing there":        {nil, profile(def, ""), false, false, false, false, "", ""},
		"seccomp asked, not there":            {profile(def, ""), nil, false, false, false, false, "", "no seccomp"},
		"unconfined asked, not there":         {profile(unconfined, ""), profile(unconfined, ""), false, false, false, false, "", ""},
		"unconfined":                          {profile(unconfined, ""), profile(unconfined, ""), true, true, false, false, "", ""},
		"named AppArmor, not there":           {nil, profile(localhost, "mine"), true, false, false, false, "", "no AppArmor"},
		"named AppArmor":                      {nil, profile(localhost, "localhost/mine"), true, true, false, false, "mine", ""},
		"named AppArmor, not loaded":          {nil, profile(localhost, "other"), true, true, false, false, "", "not loaded"},
		"local seccomp":                       {profile(localhost, "/profiles/strict.json"), nil, true, false, false, true, "", ""},
		"local seccomp that is missing":       {profile(localhost, "/profiles/none.json"), nil, true, false, false, false, "", "no such profile"},
		"privileged drops the default":        {profile(def, ""), nil, true, true, true, false, "", ""},
		"privileged keeps a named AppArmor":   {nil, profile(localhost, "mine"), true, true, true, false, "mine", ""},
		"privileged, seccomp not even there ": {profile(localhost, "/x"), nil, false, false, true, false, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, p, o, f := small(), pod(), options(), facts()
			sc := cfg.Linux.SecurityContext
			sc.Seccomp, sc.Apparmor, sc.Privileged = c.seccomp, c.apparmor, c.priv
			p.Linux.SecurityContext.Privileged, o.AppArmor = c.priv, loaded
			f.Kernel.Seccomp, f.Kernel.AppArmor = c.hasSeccomp, c.hasArmor
			pl, err := New(cfg, p, o)
			if err != nil {
				t.Fatal(err)
			}
			s, err := pl.Spec(f)
			if c.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), c.wantErr) {
					t.Errorf("want %q, got %v", c.wantErr, err)
				}
				return
			}
			if err != nil || (s.Linux.Seccomp != nil) != c.wantSeccomp || s.Process.ApparmorProfile != c.wantArmor {
				t.Errorf("got %+v, %v", s, err)
			}
		})
	}
}

func TestMalformedSeccompProfiles(t *testing.T) {
	for _, text := range []string{"", "{", "[]", `{"defaultAction":"ALLOW"}`, `{}`} {
		cfg, o := small(), options()
		cfg.Linux.SecurityContext.Seccomp = local("/x")
		o.ReadFile = func(string, int64) ([]byte, error) { return []byte(text), nil }
		pl, err := New(cfg, pod(), o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pl.Spec(facts()); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestOldProfileStrings(t *testing.T) {
	for old, want := range map[string]bool{"": false, "unconfined": false, "runtime/default": true, "docker/default": true, "localhost//profiles/strict.json": true} {
		cfg := small()
		cfg.Linux.SecurityContext.SeccompProfilePath = old //nolint:staticcheck // deprecated is what is tested
		if got := build(t, cfg, pod(), options(), facts()).Linux.Seccomp != nil; got != want {
			t.Errorf("%q: seccomp %v", old, got)
		}
	}
}

func TestMasks(t *testing.T) {
	const powercap = "/sys/devices/virtual/powercap"
	cfg, p := small(), pod()
	s := build(t, cfg, p, options(), facts())
	for _, want := range []string{powercap, "/proc/interrupts", "/proc/kcore", "/sys/devices/system/cpu/cpu0/thermal_throttle"} {
		if !slices.Contains(s.Linux.MaskedPaths, want) {
			t.Errorf("%s is not masked by default", want)
		}
	}
	if !slices.Contains(s.Linux.ReadonlyPaths, "/proc/sys") {
		t.Error("/proc/sys is writable")
	}
	cfg.Linux.SecurityContext.MaskedPaths, cfg.Linux.SecurityContext.ReadonlyPaths = []string{"/bin/ls"}, []string{"/tmp"}
	s = build(t, cfg, p, options(), facts())
	if !slices.Equal(s.Linux.MaskedPaths, []string{"/bin/ls", powercap}) || !slices.Equal(s.Linux.ReadonlyPaths, []string{"/tmp"}) {
		t.Errorf("as sent: %v %v", s.Linux.MaskedPaths, s.Linux.ReadonlyPaths)
	}
	cfg.Linux.SecurityContext.MaskedPaths, cfg.Linux.SecurityContext.ReadonlyPaths = nil, nil
	p.Linux.SecurityContext.NamespaceOptions.UsernsOptions = userns()
	s = build(t, cfg, p, options(), facts())
	if len(s.Linux.MaskedPaths)+len(s.Linux.ReadonlyPaths) != 0 {
		t.Errorf("procMount Unmasked in a user namespace: %v %v", s.Linux.MaskedPaths, s.Linux.ReadonlyPaths)
	}
}

// A deeper mount must come after the one it lies in, whatever the order asked.
func TestMountsDoNotHideEachOther(t *testing.T) {
	c, p := full()
	s := build(t, c, p, options(), fullFacts())
	at := map[string]int{}
	for i, m := range s.Mounts {
		if _, twice := at[m.Destination]; twice {
			t.Errorf("%s is mounted twice", m.Destination)
		}
		at[m.Destination] = i
	}
	for child, parent := range map[string]string{"/data/cache": "/data", "/dev/shm": "/dev", "/sys/fs/cgroup": "/sys"} {
		if at[child] < at[parent] {
			t.Errorf("%s is hidden by %s", child, parent)
		}
	}
	for _, m := range s.Mounts {
		if m.Destination == "/etc/hosts" && m.Source != "/var/lib/kubelet/hosts" {
			t.Errorf("/etc/hosts comes from %s, not from the configuration", m.Source)
		}
	}
}

func TestAMountOnDevReplacesAllOfDev(t *testing.T) {
	cfg := small()
	cfg.Mounts = []*runtime.Mount{{ContainerPath: "/dev/", HostPath: "/dev"}, {ContainerPath: "/sys", HostPath: "/sys"}}
	for _, m := range build(t, cfg, pod(), options(), facts()).Mounts {
		if m.Destination != "/dev" && strings.HasPrefix(m.Destination, "/dev/") {
			t.Errorf("%s is left", m.Destination)
		}
	}
}

// CVE-2022-23648: VOLUME paths must not lead out of the container.
func TestVolumes(t *testing.T) {
	cfg := small()
	cfg.Mounts = []*runtime.Mount{{ContainerPath: "/mounted", HostPath: "/x"}}
	pl, err := New(cfg, pod(), options())
	if err != nil {
		t.Fatal(err)
	}
	vol := func(paths ...string) imagespec.ImageConfig {
		m := map[string]struct{}{}
		for _, p := range paths {
			m[p] = struct{}{}
		}
		return imagespec.ImageConfig{Volumes: m}
	}
	got, err := pl.Volumes(vol("/data", "/data/", "relative", "/../../../../sentinel", "/mounted/"))
	if want := []string{"/data", "/relative", "/sentinel"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"", "/", "..", "/proc/self", "/sys", "dev/shm", "/a\x00b", "/" + strings.Repeat("x", 5000)} {
		if got, err := pl.Volumes(vol(bad)); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q: %v, %v", bad, got, err)
		}
	}
}

func TestTheNodesProfileStandsForRuntimeDefault(t *testing.T) {
	o := options()
	o.SeccompProfile = "/profiles/strict.json"
	cfg := small()
	cfg.Linux.SecurityContext.Seccomp = &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_RuntimeDefault}
	if s := build(t, cfg, pod(), o, facts()).Linux.Seccomp; s == nil || len(s.Syscalls) != 1 || s.Syscalls[0].Names[0] != "sethostname" {
		t.Errorf("RuntimeDefault: %+v", s)
	}
	for name, p := range map[string]*runtime.SecurityProfile{"nothing": nil, "unconfined": {ProfileType: runtime.SecurityProfile_Unconfined}} {
		cfg.Linux.SecurityContext.Seccomp = p
		if s := build(t, cfg, pod(), o, facts()).Linux.Seccomp; s != nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestDevicesBelongToTheUserIfTheNodeWantsIt(t *testing.T) {
	cfg, o := small(), options()
	cfg.Devices = []*runtime.Device{{HostPath: "/dev/net", ContainerPath: "/dev/net", Permissions: "rw"}}
	owners := func(uid, gid *runtime.Int64Value) (out []string) {
		cfg.Linux.SecurityContext.RunAsUser, cfg.Linux.SecurityContext.RunAsGroup = uid, gid
		for _, d := range build(t, cfg, pod(), o, facts()).Linux.Devices {
			one := ""
			for _, id := range []*uint32{d.UID, d.GID} {
				if id == nil {
					one += "-"
				} else {
					one += strconv.Itoa(int(*id))
				}
				one += " "
			}
			out = append(out, one)
		}
		return out
	}
	user, group := &runtime.Int64Value{Value: 1000}, &runtime.Int64Value{Value: 2000}
	if got := owners(user, group); !slices.Equal(got, []string{"- - ", "- - "}) {
		t.Errorf("not asked for: %q", got)
	}
	o.DeviceOwnership = true
	if got := owners(user, group); !slices.Equal(got, []string{"1000 2000 ", "1000 2000 "}) {
		t.Errorf("user and group: %q", got)
	}
	if got := owners(user, nil); !slices.Equal(got, []string{"1000 - ", "1000 - "}) {
		t.Errorf("user alone: %q", got)
	}
	if got := owners(nil, nil); !slices.Equal(got, []string{"- - ", "- - "}) {
		t.Errorf("nobody named: %q", got)
	}
}

func TestDevices(t *testing.T) {
	cfg, p := small(), pod()
	cfg.Devices = []*runtime.Device{
		{HostPath: "/dev/net", ContainerPath: "/dev/vpn", Permissions: "mrw"}, {HostPath: "/dev/fuse", ContainerPath: "/dev/fuse0", Permissions: "r"},
	}
	paths := func(s *oci.Spec) (out []string) {
		for _, d := range s.Linux.Devices {
			out = append(out, d.Path)
		}
		return out
	}
	s := build(t, cfg, p, options(), facts())
	if want := []string{"/dev/vpn/tun", "/dev/vpn/deep/tap", "/dev/fuse0"}; !slices.Equal(paths(s), want) {
		t.Errorf("devices %v", paths(s))
	}
	if r := s.Linux.Resources.Devices; len(r) != 4 || r[0].Allow || r[0].Access != "rwm" || r[3].Access != "r" || *r[3].Minor != 229 {
		t.Errorf("rules %+v", r)
	}
	cfg.Linux.SecurityContext.Privileged, p.Linux.SecurityContext.Privileged = true, true
	cfg.Devices = cfg.Devices[1:]
	s = build(t, cfg, p, options(), facts())
	if want := []string{"/dev/fuse0", "/dev/fuse", "/dev/kvm"}; !slices.Equal(paths(s), want) {
		t.Errorf("privileged devices %v", paths(s))
	}
	if r := s.Linux.Resources.Devices; !r[len(r)-1].Allow || r[len(r)-1].Type != "" {
		t.Errorf("privileged rules %+v", r)
	}
	o := options()
	o.PrivilegedWithoutHostDevices = true
	if got := paths(build(t, cfg, p, o, facts())); len(got) != 1 {
		t.Errorf("without the node's: %v", got)
	}
}

func TestThePlan(t *testing.T) {
	c, p := full()
	o := options()
	o.SELinux = func([]string) (string, string, error) { return "p", "m", nil }
	c.Mounts[1].SelinuxRelabel = true
	c.Mounts[2].Propagation = runtime.MountPropagation_PROPAGATION_BIDIRECTIONAL
	got, err := New(c, p, o)
	if err != nil {
		t.Fatal(err)
	}
	got.Spec, got.Volumes = nil, nil
	got.Resources = nil
	uid, gid := int64(1000), int64(1001)
	m := []oci.LinuxIDMapping{{HostID: 100000, Size: 65536}}
	want := &plan.Container{
		Name: "nginx", Image: "sha256:0", LogPath: "/var/log/pods/default_web_uid-1/nginx/0.log", Stdin: true, StdinOnce: true, TTY: true,
		StopSignal: "SIGRTMIN+3", User: plan.User{UID: &uid, GID: &gid, SupplementalGroups: []int64{2000}}, PID: plan.PIDContainer,
		UserNS: &plan.IDMap{UIDs: m, GIDs: m}, ImageMounts: []plan.ImageMount{{Index: 3, Image: "sha256:1", SubPath: "weights"}},
		ReadonlyRootfs: true, CgroupParent: "/kubepods/pod1", HostDirs: []string{"/srv/cache", "/srv/data", "/var/lib/kubelet/hosts"},
		SharedPaths: []string{"/var/lib/kubelet/hosts"}, SlavePaths: []string{"/srv/cache"}, Relabel: []string{"/srv/data"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestProcessNamespaces(t *testing.T) {
	o := func(m runtime.NamespaceMode, target string) *runtime.NamespaceOption {
		return &runtime.NamespaceOption{Pid: m, TargetId: target}
	}
	const POD, CONTAINER, NODE, TARGET = runtime.NamespaceMode_POD, runtime.NamespaceMode_CONTAINER, runtime.NamespaceMode_NODE, runtime.NamespaceMode_TARGET
	for name, c := range map[string]struct {
		mine, pods *runtime.NamespaceOption
		mode       plan.PIDMode
		path       string
		want       string // "": own, "-": the node's
	}{
		"own":             {o(CONTAINER, ""), o(CONTAINER, ""), plan.PIDContainer, "", ""},
		"pod's":           {o(POD, ""), o(POD, ""), plan.PIDPod, "/ns/pid", "/ns/pid"},
		"node's":          {o(NODE, ""), o(NODE, ""), plan.PIDNode, "", "-"},
		"pod's is node's": {nil, o(NODE, ""), plan.PIDNode, "", "-"},
		"target":          {o(TARGET, "c0"), o(CONTAINER, ""), plan.PIDTarget, "/proc/7/ns/pid", "/proc/7/ns/pid"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, p, f := small(), pod(), facts()
			cfg.Linux.SecurityContext.NamespaceOptions, p.Linux.SecurityContext.NamespaceOptions = c.mine, c.pods
			pl, err := New(cfg, p, options())
			if err != nil || pl.PID != c.mode {
				t.Fatalf("%+v, %v", pl, err)
			}
			f.PIDNS = c.path
			s, err := pl.Spec(f)
			if err != nil {
				t.Fatal(err)
			}
			got := "-"
			for _, n := range s.Linux.Namespaces {
				if n.Type == oci.PIDNamespace {
					got = n.Path
				}
			}
			if got != c.want {
				t.Errorf("got %q", got)
			}
			if c.path != "" {
				f.PIDNS = ""
				if _, err := pl.Spec(f); err == nil {
					t.Error("ran in a process namespace of its own instead")
				}
			}
		})
	}
}

func TestResourcesAreOnlyWhatIsNamed(t *testing.T) {
	got, err := Resources(&runtime.LinuxContainerResources{}, kernel())
	if err != nil || !reflect.DeepEqual(got, &oci.LinuxResources{}) {
		t.Errorf("nothing named: %+v, %v", got, err)
	}
	k := kernel()
	limit := func(in *runtime.LinuxContainerResources) (mem, swap int64) {
		got, err := Resources(in, k)
		if err != nil {
			t.Fatal(err)
		}
		if got.Memory != nil && got.Memory.Limit != nil {
			mem = *got.Memory.Limit
		}
		if got.Memory != nil && got.Memory.Swap != nil {
			swap = *got.Memory.Swap
		}
		return mem, swap
	}
	if m, s := limit(&runtime.LinuxContainerResources{MemoryLimitInBytes: 5}); m != 5 || s != 5 {
		t.Errorf("no swap by default: %d %d", m, s)
	}
	if m, s := limit(&runtime.LinuxContainerResources{MemoryLimitInBytes: -1}); m != -1 || s != -1 {
		t.Errorf("unlimited: %d %d", m, s)
	}
	k.Swap = false
	if m, s := limit(&runtime.LinuxContainerResources{MemoryLimitInBytes: 5, MemorySwapLimitInBytes: 7}); m != 5 || s != 0 {
		t.Errorf("swap cannot be limited here: %d %d", m, s)
	}
	// The kubelet names every page size that it knows, with 0.
	got, err = Resources(&runtime.LinuxContainerResources{HugepageLimits: []*runtime.HugepageLimit{{PageSize: "64KB"}, {PageSize: "2MB"}}}, k)
	if err != nil || len(got.HugepageLimits) != 1 || got.HugepageLimits[0].Pagesize != "2MB" {
		t.Errorf("hugepages: %+v, %v", got, err)
	}
	k.HugepageSizes = nil
	got, err = Resources(&runtime.LinuxContainerResources{HugepageLimits: []*runtime.HugepageLimit{{PageSize: "2MB", Limit: 5}}}, k)
	if err != nil || len(got.HugepageLimits) != 0 {
		t.Errorf("no hugetlb controller: %+v, %v", got, err)
	}
}

func TestEveryStopSignalOfCRI(t *testing.T) {
	for v, name := range runtime.Signal_name {
		got, err := StopSignal(runtime.Signal(v))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if v == 0 {
			if got != "" {
				t.Errorf("default: %q", got)
			}
			continue
		}
		if _, err := signal.Parse(got); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if back := SignalEnum(got); back != runtime.Signal(v) {
			t.Errorf("%s comes back as %s", name, back)
		}
	}
	for in, want := range map[string]runtime.Signal{
		"": 0, "15": runtime.Signal_SIGNAL_SIGTERM, "term": runtime.Signal_SIGNAL_SIGTERM, "SIGRTMIN+1": runtime.Signal_SIGNAL_SIGRTMINPLUS1,
		"RTMAX-1": runtime.Signal_SIGNAL_SIGRTMAXMINUS1, "SIGRTMIN+30": runtime.Signal_SIGNAL_SIGRTMAX, "junk": 0, "RUNTIME_DEFAULT": 0,
	} {
		if got := SignalEnum(in); got != want {
			t.Errorf("%q: %s", in, got)
		}
	}
}

// A plan is made again from the record after a restart: same input, same spec,
// and no use changes it.
func TestSpecsAreRepeatable(t *testing.T) {
	c, p := full()
	pl, err := New(c, p, options())
	if err != nil {
		t.Fatal(err)
	}
	first, err := pl.Spec(fullFacts())
	if err != nil {
		t.Fatal(err)
	}
	c.Args[1] = "changed"
	for _, m := range first.Mounts {
		clear(m.Options)
	}
	first.Process.Args[0], first.Linux.Resources.Devices[0].Access = "x", "x"
	second, err := pl.Spec(fullFacts())
	if err != nil {
		t.Fatal(err)
	}
	if want := build(t, func() *runtime.ContainerConfig { c, _ := full(); return c }(), p, options(), fullFacts()); !reflect.DeepEqual(second, want) {
		t.Errorf("got %+v", second)
	}
}
