// Package machine finds out what this node and an OCI runtime offer: the
// kernel's features, our own capabilities, the runtime's spec version.
//
// It owns the looks; each is done once. It refuses to judge: whether a node is
// fit is told by `crid check`.
package machine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/selinux/go-selinux"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/container/cgroup"
	"github.com/crid-project/crid/container/plan"
)

// Options change what is found.
type Options struct {
	// RestrictOOMScore is "auto", "true" or "false".
	RestrictOOMScore string
	// SELinux says that labels are to be used where the kernel has them on.
	SELinux bool
}

// Node finds out what does not depend on the runtime.
func Node(o Options) plan.Kernel {
	k := plan.Kernel{CgroupV2: cgroup.V2(), HugepageSizes: cgroup.HugepageSizes(), Capabilities: capabilities()}
	k.AppArmor = firstByte("/sys/module/apparmor/parameters/enabled") == 'Y' && exists("/sys/kernel/security/apparmor/profiles")
	k.SELinux = o.SELinux && selinux.GetEnabled()
	k.Seccomp = exists("/proc/sys/kernel/seccomp/actions_avail")
	k.Swap = swap(k.CgroupV2)
	k.MinOOMScoreAdj = minOOMScore(o.RestrictOOMScore, k.Capabilities)
	k.CgroupMountOptions = cgroupOptions(k.CgroupV2)
	k.MaskedPaths = throttles()
	k.RecursiveReadOnly, k.IDMapMounts = kernelAtLeast(5, 12), kernelAtLeast(5, 12)
	k.OCIVersion = "1.0.2"
	return k
}

// features is what `runc features` and `crun features` tell (OCI runtime spec,
// features.md).
type features struct {
	OCIVersionMax string   `json:"ociVersionMax"`
	MountOptions  []string `json:"mountOptions"`
	Annotations   struct {
		Runc string `json:"org.opencontainers.runc.version"`
	} `json:"annotations"`
	Linux struct {
		Seccomp *struct {
			Enabled *bool `json:"enabled"`
		} `json:"seccomp"`
		MountExtensions *struct {
			IDMap *struct {
				Enabled *bool `json:"enabled"`
			} `json:"idmap"`
		} `json:"mountExtensions"`
	} `json:"linux"`
}

// With answers the node's facts as they are with one OCI runtime, which is
// asked for its features within 10 s, and its version if it is a runc that
// tells. A runtime that does not tell gets what every runtime can.
func With(ctx context.Context, k plan.Kernel, binary string) (facts plan.Kernel, runc string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "features")
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout = &limited{w: &out, left: 1 << 20}
	if err := cmd.Run(); err != nil {
		k.RecursiveReadOnly, k.IDMapMounts = false, false
		return k, "", fmt.Errorf("ask %s for its features: %w", binary, err)
	}
	var f features
	if err := json.Unmarshal(out.Bytes(), &f); err != nil {
		k.RecursiveReadOnly, k.IDMapMounts = false, false
		return k, "", fmt.Errorf("read the features of %s: %w", binary, err)
	}
	if f.OCIVersionMax != "" {
		k.OCIVersion = release(f.OCIVersionMax)
	}
	rro := false
	for _, o := range f.MountOptions {
		rro = rro || o == "rro"
	}
	k.RecursiveReadOnly = k.RecursiveReadOnly && rro
	m := f.Linux.MountExtensions
	k.IDMapMounts = k.IDMapMounts && m != nil && m.IDMap != nil && m.IDMap.Enabled != nil && *m.IDMap.Enabled
	if s := f.Linux.Seccomp; s == nil || s.Enabled == nil || !*s.Enabled {
		k.Seccomp = false
	}
	return k, f.Annotations.Runc, nil
}

// release cuts "-dev" and the like off, and bounds what is written into specs
// to what this crid knows.
func release(v string) string {
	v, _, _ = strings.Cut(v, "-")
	v, _, _ = strings.Cut(v, "+")
	return v
}

type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if len(p) > l.left {
		return 0, fmt.Errorf("more output than expected")
	}
	l.left -= len(p)
	return l.w.Write(p)
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func firstByte(path string) byte {
	b, err := os.ReadFile(path)
	if err != nil || len(b) == 0 {
		return 0
	}
	return b[0]
}

// capabilities are the names of what is in our bounding set: nobody below us
// can have more.
func capabilities() []string {
	var out []string
	for i, name := range names {
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(i), 0, 0, 0)
		if err == nil && has == 1 {
			out = append(out, "CAP_"+name)
		}
	}
	return out
}

// names are the capabilities by number, linux/capability.h.
var names = strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
	NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT
	SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
	MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)

// minOOMScore is the lowest oom_score_adj that the kernel lets us give.
func minOOMScore(mode string, caps []string) int {
	const lowest = -1000
	if mode == "false" {
		return lowest
	}
	if mode != "true" {
		for _, c := range caps {
			if c == "CAP_SYS_RESOURCE" && effective(24) {
				return lowest
			}
		}
	}
	b, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return n
}

func effective(capability int) bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return false
	}
	return data[capability/32].Effective&(1<<(capability%32)) != 0
}

// swap reports whether swap can be limited: the controller counts it. On v2 the
// root has no such file; if nothing is below it yet, a kernel that knows swap
// at all is taken to count it, as is the rule there.
func swap(v2 bool) bool {
	if !v2 {
		return exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes")
	}
	if found, _ := filepath.Glob("/sys/fs/cgroup/*/memory.max"); len(found) > 0 {
		found, _ = filepath.Glob("/sys/fs/cgroup/*/memory.swap.max")
		return len(found) > 0
	}
	return exists("/proc/swaps") && slices.Contains(cgroup.Controllers(), "memory")
}

// cgroupOptions are those of the node's cgroup2 mount that a further mount of
// it would otherwise switch off.
func cgroupOptions(v2 bool) []string {
	if !v2 {
		return nil
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		before, after, ok := strings.Cut(s.Text(), " - cgroup2 ")
		if !ok || len(strings.Fields(before)) < 5 || strings.Fields(before)[4] != "/sys/fs/cgroup" {
			continue
		}
		fields := strings.Fields(after)
		var out []string
		for _, o := range strings.Split(fields[len(fields)-1], ",") {
			switch o {
			case "nsdelegate", "memory_recursiveprot", "memory_localevents", "favordynmods", "memory_hugetlb_accounting", "pids_localevents":
				out = append(out, o)
			}
		}
		return out
	}
	return nil
}

// throttles are files that tell of the node's temperature and with it of its
// neighbours' work; there is a folder for each possible processor.
func throttles() []string {
	var out []string
	for i := range runtime.NumCPU() {
		p := fmt.Sprintf("/sys/devices/system/cpu/cpu%d/thermal_throttle", i)
		if exists(p) {
			out = append(out, p)
		}
	}
	return out
}

func kernelAtLeast(major, minor int) bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var a, b int
	if n, _ := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b); n != 2 {
		return false
	}
	return a > major || a == major && b >= minor
}
