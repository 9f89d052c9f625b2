package stats

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/container/cgroup"
)

// Kernel is the [Source] that asks the real kernel.
type Kernel struct {
	// Layers is the directory that the writable layers lie under.
	Layers string
	// Measure answers the bytes and inodes of a container's writable layer.
	Measure func(id string) (bytes, inodes uint64, err error)
}

// Cgroup implements [Source].
func (k *Kernel) Cgroup(ctx context.Context, path string) (*cgroup.Stats, error) {
	return cgroup.Load(path).Stats(ctx)
}

// Layer implements [Source].
func (k *Kernel) Layer(_ context.Context, id string) (Layer, error) {
	bytes, inodes, err := k.Measure(id)
	return Layer{bytes, inodes}, err
}

// Disk implements [Source].
func (k *Kernel) Disk(context.Context) (Disk, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(k.Layers, &fs); err != nil {
		return Disk{}, fmt.Errorf("look at file system of %s: %w", k.Layers, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(k.Layers, &st); err != nil {
		return Disk{}, fmt.Errorf("look at %s: %w", k.Layers, err)
	}
	return Disk{
		Mountpoint: k.Layers,
		Device:     deviceName(uint64(unix.Major(st.Dev)), uint64(unix.Minor(st.Dev))),
		Bytes:      fs.Blocks * uint64(fs.Bsize),
		Inodes:     fs.Files,
		FreeNode:   fs.Ffree,
	}, nil
}

// Network implements [Source]. One netlink socket is opened inside the
// namespace; only the opening needs a thread there.
func (k *Kernel) Network(_ context.Context, path string) ([]Interface, error) {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	defer h.Close()
	_ = h.SetSocketTimeout(time.Second)
	links, err := h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces of %s: %w", path, err)
	}
	var out []Interface
	for _, l := range links {
		a := l.Attrs()
		if a.Statistics == nil {
			continue
		}
		st := a.Statistics
		out = append(out, Interface{
			Name: a.Name, Loopback: a.RawFlags&unix.IFF_LOOPBACK != 0, RxBytes: st.RxBytes, RxPackets: st.RxPackets, RxDropped: st.RxDropped, RxErrors: st.RxErrors,
			TxBytes: st.TxBytes, TxPackets: st.TxPackets, TxDropped: st.TxDropped, TxErrors: st.TxErrors,
		})
	}
	return out, nil
}

// maxHandles bounds the counting of open files; a container with more is shown
// with as many.
const maxHandles = 1 << 17

// Handles implements [Source].
func (k *Kernel) Handles(ctx context.Context, path string) (files, sockets uint64, err error) {
	pids, err := cgroup.Load(path).Procs()
	if err != nil {
		return 0, 0, err
	}
	for _, pid := range pids {
		if ctx.Err() != nil || files >= maxHandles {
			break
		}
		f, s := openFiles(pid, maxHandles-files)
		files, sockets = files+f, sockets+s
	}
	return files, sockets, ctx.Err()
}

// openFiles counts at most limit open files of one process; none if it is gone.
func openFiles(pid int, limit uint64) (files, sockets uint64) {
	dir, err := os.Open("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil {
		return 0, 0
	}
	defer dir.Close()
	for files < limit {
		names, err := dir.Readdirnames(256)
		for _, n := range names {
			files++
			if target, err := os.Readlink(filepath.Join(dir.Name(), n)); err == nil && strings.HasPrefix(target, "socket:") {
				sockets++
			}
		}
		if err != nil || len(names) == 0 {
			break
		}
	}
	return files, sockets
}

// OpenFiles implements [Source].
func (k *Kernel) OpenFiles(pid int) (uint64, error) {
	if pid <= 0 {
		return 0, nil
	}
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/limits")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), "Max open files")
		if !ok {
			continue
		}
		soft, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		if n, err := strconv.ParseUint(soft, 10, 64); err == nil {
			return n, nil
		}
		return 0, nil // unlimited
	}
	return 0, lines.Err()
}

// devices remembers names of block devices: a node has few, and they stay.
var devices struct {
	sync.Mutex
	names map[[2]uint64]string
}

// deviceName is "/dev/sda" for a block device's numbers, "8:0" if it has no name.
func deviceName(major, minor uint64) string {
	key := [2]uint64{major, minor}
	devices.Lock()
	defer devices.Unlock()
	if n, ok := devices.names[key]; ok {
		return n
	}
	numbers := strconv.FormatUint(major, 10) + ":" + strconv.FormatUint(minor, 10)
	name := numbers
	if b, err := os.ReadFile("/sys/dev/block/" + numbers + "/uevent"); err == nil {
		for line := range strings.Lines(string(b)) {
			if dev, ok := strings.CutPrefix(strings.TrimSpace(line), "DEVNAME="); ok {
				name = "/dev/" + dev
			}
		}
	}
	if devices.names == nil || len(devices.names) > 1024 {
		devices.names = map[[2]uint64]string{}
	}
	devices.names[key] = name
	return name
}
