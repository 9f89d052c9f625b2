//go:build e2e

package host

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/faults/inject"
	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/story"
)

func TestMain(m *testing.M) { story.Main(m) }

const (
	running  = runtimeapi.ContainerState_CONTAINER_RUNNING
	exited   = runtimeapi.ContainerState_CONTAINER_EXITED
	notReady = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
)

// again starts it. It may take the five seconds that are promised, twice: tests share a small machine.
func again(s *story.Story) {
	s.T.Helper()
	inject.Within(s.T, "the start of the daemon", inject.Again(s), 10*time.Second)
}

// states are all containers by name.
func states(s *story.Story) map[string]runtimeapi.ContainerState {
	s.T.Helper()
	list, err := s.Containers(s.T.Context())
	if err != nil {
		s.T.Fatal(err)
	}
	got := map[string]runtimeapi.ContainerState{}
	for _, c := range list {
		if _, twice := got[c.GetMetadata().GetName()]; twice {
			s.T.Errorf("container %s is listed twice", c.GetMetadata().GetName())
		}
		got[c.GetMetadata().GetName()] = c.GetState()
	}
	return got
}

// shared makes a home a mount of its own that is shared with namespaces made from here, so that a daemon in one of its own mounts for all to see.
func shared(h *harness.Home) error {
	if err := unix.Mount(h.Dir, h.Dir, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return unix.Mount("", h.Dir, "", unix.MS_SHARED, "")
}

// otherBoot is crid on a machine that has another boot id: for it alone another file lies over the kernel's.
type otherBoot struct{ harness.Crid }

// bootFile is the boot id of daemons of otherBoot in a home.
func bootFile(h *harness.Home) string { return filepath.Join(h.Tmp(), "boot_id") }

// Prepare implements harness.Kind.
func (k otherBoot) Prepare(h *harness.Home) (string, []string, error) {
	program, args, err := k.Crid.Prepare(h)
	if err != nil {
		return "", nil, err
	}
	script := `mount --make-private /proc && mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"`
	return "/usr/bin/unshare", append([]string{"-m", "--propagation", "unchanged", "sh", "-c", script, bootFile(h), program}, args...), nil
}

// reboot gives the machine of a home another boot id from the next start on.
func reboot(s *story.Story, n int) {
	s.T.Helper()
	id := "00000000-0000-4000-8000-" + strings.Repeat("0", 8) + strconv.Itoa(1000+n)
	if err := os.WriteFile(bootFile(s.Home), []byte(id+"\n"), 0o600); err != nil {
		s.T.Fatal(err)
	}
	s.Daemon.Kind = otherBoot{}
}

// powerOff ends, as the end of power does, every process that has to do with a home, and what the kernel had for it: mounts, links, cgroups.
func powerOff(s *story.Story) {
	s.T.Helper()
	inject.Crash(s)
	s.Eventually("all processes are gone", 20*time.Second, func() bool {
		left := ours(s.Home)
		for _, pid := range left {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				s.T.Error(err)
			}
		}
		return len(left) == 0
	})
	for _, m := range mountsBelow(s.Home.State()) {
		if err := unix.Unmount(m, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			s.T.Error(err)
		}
	}
	if link, err := netlink.LinkByName(s.Home.Name); err == nil {
		if err := netlink.LinkDel(link); err != nil {
			s.T.Error(err)
		}
	}
	for _, dir := range cgroups(s.Home) {
		s.Eventually("the cgroup goes", 5*time.Second, func() bool {
			err := os.Remove(dir)
			return err == nil || os.IsNotExist(err)
		})
	}
}

// mountsBelow lists mount points at or below dir, the last one first.
func mountsBelow(dir string) (found []string) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); f[4] == dir || strings.HasPrefix(f[4], dir+"/") {
			found = append([]string{f[4]}, found...)
		}
	}
	return found
}

// cgroups lists a home's cgroups, deepest first.
func cgroups(h *harness.Home) (dirs []string) {
	for _, top := range globs("/sys/fs/cgroup/*"+h.Cgroup, "/sys/fs/cgroup"+h.Cgroup) {
		_ = filepath.WalkDir(top, func(path string, entry os.DirEntry, err error) error {
			if err == nil && entry.IsDir() && path != top {
				dirs = append([]string{path}, dirs...)
			}
			return nil
		})
	}
	return dirs
}

func globs(patterns ...string) (all []string) {
	for _, p := range patterns {
		found, err := filepath.Glob(p)
		if err == nil {
			all = append(all, found...)
		}
	}
	return all
}

// ours are the live processes that are in a home's cgroups, or name its folder as an argument or work there.
func ours(h *harness.Home) (pids []int) {
	for _, dir := range globs("/proc/[0-9]*") {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() || !harness.Alive(pid) {
			continue
		}
		groups, _ := os.ReadFile(dir + "/cgroup")
		args, _ := os.ReadFile(dir + "/cmdline")
		cwd, _ := os.Readlink(dir + "/cwd")
		if strings.Contains(string(groups), h.Cgroup+"/") || strings.Contains(string(args), h.Dir+"/") || strings.HasPrefix(cwd, h.Dir+"/") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// disk makes a folder of a home a disk of its own.
func disk(dir func(*harness.Home) string, options string) func(*harness.Home) error {
	return func(h *harness.Home) error {
		if err := os.MkdirAll(dir(h), 0o711); err != nil {
			return err
		}
		return unix.Mount("tmpfs", dir(h), "tmpfs", 0, "mode=711,"+options)
	}
}

// fill writes until a disk is full, and gives a function that takes it away again.
func fill(t *testing.T, dir string) (empty func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, block := range []int{1 << 20, 4096, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, block))
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
	}
	return func() {
		t.Helper()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// quarantined lists the records that were put aside.
func quarantined(s *story.Story) []string {
	s.T.Helper()
	return globs(filepath.Join(s.Home.Root(), "ledger", "quarantine", "*"))
}

// tidy is what a person does after a look at the quarantine.
func tidy(s *story.Story) {
	s.T.Helper()
	if err := os.RemoveAll(filepath.Join(s.Home.Root(), "ledger", "quarantine")); err != nil {
		s.T.Error(err)
	}
}

// leases is how many addresses are given away.
func leases(h *harness.Home) int {
	return len(globs(filepath.Join(h.IPAM(), h.Name, "10.*")))
}
