//go:build e2e

package confine

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/story"
)

// folder makes a folder on the host that containers may enter, with one file.
func folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != "/tmp" && d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mounted(name string, mounts ...*runtimeapi.Mount) *runtimeapi.ContainerConfig {
	c := story.Sleeper(name)
	c.Mounts = mounts
	return c
}

func TestBindMounts(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("binds")
	dir := folder(t)
	c := p.Go(mounted("c", &runtimeapi.Mount{HostPath: dir, ContainerPath: "/rw"}, &runtimeapi.Mount{HostPath: dir, ContainerPath: "/ro", Readonly: true},
		&runtimeapi.Mount{HostPath: filepath.Join(dir, "file"), ContainerPath: "/etc/one-file"}, &runtimeapi.Mount{HostPath: filepath.Join(dir, "made"), ContainerPath: "/made"}))
	c.Sh("echo from-inside > /rw/new; [ \"$(cat /etc/one-file)\" = host ]; [ -d /made ]")
	if n, _ := c.Try("touch /ro/x"); n == 0 {
		t.Error("a read-only mount can be written to")
	}
	if got, err := os.ReadFile(filepath.Join(dir, "new")); err != nil || string(got) != "from-inside\n" {
		t.Errorf("on the host: %q (%v)", got, err)
	}
	if n := len(c.Status().GetMounts()); n != 4 {
		t.Errorf("the status has %d mounts", n)
	}
	refuses(p, "a mount over the root", mounted("root", &runtimeapi.Mount{HostPath: dir, ContainerPath: "/"}), "container_path")
}

// A link in the image must not lead a mount out of the container.
func TestAMountThroughALink(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("links")
	dir := folder(t)
	c := p.Go(mounted("c", &runtimeapi.Mount{HostPath: dir, ContainerPath: "/tmp/../tmp/deep/er"}))
	if got := c.Sh("cat /tmp/deep/er/file"); got != "host" {
		t.Errorf("got %q", got)
	}
}

func TestPropagation(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("propagation", func(c *runtimeapi.PodSandboxConfig) { c.Linux.SecurityContext.Privileged = true })
	dir := folder(t)
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"host", "guest", "later"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mode := func(name string, m runtimeapi.MountPropagation) *story.Container {
		config := mounted(name, &runtimeapi.Mount{HostPath: dir, ContainerPath: "/m", Propagation: m})
		config.Linux.SecurityContext.Privileged = true
		return p.Go(config)
	}
	private, slave, both := mode("private", runtimeapi.MountPropagation_PROPAGATION_PRIVATE), mode("slave", runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER),
		mode("both", runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL)
	if err := unix.Mount("tmpfs", filepath.Join(dir, "host"), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(filepath.Join(dir, "host"), unix.MNT_DETACH) })
	if err := os.WriteFile(filepath.Join(dir, "host", "mark"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for c, want := range map[*story.Container]bool{private: false, slave: true, both: true} {
		if n, _ := c.Try("[ -e /m/host/mark ]"); (n == 0) != want {
			t.Errorf("%s sees a mount of the host's: %t", c.Config.GetMetadata().GetName(), n == 0)
		}
	}
	seen := func() bool {
		_, err := os.Stat(filepath.Join(dir, "guest", "mark"))
		return err == nil
	}
	slave.Sh("mount -t tmpfs tmpfs /m/guest && touch /m/guest/mark")
	if seen() {
		t.Error("the host sees a mount of a container that only follows")
	}
	both.Sh("mount -t tmpfs tmpfs /m/guest && touch /m/guest/mark")
	if !seen() {
		t.Error("the host does not see a mount of a container that shares both ways")
	}
	both.Sh("umount /m/guest")
}

func TestRecursiveReadOnly(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("rro")
	dir := folder(t)
	sub := filepath.Join(dir, "sub")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", sub, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(sub, unix.MNT_DETACH) })
	c := p.Go(mounted("c", &runtimeapi.Mount{HostPath: dir, ContainerPath: "/ro", Readonly: true}, &runtimeapi.Mount{HostPath: dir, ContainerPath: "/rro", Readonly: true, RecursiveReadOnly: true}))
	c.Sh("touch /ro/sub/below")
	if n, _ := c.Try("touch /rro/sub/below2"); n == 0 {
		t.Error("below a recursively read-only mount a mount can be written to")
	}
	refuses(p, "recursive read-only that is not read-only", mounted("rw", &runtimeapi.Mount{HostPath: dir, ContainerPath: "/x", RecursiveReadOnly: true}), "recursive_read_only")
}

func TestMountOptions(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("options")
	dir := folder(t)
	if err := os.WriteFile(filepath.Join(dir, "program"), []byte("#!/bin/sh\necho ran\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := p.Go(mounted("c", &runtimeapi.Mount{HostPath: dir, ContainerPath: "/m", MountOptions: []string{"noexec", "nosuid"}}, &runtimeapi.Mount{HostPath: dir, ContainerPath: "/n"}))
	if n, _ := c.Try("/m/program"); n == 0 {
		t.Error("a program runs on a noexec mount")
	}
	c.Sh("/n/program")
	if line := c.Sh("grep ' /m ' /proc/self/mountinfo"); !strings.Contains(line, "noexec") || !strings.Contains(line, "nosuid") {
		t.Errorf("mounted as %s", line)
	}
	refuses(p, "an option that is none", mounted("wrong", &runtimeapi.Mount{HostPath: dir, ContainerPath: "/m", MountOptions: []string{"upperdir=/etc"}}), "mount_options")
}

func TestImageVolumes(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("images")
	const image = "registry.k8s.io/e2e-test-images/nginx:1.14-2"
	volume := func(name, sub string) *runtimeapi.ContainerConfig {
		return mounted(name, &runtimeapi.Mount{ContainerPath: "/volume", Image: &runtimeapi.ImageSpec{Image: image}, ImageSubPath: sub, Readonly: true})
	}
	whole := p.Go(volume("whole", ""))
	whole.Sh("grep -q Welcome /volume/usr/share/nginx/html/index.html")
	if n, _ := whole.Try("touch /volume/x"); n == 0 {
		t.Error("an image volume can be written to")
	}
	part := p.Go(volume("part", "usr/share/nginx/html"))
	part.Sh("grep -q Welcome /volume/index.html")
	if _, err := s.Images.RemoveImage(t.Context(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: image}}); err != nil {
		t.Errorf("removal of an image that is a volume: %v", err)
	}
	part.Sh("grep -q Welcome /volume/index.html") // whose content stays as long as it is used
	if err := s.Have(t.Context(), image); err != nil {
		t.Fatal(err)
	}
	refuses(p, "a path that is not in the image", volume("gone", "no/such/path"), "no/such/path")
	refuses(p, "a path out of the image", volume("out", "../../etc"), "image_sub_path")
	config := volume("missing", "")
	config.Mounts[0].Image.Image = "registry.k8s.io/never/pulled:1"
	refuses(p, "an image that is not there", config, "never/pulled")
}

func userns(base uint32) *runtimeapi.UserNamespace {
	m := []*runtimeapi.IDMapping{{HostId: base, ContainerId: 0, Length: 65536}}
	return &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: m, Gids: m}
}

// Root inside is nobody outside, and the files are right on both sides.
func TestUserNamespaces(t *testing.T) {
	s := story.Begin(t)
	const base = 300000
	p := s.Pod("userns", func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = userns(base)
	})
	dir := folder(t)
	config := mounted("c", &runtimeapi.Mount{HostPath: dir, ContainerPath: "/idmapped", UidMappings: userns(base).Uids, GidMappings: userns(base).Gids})
	config.Linux.SecurityContext.NamespaceOptions.UsernsOptions = userns(base)
	c := p.Go(config)
	if got := strings.Join(strings.Fields(c.Proc("uid_map")), " "); got != "0 300000 65536" {
		t.Errorf("the map is %s", got)
	}
	var st syscall.Stat_t
	if err := syscall.Stat("/proc/"+c.ProcField("Pid"), &st); err != nil || st.Uid != base {
		t.Errorf("on the host its process belongs to %d (%v)", st.Uid, err)
	}
	if got := c.Sh("id -u; stat -c %u /bin/sh /idmapped/file /etc/passwd | tr '\\n' ' '"); got != "0\n0 0 0" {
		t.Errorf("inside: %q", got)
	}
	c.Sh("touch /idmapped/made /made; echo x > /dev/shm/x; hostname >/dev/null; [ -s /etc/resolv.conf ]; ping -c 1 -W 2 127.0.0.1 >/dev/null")
	if err := syscall.Stat(filepath.Join(dir, "made"), &st); err != nil || st.Uid != 0 {
		t.Errorf("a file made through an idmapped volume belongs to %d (%v)", st.Uid, err)
	}
	if n, _ := c.Try("mknod /null c 1 3"); n == 0 {
		t.Error("root of a user namespace makes devices")
	}
	other := config
	other.Metadata = &runtimeapi.ContainerMetadata{Name: "other"}
	other.Linux.SecurityContext.NamespaceOptions.UsernsOptions = userns(base + 65536)
	refuses(p, "a container with other ids than its pod", other, "userns")
	bad := s.Home.Pod("bad")
	bad.Linux.SecurityContext.NamespaceOptions.UsernsOptions = userns(base)
	bad.Linux.SecurityContext.NamespaceOptions.UsernsOptions.Uids = nil
	if _, err := s.RunPod(t.Context(), bad, ""); err == nil {
		t.Error("a user namespace without ids")
	}
}
