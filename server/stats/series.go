package stats

import (
	"strconv"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/container/cgroup"
)

// The labels of every series, as the kubelet's cadvisor has them: "id" is the
// cgroup, "name" the id that CRI knows, "container" the name in the pod's
// specification (empty for the pod itself).
var baseLabels = []string{"container", "id", "image", "name", "namespace", "pod"}

// reading is what was read of one pod or container for its series; parts that
// could not be read are nil or zero.
type reading struct {
	base       []string // the values of baseLabels
	pod        bool
	now        time.Time
	created    int64
	started    int64
	cgroup     *cgroup.Stats
	interfaces []Interface
	layer      *Layer
	disk       Disk
	handles    *handles
	limits     *cri.LinuxContainerResources
}

type handles struct{ files, sockets, soft uint64 }

// emit takes one value with the values of the series' own labels.
type emit func(v uint64, labels ...string)

// series is one metric: its descriptor and where its values come from.
type series struct {
	name, help string
	kind       cri.MetricType
	labels     []string // beside the base labels
	of         func(*reading, emit)
}

const (
	counter = cri.MetricType_COUNTER
	gauge   = cri.MetricType_GAUGE
)

// seconds turns nanoseconds into CRI's whole seconds.
func seconds(ns uint64) uint64 { return ns / uint64(time.Second) }

// known is 0 for "unlimited", as cadvisor shows it.
func known(v uint64) uint64 {
	if v == cgroup.Unlimited {
		return 0
	}
	return v
}

func cpuOf(f func(*cgroup.CPU) uint64) func(*reading, emit) {
	return func(r *reading, e emit) {
		if r.cgroup != nil && r.cgroup.CPU != nil {
			e(f(r.cgroup.CPU))
		}
	}
}

// cfsOf is for series that exist only under a quota, as in cadvisor.
func cfsOf(f func(*cgroup.CPU) uint64) func(*reading, emit) {
	return func(r *reading, e emit) {
		if r.cgroup != nil && r.cgroup.CPU != nil && r.cgroup.CPU.Quota != cgroup.Unlimited {
			e(f(r.cgroup.CPU))
		}
	}
}

func memoryOf(f func(*cgroup.Memory) uint64) func(*reading, emit) {
	return func(r *reading, e emit) {
		if r.cgroup != nil && r.cgroup.Memory != nil {
			e(f(r.cgroup.Memory))
		}
	}
}

func pressureOf(part func(*cgroup.Stats) *cgroup.Pressure, which func(*cgroup.Pressure) cgroup.Stall) func(*reading, emit) {
	return func(r *reading, e emit) {
		if r.cgroup == nil {
			return
		}
		if p := part(r.cgroup); p != nil {
			e(seconds(which(p).TotalNanoseconds))
		}
	}
}

func interfaceOf(f func(Interface) uint64) func(*reading, emit) {
	return func(r *reading, e emit) {
		for _, i := range r.interfaces {
			e(f(i), i.Name)
		}
	}
}

func deviceOf(f func(cgroup.DeviceIO) uint64) func(*reading, emit) {
	return func(r *reading, e emit) {
		if r.cgroup == nil || r.cgroup.IO == nil {
			return
		}
		for _, d := range r.cgroup.IO.Devices {
			e(f(d), deviceName(d.Major, d.Minor))
		}
	}
}

// blkio are the bytes per device and operation.
func blkio(r *reading, e emit) {
	if r.cgroup == nil || r.cgroup.IO == nil {
		return
	}
	for _, d := range r.cgroup.IO.Devices {
		major, minor := strconv.FormatUint(d.Major, 10), strconv.FormatUint(d.Minor, 10)
		name := deviceName(d.Major, d.Minor)
		e(d.ReadBytes, name, major, minor, "Read")
		e(d.WriteBytes, name, major, minor, "Write")
	}
}

func diskOf(f func(*reading) uint64) func(*reading, emit) {
	return func(r *reading, e emit) {
		if r.layer != nil && r.disk.Mountpoint != "" {
			e(f(r), r.disk.Device)
		}
	}
}

func hugetlbOf(f func(cgroup.Hugetlb) uint64) func(*reading, emit) {
	return func(r *reading, e emit) {
		if r.cgroup == nil {
			return
		}
		for _, h := range r.cgroup.Hugetlb {
			e(f(h), h.Size)
		}
	}
}

func pidsOf(f func(*cgroup.Pids) uint64) func(*reading, emit) {
	return func(r *reading, e emit) {
		if r.cgroup != nil && r.cgroup.Pids != nil {
			e(f(r.cgroup.Pids))
		}
	}
}

func handlesOf(f func(*handles) uint64) func(*reading, emit) {
	return func(r *reading, e emit) {
		if r.handles != nil {
			e(f(r.handles))
		}
	}
}

// always is for values that every reading has.
func always(f func(*reading) uint64) func(*reading, emit) {
	return func(r *reading, e emit) { e(f(r)) }
}

// containerOnly keeps a series to containers.
func containerOnly(of func(*reading, emit)) func(*reading, emit) {
	return func(r *reading, e emit) {
		if !r.pod {
			of(r, e)
		}
	}
}

// inactiveFile is what the working set leaves out.
func inactiveFile(m *cgroup.Memory) uint64 {
	if m.Usage < m.WorkingSet {
		return 0
	}
	return m.Usage - m.WorkingSet
}

// unified answers a byte value that was set by its cgroup v2 name; 0: none.
func unified(r *cri.LinuxContainerResources, key string) uint64 {
	v, err := strconv.ParseUint(r.GetUnified()[key], 10, 64)
	if err != nil {
		return 0
	}
	return v
}
