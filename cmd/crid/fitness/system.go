package fitness

import (
	"context"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// unixStat is what os.FileInfo hides.
type unixStat = syscall.Stat_t

func sockets(_ context.Context, n *node) []Finding {
	const most = 107 // sun_path, less its final NUL
	longest := len(n.c.ShimSocketDir) + 65
	if longest > most || len(n.c.Address) > most || len(n.c.AdminSocket()) > most {
		return []Finding{fail("sockets", "use shorter paths for state, address or shim_socket_dir", "a socket's path would be longer than %d bytes", most)}
	}
	return []Finding{ok("sockets", "paths are short enough (%d of %d bytes)", longest, most)}
}

func swap(_ context.Context, n *node) []Finding {
	if strings.Count(n.read("/proc/swaps"), "\n") == 0 {
		return []Finding{ok("swap", "off")}
	}
	return []Finding{warn("swap", "swapoff -a, or configure the kubelet for it (failSwapOn: false, memorySwap)", "on: a kubelet with default settings does not start")}
}

func clock(_ context.Context, _ *node) []Finding {
	if y := time.Now().Year(); y < 2025 {
		return []Finding{fail("clock", "set the time, and keep it by NTP", "the year is %d: registries' certificates will not be valid", y)}
	}
	state, err := unix.Adjtimex(&unix.Timex{})
	if err == nil && state == 5 { // TIME_ERROR: nobody disciplines the clock
		return []Finding{warn("clock", "run chrony or systemd-timesyncd", "not synchronised")}
	}
	return []Finding{ok("clock", "synchronised")}
}

func limits(_ context.Context, n *node) []Finding {
	var out []Finding
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err == nil && r.Max < 65536 {
		out = append(out, warn("open files", "LimitNOFILE=1024:1048576 in the unit (or ulimit -Hn 1048576)", "at most %d for crid and its shims", r.Max))
	}
	if err := unix.Getrlimit(unix.RLIMIT_NPROC, &r); err == nil && r.Max < 16384 {
		out = append(out, warn("processes", "LimitNPROC=infinity in the unit", "at most %d", r.Max))
	}
	for _, x := range []struct {
		file  string
		least int
	}{
		{"kernel/pid_max", 32768}, {"kernel/threads-max", 16384}, {"kernel/keys/maxkeys", 200},
		{"fs/inotify/max_user_instances", 128}, {"fs/inotify/max_user_watches", 8192},
	} {
		v, err := strconv.Atoi(n.read("/proc/sys/" + x.file))
		if err == nil && v < x.least {
			key := strings.ReplaceAll(x.file, "/", ".")
			out = append(out, warn("limits", "sysctl -w "+key+"="+strconv.Itoa(4*x.least), "%s is %d", key, v))
		}
	}
	if out == nil {
		out = append(out, ok("limits", "files, processes and inotify are sufficient"))
	}
	return out
}
