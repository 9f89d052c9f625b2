//go:build e2e

package v2

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/story"
)

func needAppArmor(t *testing.T) {
	t.Helper()
	on, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	if err != nil || !strings.HasPrefix(string(on), "Y") {
		t.Skip("needs AppArmor in the kernel")
	}
	if _, err := exec.LookPath("apparmor_parser"); err != nil {
		t.Skip("needs apparmor_parser")
	}
}

// profiled is a container that sleeps under an AppArmor profile.
func profiled(name string, kind runtimeapi.SecurityProfile_ProfileType, ref string) *runtimeapi.ContainerConfig {
	config := story.Sleeper(name)
	config.Linux.SecurityContext.Apparmor = &runtimeapi.SecurityProfile{ProfileType: kind, LocalhostRef: ref}
	return config
}

const deny = `
#include <tunables/global>
profile crid-e2e-deny flags=(attach_disconnected) {
  #include <abstractions/base>
  file,
  network,
  capability,
  signal,
  ptrace,
  deny /tmp/forbidden w,
}
`

// A profile confines the container's process and what is run in it later; one that is not loaded is an error and not no profile.
func TestAppArmorProfiles(t *testing.T) {
	needAppArmor(t)
	s := begin(t)
	load := exec.CommandContext(t.Context(), "apparmor_parser", "-Kr")
	load.Stdin = strings.NewReader(deny)
	if out, err := load.CombinedOutput(); err != nil {
		t.Fatalf("load a profile: %v: %s", err, out)
	}
	p := s.Pod("apparmor")
	for name, test := range map[string]struct {
		config *runtimeapi.ContainerConfig
		want   string
	}{
		"unset":      {story.Sleeper("unset"), "crid-default (enforce)"},
		"default":    {profiled("default", runtimeapi.SecurityProfile_RuntimeDefault, ""), "crid-default (enforce)"},
		"unconfined": {profiled("unconfined", runtimeapi.SecurityProfile_Unconfined, ""), "unconfined"},
		"localhost":  {profiled("localhost", runtimeapi.SecurityProfile_Localhost, "crid-e2e-deny"), "crid-e2e-deny (enforce)"},
	} {
		c := p.Go(test.config)
		if got := strings.TrimSpace(c.Proc("attr/current")); got != test.want {
			t.Errorf("%s: the main process is under %q, not %q", name, got, test.want)
		}
		if got := c.Sh("cat /proc/self/attr/current"); got != test.want {
			t.Errorf("%s: an exec is under %q, not %q", name, got, test.want)
		}
		code, _ := c.Try("touch /tmp/allowed && touch /tmp/forbidden")
		if refused := code != 0; refused != (name == "localhost") {
			t.Errorf("%s: writing /tmp/forbidden ends with %d", name, code)
		}
		if name == "default" { // what the default profile denies to root
			if code, _ := c.Try("echo x > /proc/sys/kernel/core_pattern"); code == 0 {
				t.Error("the default profile lets a container set the node's core pattern")
			}
		}
	}
	id, err := s.Create(t.Context(), p.ID, profiled("missing", runtimeapi.SecurityProfile_Localhost, "crid-e2e-not-loaded"), p.Config)
	if err == nil { // it is looked up when the container is about to start
		err = s.StartContainer(t.Context(), id)
	}
	if err == nil || !strings.Contains(err.Error(), "crid-e2e-not-loaded") {
		t.Errorf("a profile that is not loaded: %v", err)
	} else {
		s.WantCode("a profile that is not loaded", err, codes.FailedPrecondition, codes.InvalidArgument)
	}
}

// Containers see their own cgroup as the root, read-only, with the node's mount options kept; a privileged one may write the node's.
func TestWhatIsSeenOfCgroups(t *testing.T) {
	s := begin(t)
	node := mountOptions(t)
	p := s.Pod("view", func(c *runtimeapi.PodSandboxConfig) { c.Linux.SecurityContext.Privileged = true })
	c := p.Go(story.Sleeper("c"))
	if got := c.Sh("cat /proc/self/cgroup"); got != "0::/" {
		t.Errorf("own path: %q", got)
	}
	if code, _ := c.Try("mkdir /sys/fs/cgroup/mine"); code == 0 {
		t.Error("a container may make cgroups")
	}
	c.Sh("test -e /sys/fs/cgroup/memory.max") // the root has none: it is the container's own
	config := story.Sleeper("privileged")
	config.Linux.SecurityContext.Privileged = true
	privileged := p.Go(config)
	privileged.Sh("mkdir /sys/fs/cgroup/crid-e2e-privileged && rmdir /sys/fs/cgroup/crid-e2e-privileged && test ! -e /sys/fs/cgroup/memory.max")
	if now := mountOptions(t); now != node {
		t.Errorf("the node's cgroup mount had options %q and has %q: a container's mount has changed them for all", node, now)
	}
}

// mountOptions are those of the node's cgroup2 file system.
func mountOptions(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if before, after, ok := strings.Cut(line, " - cgroup2 "); ok && strings.Contains(before, " /sys/fs/cgroup ") {
			fields := strings.Fields(after)
			return fields[len(fields)-1]
		}
	}
	return ""
}
