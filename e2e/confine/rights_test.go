//go:build e2e

package confine

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/story"
)

const (
	capNetAdmin = 12
	capSysAdmin = 21
	capChown    = 0
)

func has(t *testing.T, set string, bit uint) bool {
	t.Helper()
	n, err := strconv.ParseUint(set, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n&(1<<bit) != 0
}

func TestCapabilities(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("caps")
	plain := p.Go(story.Sleeper("plain")).ProcField("CapEff")
	if has(t, plain, capNetAdmin) || has(t, plain, capSysAdmin) || !has(t, plain, capChown) {
		t.Errorf("by default it has %s", plain)
	}
	more := p.Go(with("more", func(c *runtimeapi.LinuxContainerSecurityContext) {
		c.Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"NET_ADMIN"}, DropCapabilities: []string{"CAP_CHOWN"}}
	}))
	if set := more.ProcField("CapEff"); !has(t, set, capNetAdmin) || has(t, set, capChown) {
		t.Errorf("with NET_ADMIN and without CHOWN it has %s", set)
	}
	if n, out := more.Try("chown 5 /etc/passwd"); n == 0 {
		t.Errorf("without CHOWN: %s", out)
	}
	none := p.Go(with("none", func(c *runtimeapi.LinuxContainerSecurityContext) {
		c.Capabilities = &runtimeapi.Capability{DropCapabilities: []string{"ALL"}}
	}))
	for _, set := range []string{"CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"} {
		if got := none.ProcField(set); strings.Trim(got, "0") != "" {
			t.Errorf("without all, %s is %s", set, got)
		}
	}
	ambient := p.Go(with("ambient", func(c *runtimeapi.LinuxContainerSecurityContext) {
		c.RunAsUser = id64(1000)
		c.Capabilities = &runtimeapi.Capability{AddAmbientCapabilities: []string{"NET_BIND_SERVICE"}, AddCapabilities: []string{"NET_BIND_SERVICE"}}
	}))
	if got := ambient.ProcField("CapAmb"); !has(t, got, 10) || !has(t, ambient.ProcField("CapEff"), 10) {
		t.Errorf("ambient: %s, effective for a user who is not root: %s", got, ambient.ProcField("CapEff"))
	}
	refuses(p, "a capability that is none", with("wrong", func(c *runtimeapi.LinuxContainerSecurityContext) {
		c.Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"NO_SUCH"}}
	}), "NO_SUCH")
}

func TestPrivileged(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("privileged", func(c *runtimeapi.PodSandboxConfig) { c.Linux.SecurityContext.Privileged = true })
	c := p.Go(with("c", func(c *runtimeapi.LinuxContainerSecurityContext) { c.Privileged = true }))
	if set := c.ProcField("CapEff"); !has(t, set, capSysAdmin) || !has(t, set, capNetAdmin) {
		t.Errorf("it has only %s", set)
	}
	if got := c.ProcField("Seccomp"); got != "0" {
		t.Errorf("seccomp is %s", got)
	}
	c.Sh("mkdir /m && mount -t tmpfs tmpfs /m && umount /m")
	c.Sh("[ -w /sys/fs/cgroup ] && [ -c /dev/kmsg -o -c /dev/mem -o -d /dev/mapper -o -c /dev/loop-control ]; [ -w /proc/sys/kernel/panic ]")
	refuses(s.Pod("modest"), "a privileged container in a pod that is not", with("c", func(c *runtimeapi.LinuxContainerSecurityContext) { c.Privileged = true }), "privileged")
}

// Without privileges what the kernel tells and takes is masked or read-only.
func TestMaskedAndReadOnlyPaths(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("paths")
	c := p.Go(with("c", func(c *runtimeapi.LinuxContainerSecurityContext) {
		c.MaskedPaths, c.ReadonlyPaths = []string{"/proc/kcore", "/proc/timer_list", "/bin/su"}, []string{"/proc/sys", "/proc/sysrq-trigger"}
	}))
	for _, line := range []string{"echo 1 > /proc/sys/kernel/panic", "echo h > /proc/sysrq-trigger", "[ -s /bin/su ]", "touch /sys/x", "mount -t tmpfs tmpfs /mnt"} {
		if n, out := c.Try(line); n == 0 {
			t.Errorf("%s works: %s", line, out)
		}
	}
	free := p.Go(with("free", func(c *runtimeapi.LinuxContainerSecurityContext) { c.MaskedPaths, c.ReadonlyPaths = nil, nil }))
	free.Sh("[ -s /bin/su ]")
}

func TestReadOnlyRoot(t *testing.T) {
	s := story.Begin(t)
	c := s.Pod("rootfs").Go(with("c", func(c *runtimeapi.LinuxContainerSecurityContext) { c.ReadonlyRootfs = true }))
	if n, _ := c.Try("touch /file"); n == 0 {
		t.Error("a read-only root can be written to")
	}
	c.Sh("touch /dev/shm/file; echo ok > /dev/null")
}

func TestNoNewPrivileges(t *testing.T) {
	s := story.Begin(t)
	const image = "registry.k8s.io/e2e-test-images/nonewprivs:1.3" // /nnp is setuid root
	if err := s.Have(t.Context(), image); err != nil {
		t.Fatal(err)
	}
	p := s.Pod("nnp")
	for set, want := range map[bool]string{true: "1000", false: "0"} {
		config := with("c-"+want, func(c *runtimeapi.LinuxContainerSecurityContext) { c.NoNewPrivs, c.RunAsUser = set, id64(1000) })
		config.Image.Image = image
		if got := p.Go(config).Sh("/nnp"); got != "Effective uid: "+want {
			t.Errorf("no_new_privs %t: %s", set, got)
		}
	}
}

func seccomp(kind runtimeapi.SecurityProfile_ProfileType, file string) func(*runtimeapi.LinuxContainerSecurityContext) {
	return func(c *runtimeapi.LinuxContainerSecurityContext) {
		c.Seccomp = &runtimeapi.SecurityProfile{ProfileType: kind, LocalhostRef: file}
	}
}

func TestSeccomp(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("seccomp")
	file := filepath.Join(t.TempDir(), "profile.json")
	if err := os.WriteFile(file, []byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	free := p.Go(with("free", seccomp(runtimeapi.SecurityProfile_Unconfined, "")))
	normal := p.Go(with("normal", seccomp(runtimeapi.SecurityProfile_RuntimeDefault, "")))
	local := p.Go(with("local", seccomp(runtimeapi.SecurityProfile_Localhost, file)))
	if a, b, c := free.ProcField("Seccomp"), normal.ProcField("Seccomp"), local.ProcField("Seccomp"); a != "0" || b != "2" || c != "2" {
		t.Errorf("seccomp: unconfined %s, default %s, localhost %s", a, b, c)
	}
	free.Sh("unshare -U true || mkdir /x")
	if n, _ := normal.Try("unshare -U true"); n == 0 {
		t.Error("the default profile lets a container make user namespaces")
	}
	if n, _ := local.Try("mkdir /x"); n == 0 {
		t.Error("the profile's mkdir works")
	}
	local.Sh("touch /x")
	refuses(p, "a profile that is not there", with("gone", seccomp(runtimeapi.SecurityProfile_Localhost, file+".gone")), "profile.json.gone")
	if err := os.WriteFile(file, []byte(`{"defaultAction":`), 0o600); err != nil {
		t.Fatal(err)
	}
	refuses(p, "a profile that is none", with("broken", seccomp(runtimeapi.SecurityProfile_Localhost, file)), "profile.json")
}

func TestUsersAndGroups(t *testing.T) {
	s := story.Begin(t)
	const image = "gcr.io/k8s-staging-cri-tools/test-image-predefined-group:latest" // user 1000 is in group 50000
	if err := s.Have(t.Context(), image); err != nil {
		t.Fatal(err)
	}
	p := s.Pod("users")
	for name, c := range map[string]struct {
		change func(*runtimeapi.LinuxContainerSecurityContext)
		want   string
	}{
		"merge": {func(c *runtimeapi.LinuxContainerSecurityContext) {
			c.SupplementalGroups, c.SupplementalGroupsPolicy = []int64{1234}, runtimeapi.SupplementalGroupsPolicy_Merge
		}, "1000 1000 1234 50000"},
		"strict": {func(c *runtimeapi.LinuxContainerSecurityContext) {
			c.SupplementalGroups, c.SupplementalGroupsPolicy = []int64{1234}, runtimeapi.SupplementalGroupsPolicy_Strict
		}, "1000 1000 1234"},
		"number": {func(c *runtimeapi.LinuxContainerSecurityContext) { c.RunAsUser, c.RunAsGroup = id64(4321), id64(8765) }, "4321 8765"},
		"name":   {func(c *runtimeapi.LinuxContainerSecurityContext) { c.RunAsUsername = "default-user" }, "1000 1000 50000"},
		"root":   {func(c *runtimeapi.LinuxContainerSecurityContext) { c.RunAsUser = id64(0) }, "0 0 10"},
	} {
		config := with(name, c.change)
		config.Image.Image = image
		ctr := p.Go(config)
		got := strings.Fields(ctr.Sh("id -u; id -G | tr ' ' '\\n' | sort -n"))
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: user and groups are %v, not %s", name, got, c.want)
		}
		if u := ctr.Status().GetUser().GetLinux(); u == nil || strconv.FormatInt(u.GetUid(), 10) != got[0] {
			t.Errorf("%s: the status tells of %v", name, u)
		}
	}
	refuses(p, "a user whom the image does not know", with("stranger", func(c *runtimeapi.LinuxContainerSecurityContext) { c.RunAsUsername = "stranger" }), "stranger")
	refuses(p, "a group without a user", with("group", func(c *runtimeapi.LinuxContainerSecurityContext) { c.RunAsGroup = id64(5) }), "group")
}

// hostDevice is a device that no container gets by itself.
func hostDevice(t *testing.T) string {
	t.Helper()
	for _, path := range []string{"/dev/loop-control", "/dev/fuse", "/dev/net/tun", "/dev/kmsg"} {
		if f, err := os.OpenFile(path, os.O_RDWR, 0); err == nil {
			f.Close()
			return path
		}
	}
	t.Skip("needs a device to give: none of loop-control, fuse, tun and kmsg is here")
	return ""
}

func TestDevices(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("devices")
	config := story.Sleeper("c")
	special := hostDevice(t)
	config.Devices = []*runtimeapi.Device{{HostPath: "/dev/zero", ContainerPath: "/dev/mine", Permissions: "rwm"}, {HostPath: special, ContainerPath: "/dev/special", Permissions: "r"}}
	c := p.Go(config)
	if got := c.Sh("head -c 3 /dev/mine | wc -c"); got != "3" {
		t.Errorf("read %s bytes", got)
	}
	if n, _ := c.Try("mknod /dev/mem2 c 1 1 && head -c 1 /dev/mem2"); n == 0 {
		t.Error("a device that was not given can be read")
	}
	c.Sh("exec 3</dev/special")
	if n, _ := c.Try("exec 3>/dev/special"); n == 0 {
		t.Error("a device that was given for reading can be opened for writing")
	}
	c.Sh("echo > /dev/null; head -c 1 /dev/urandom >/dev/null; [ -e /dev/stdin ]; [ -c /dev/ptmx ]")
	config = story.Sleeper("gone")
	config.Devices = []*runtimeapi.Device{{HostPath: "/dev/no-such-device", ContainerPath: "/dev/x", Permissions: "rwm"}}
	refuses(p, "a device that is not there", config, "no-such-device")
}
