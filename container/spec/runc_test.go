package spec_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/crid-project/crid/container/plan"
	"github.com/crid-project/crid/container/spec"
	"github.com/crid-project/crid/container/spec/host"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// probe is the program that the containers run: it shows what it got.
const probe = `package main

import (
	"fmt"
	"os"
	"syscall"
)

func main() {
	for _, f := range []string{"/proc/self/status", "/proc/self/mountinfo"} {
		raw, _ := os.ReadFile(f)
		os.Stdout.Write(raw)
	}
	var host, container, size int
	raw, _ := os.ReadFile("/proc/self/uid_map")
	fmt.Sscan(string(raw), &container, &host, &size)
	fmt.Println("uid_map", container, host, size)
	for _, f := range []string{"/", "/mnt"} {
		var st syscall.Stat_t
		syscall.Stat(f, &st)
		fmt.Println("owner of", f, "is", st.Uid)
	}
	wd, _ := os.Getwd()
	fmt.Println("cwd", wd)
	for _, e := range os.Environ() {
		fmt.Println("env", e)
	}
	_, err := syscall.Socket(38, syscall.SOCK_SEQPACKET, 0)
	fmt.Println("AF_ALG", err)
	for _, f := range []string{"/proc/sys/kernel/domainname", "/sys/fs/cgroup/memory/x", "/file"} {
		fmt.Println("write", f, os.WriteFile(f, []byte("x"), 0o644) == nil)
	}
	d, err := os.ReadDir("/dev")
	fmt.Println("dev", len(d), err)
}
`

// TestRuncTakesTheSpec runs specs on the real runtime: a field it does not
// like, or reads otherwise than meant, shows here.
func TestRuncTakesTheSpec(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: runs containers")
	}
	runc := findRunc(t)
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	for _, d := range []string{"proc", "dev", "sys", "srv", "mnt"} { // a user namespace's root may not make them
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil { // and must get here
		t.Fatal(err)
	}
	compile(t, dir, filepath.Join(root, "probe"))
	seccomp := &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_RuntimeDefault}
	for name, c := range map[string]struct {
		edit      func(c *runtime.ContainerConfig, p *runtime.PodSandboxConfig)
		has, lack []string
	}{
		"default": {
			func(c *runtime.ContainerConfig, _ *runtime.PodSandboxConfig) {
				c.Linux.SecurityContext.Seccomp = seccomp
			},
			[]string{
				"CapInh:\t0000000000000000", "CapAmb:\t0000000000000000", "Seccomp:\t2", "cwd /srv", "env HOME=/root", "env A=b", "write /file true",
				"write /proc/sys/kernel/domainname false", "write /sys/fs/cgroup/memory/x false", "Groups:\t0 ", " /proc/keys ",
			},
			[]string{"AF_ALG <nil>"},
		},
		"confined": {
			func(c *runtime.ContainerConfig, _ *runtime.PodSandboxConfig) {
				sc := c.Linux.SecurityContext
				sc.ReadonlyRootfs, sc.NoNewPrivs = true, true
				sc.Capabilities = &runtime.Capability{DropCapabilities: []string{"ALL"}, AddAmbientCapabilities: []string{"NET_BIND_SERVICE"}}
				c.Mounts = []*runtime.Mount{{ContainerPath: "/mnt/deep/er", HostPath: dir, Readonly: true, RecursiveReadOnly: true, MountOptions: []string{"noexec", "nosuid"}}}
				c.Linux.Resources = &runtime.LinuxContainerResources{OomScoreAdj: 500, CpuShares: 100, MemoryLimitInBytes: 256 << 20}
			},
			[]string{"CapEff:\t0000000000000400", "CapAmb:\t0000000000000400", "NoNewPrivs:\t1", "write /file false", "/mnt/deep/er ro,nosuid,noexec"},
			nil,
		},
		"user namespace with an idmapped mount": {
			func(c *runtime.ContainerConfig, p *runtime.PodSandboxConfig) {
				m := []*runtime.IDMapping{{HostId: 100000, ContainerId: 0, Length: 65536}}
				p.Linux.SecurityContext.NamespaceOptions = &runtime.NamespaceOption{UsernsOptions: &runtime.UserNamespace{Uids: m, Gids: m}}
				c.Mounts = []*runtime.Mount{{ContainerPath: "/mnt", HostPath: dir, UidMappings: m, GidMappings: m}}
			},
			[]string{"uid_map 0 100000 65536", "owner of /mnt is 0", "owner of / is 65534"},
			[]string{" /proc/keys "},
		},
		"privileged": {
			func(c *runtime.ContainerConfig, p *runtime.PodSandboxConfig) {
				c.Linux.SecurityContext.Privileged, p.Linux.SecurityContext.Privileged = true, true
				c.Linux.SecurityContext.Seccomp = seccomp
			},
			[]string{"Seccomp:\t0", "CapInh:\t0000000000000000"},
			[]string{" /proc/keys "},
		},
	} {
		t.Run(name, func(t *testing.T) {
			out := run(t, runc, root, c.edit)
			for _, want := range c.has {
				if !strings.Contains(out, want) {
					t.Errorf("want %q in:\n%s", want, out)
				}
			}
			for _, lack := range c.lack {
				if strings.Contains(out, lack) {
					t.Errorf("found %q in:\n%s", lack, out)
				}
			}
		})
	}
}

// run makes the spec, runs it and returns what the probe wrote.
func run(t *testing.T, runc, root string, edit func(*runtime.ContainerConfig, *runtime.PodSandboxConfig)) string {
	t.Helper()
	cfg := &runtime.ContainerConfig{
		Metadata: &runtime.ContainerMetadata{Name: "probe"}, Image: &runtime.ImageSpec{Image: "x"},
		Linux: &runtime.LinuxContainerConfig{SecurityContext: &runtime.LinuxContainerSecurityContext{
			NamespaceOptions: &runtime.NamespaceOption{Pid: runtime.NamespaceMode_CONTAINER},
		}},
	}
	pod := &runtime.PodSandboxConfig{Linux: &runtime.LinuxPodSandboxConfig{SecurityContext: &runtime.LinuxSandboxSecurityContext{}}}
	edit(cfg, pod)
	k := plan.Kernel{Seccomp: true, RecursiveReadOnly: true, IDMapMounts: true, Capabilities: bounding(t), OCIVersion: "1.2.0"}
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	k.CgroupV2 = err == nil
	pl, err := spec.New(cfg, pod, host.Options(k))
	if err != nil {
		t.Fatal(err)
	}
	id := "crid-spec-test-" + strconv.Itoa(os.Getpid())
	s, err := pl.Spec(plan.Facts{
		ID: id, PodID: id, Rootfs: root, CgroupsPath: "/" + id, Kernel: k, Home: "/root", User: oci.User{},
		Image: imagespec.ImageConfig{Entrypoint: []string{"/probe"}, WorkingDir: "srv", Env: []string{"A=b"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []oci.LinuxNamespaceType{oci.IPCNamespace, oci.UTSNamespace, oci.NetworkNamespace} { // no pod here to join
		s.Linux.Namespaces = append(s.Linux.Namespaces, oci.LinuxNamespace{Type: n})
	}
	bundle := t.TempDir()
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	state := t.TempDir()
	cmd := exec.CommandContext(ctx, runc, "--root", state, "run", "-b", bundle, id)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	t.Cleanup(func() {
		exec.Command(runc, "--root", state, "delete", "-f", id).Run() // gone already if it ran
	})
	if err != nil {
		t.Fatalf("runc: %v\n%s\n%s", err, errs.String(), raw)
	}
	return out.String()
}

func findRunc(t *testing.T) string {
	t.Helper()
	if p, err := filepath.Abs("../../bin/runc"); err == nil {
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	p, err := exec.LookPath("runc")
	if err != nil {
		t.Skip("needs runc: none in bin or PATH")
	}
	return p
}

func compile(t *testing.T, dir, to string) {
	t.Helper()
	src := filepath.Join(dir, "probe.go")
	if err := os.WriteFile(src, []byte(probe), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-o", to, src)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("needs a Go toolchain at run time: %v\n%s", err, out)
	}
}

// bounding returns the capabilities that this process has.
func bounding(t *testing.T) []string {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(raw), "\n") {
		if hex, ok := strings.CutPrefix(line, "CapBnd:\t"); ok {
			set, err := strconv.ParseUint(hex, 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			var out []string
			for i, name := range []string{
				"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
				"NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT",
				"SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE",
				"AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
			} {
				if set&(1<<i) != 0 {
					out = append(out, "CAP_"+name)
				}
			}
			return out
		}
	}
	t.Fatal("no CapBnd in /proc/self/status")
	return nil
}
