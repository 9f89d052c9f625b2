package stats

import (
	"github.com/crid-project/crid/container/cgroup"
)

func cpuPart(s *cgroup.Stats) *cgroup.Pressure {
	if s.CPU == nil {
		return nil
	}
	return s.CPU.Pressure
}

func memoryPart(s *cgroup.Stats) *cgroup.Pressure {
	if s.Memory == nil {
		return nil
	}
	return s.Memory.Pressure
}

func ioPart(s *cgroup.Stats) *cgroup.Pressure {
	if s.IO == nil {
		return nil
	}
	return s.IO.Pressure
}

func some(p *cgroup.Pressure) cgroup.Stall { return p.Some }
func full(p *cgroup.Pressure) cgroup.Stall { return p.Full }

// table is every series, once: ListMetricDescriptors and ListPodSandboxMetrics
// both come from here and cannot disagree. Names, labels and units are those
// of the kubelet's cadvisor endpoint; CRI's values are whole numbers, so its
// seconds are whole seconds. Left out is what the kubelet's cadvisor shows as a
// constant 0 (load averages, tasks by state).
var table = []series{
	{"container_cpu_user_seconds_total", "Cumulative user CPU time consumed in seconds.", counter, nil,
		cpuOf(func(c *cgroup.CPU) uint64 { return seconds(c.User) })},
	{"container_cpu_system_seconds_total", "Cumulative system CPU time consumed in seconds.", counter, nil,
		cpuOf(func(c *cgroup.CPU) uint64 { return seconds(c.System) })},
	{"container_cpu_usage_seconds_total", "Cumulative CPU time consumed in seconds.", counter, []string{"cpu"},
		func(r *reading, e emit) {
			if r.cgroup != nil && r.cgroup.CPU != nil {
				e(seconds(r.cgroup.CPU.Usage), "total")
			}
		}},
	{"container_cpu_cfs_periods_total", "Number of elapsed enforcement period intervals.", counter, nil,
		cfsOf(func(c *cgroup.CPU) uint64 { return c.Periods })},
	{"container_cpu_cfs_throttled_periods_total", "Number of throttled period intervals.", counter, nil,
		cfsOf(func(c *cgroup.CPU) uint64 { return c.Throttled })},
	{"container_cpu_cfs_throttled_seconds_total", "Total time in seconds that the container was throttled.", counter, nil,
		cfsOf(func(c *cgroup.CPU) uint64 { return seconds(c.ThrottledTime) })},

	{"container_memory_cache", "Bytes of page cache memory.", gauge, nil,
		memoryOf(func(m *cgroup.Memory) uint64 { return m.Cache })},
	{"container_memory_rss", "Bytes of anonymous memory.", gauge, nil,
		memoryOf(func(m *cgroup.Memory) uint64 { return m.RSS })},
	{"container_memory_kernel_usage", "Bytes of kernel memory charged.", gauge, nil,
		memoryOf(func(m *cgroup.Memory) uint64 { return m.Kernel })},
	{"container_memory_mapped_file", "Bytes of mapped files.", gauge, nil,
		memoryOf(func(m *cgroup.Memory) uint64 { return m.MappedFile })},
	{"container_memory_swap", "Bytes of swap in use.", gauge, nil,
		func(r *reading, e emit) {
			if r.cgroup != nil && r.cgroup.Swap != nil {
				e(r.cgroup.Swap.Usage)
			}
		}},
	{"container_memory_failcnt", "Number of times that memory use hit the limit.", counter, nil,
		memoryOf(func(m *cgroup.Memory) uint64 { return m.FailCount })},
	{"container_memory_usage_bytes", "Bytes of memory in use, whenever it was last accessed.", gauge, nil,
		memoryOf(func(m *cgroup.Memory) uint64 { return m.Usage })},
	{"container_memory_max_usage_bytes", "Highest memory use recorded, in bytes.", gauge, nil,
		memoryOf(func(m *cgroup.Memory) uint64 { return m.MaxUsage })},
	{"container_memory_working_set_bytes", "Bytes of the working set.", gauge, nil,
		memoryOf(func(m *cgroup.Memory) uint64 { return m.WorkingSet })},
	{"container_memory_total_active_file_bytes", "Bytes of page cache on the active list.", gauge, nil,
		memoryOf(func(m *cgroup.Memory) uint64 { return m.Cache - min(m.Cache, inactiveFile(m)) })},
	{"container_memory_total_inactive_file_bytes", "Bytes of page cache on the inactive list.", gauge, nil,
		memoryOf(inactiveFile)},
	{"container_memory_failures_total", "Cumulative count of page faults.", counter, []string{"failure_type", "scope"},
		func(r *reading, e emit) {
			if r.cgroup == nil || r.cgroup.Memory == nil {
				return
			}
			for _, scope := range []string{"container", "hierarchy"} {
				e(r.cgroup.Memory.PageFaults, "pgfault", scope)
				e(r.cgroup.Memory.MajorPageFaults, "pgmajfault", scope)
			}
		}},
	{"container_oom_events_total", "Number of processes killed for want of memory.", counter, nil,
		memoryOf(func(m *cgroup.Memory) uint64 { return m.OOMKills })},

	{"container_network_receive_bytes_total", "Cumulative count of bytes received.", counter, []string{"interface"},
		interfaceOf(func(i Interface) uint64 { return i.RxBytes })},
	{"container_network_receive_packets_total", "Cumulative count of packets received.", counter, []string{"interface"},
		interfaceOf(func(i Interface) uint64 { return i.RxPackets })},
	{"container_network_receive_packets_dropped_total", "Cumulative count of packets dropped while receiving.", counter, []string{"interface"},
		interfaceOf(func(i Interface) uint64 { return i.RxDropped })},
	{"container_network_receive_errors_total", "Cumulative count of errors while receiving.", counter, []string{"interface"},
		interfaceOf(func(i Interface) uint64 { return i.RxErrors })},
	{"container_network_transmit_bytes_total", "Cumulative count of bytes transmitted.", counter, []string{"interface"},
		interfaceOf(func(i Interface) uint64 { return i.TxBytes })},
	{"container_network_transmit_packets_total", "Cumulative count of packets transmitted.", counter, []string{"interface"},
		interfaceOf(func(i Interface) uint64 { return i.TxPackets })},
	{"container_network_transmit_packets_dropped_total", "Cumulative count of packets dropped while transmitting.", counter, []string{"interface"},
		interfaceOf(func(i Interface) uint64 { return i.TxDropped })},
	{"container_network_transmit_errors_total", "Cumulative count of errors while transmitting.", counter, []string{"interface"},
		interfaceOf(func(i Interface) uint64 { return i.TxErrors })},

	{"container_fs_inodes_free", "Number of free inodes of the file system.", gauge, []string{"device"},
		diskOf(func(r *reading) uint64 { return r.disk.FreeNode })},
	{"container_fs_inodes_total", "Number of inodes of the file system.", gauge, []string{"device"},
		diskOf(func(r *reading) uint64 { return r.disk.Inodes })},
	{"container_fs_limit_bytes", "Bytes that the container can take on this file system.", gauge, []string{"device"},
		diskOf(func(r *reading) uint64 { return r.disk.Bytes })},
	{"container_fs_usage_bytes", "Bytes that the container takes on this file system.", gauge, []string{"device"},
		diskOf(func(r *reading) uint64 { return r.layer.Bytes })},
	{"container_fs_reads_bytes_total", "Cumulative count of bytes read.", counter, []string{"device"},
		deviceOf(func(d cgroup.DeviceIO) uint64 { return d.ReadBytes })},
	{"container_fs_reads_total", "Cumulative count of reads completed.", counter, []string{"device"},
		deviceOf(func(d cgroup.DeviceIO) uint64 { return d.ReadOps })},
	{"container_fs_writes_bytes_total", "Cumulative count of bytes written.", counter, []string{"device"},
		deviceOf(func(d cgroup.DeviceIO) uint64 { return d.WriteBytes })},
	{"container_fs_writes_total", "Cumulative count of writes completed.", counter, []string{"device"},
		deviceOf(func(d cgroup.DeviceIO) uint64 { return d.WriteOps })},
	{"container_blkio_device_usage_total", "Bytes of block device traffic.", counter, []string{"device", "major", "minor", "operation"}, blkio},

	{"container_hugetlb_usage_bytes", "Bytes of huge pages in use.", gauge, []string{"pagesize"},
		hugetlbOf(func(h cgroup.Hugetlb) uint64 { return h.Usage })},
	{"container_hugetlb_max_usage_bytes", "Highest use of huge pages recorded, in bytes.", gauge, []string{"pagesize"},
		hugetlbOf(func(h cgroup.Hugetlb) uint64 { return h.Max })},
	{"container_hugetlb_failcnt", "Number of times that the use of huge pages hit the limit.", counter, []string{"pagesize"},
		hugetlbOf(func(h cgroup.Hugetlb) uint64 { return h.FailCount })},

	{"container_processes", "Number of processes running.", gauge, nil,
		pidsOf(func(p *cgroup.Pids) uint64 { return p.Processes })},
	{"container_threads", "Number of threads running.", gauge, nil,
		pidsOf(func(p *cgroup.Pids) uint64 { return p.Threads })},
	{"container_threads_max", "Most threads allowed; 0 is no limit.", gauge, nil,
		pidsOf(func(p *cgroup.Pids) uint64 { return known(p.Limit) })},
	{"container_file_descriptors", "Number of open file descriptors.", gauge, nil,
		handlesOf(func(h *handles) uint64 { return h.files })},
	{"container_sockets", "Number of open sockets.", gauge, nil,
		handlesOf(func(h *handles) uint64 { return h.sockets })},
	{"container_ulimits_soft", "Soft limits of the main process.", gauge, []string{"ulimit"},
		func(r *reading, e emit) {
			if r.handles != nil && r.handles.soft > 0 {
				e(r.handles.soft, "max_open_files")
			}
		}},

	{"container_last_seen", "When the container was last seen, in seconds since the epoch.", gauge, nil,
		always(func(r *reading) uint64 { return uint64(r.now.Unix()) })},
	{"container_start_time_seconds", "When the container started, in seconds since the epoch.", gauge, nil,
		always(func(r *reading) uint64 { return seconds(uint64(max(r.started, 0))) })},
	{"container_creation_time_seconds", "When the container was created, in seconds since the epoch.", gauge, nil,
		always(func(r *reading) uint64 { return seconds(uint64(max(r.created, 0))) })},

	{"container_spec_cpu_period", "CPU period in microseconds.", gauge, nil,
		cpuOf(func(c *cgroup.CPU) uint64 { return known(c.Period) })},
	{"container_spec_cpu_quota", "CPU quota in microseconds per period.", gauge, nil,
		cfsOf(func(c *cgroup.CPU) uint64 { return c.Quota })},
	{"container_spec_cpu_shares", "CPU shares.", gauge, nil,
		cpuOf(func(c *cgroup.CPU) uint64 { return c.Shares })},
	{"container_spec_memory_limit_bytes", "Memory limit in bytes; 0 is no limit.", gauge, nil,
		memoryOf(func(m *cgroup.Memory) uint64 { return known(m.Limit) })},
	{"container_spec_memory_reservation_limit_bytes", "Memory reservation in bytes; 0 is none.", gauge, nil,
		containerOnly(func(r *reading, e emit) { e(unified(r.limits, "memory.low")) })},
	{"container_spec_memory_swap_limit_bytes", "Swap limit in bytes; 0 is no limit.", gauge, nil,
		func(r *reading, e emit) {
			if r.cgroup != nil && r.cgroup.Swap != nil {
				e(known(r.cgroup.Swap.Limit))
			}
		}},

	{"container_pressure_cpu_waiting_seconds_total", "Time in seconds that some tasks waited for CPU.", counter, nil, pressureOf(cpuPart, some)},
	{"container_pressure_cpu_stalled_seconds_total", "Time in seconds that all tasks waited for CPU.", counter, nil, pressureOf(cpuPart, full)},
	{"container_pressure_memory_waiting_seconds_total", "Time in seconds that some tasks waited for memory.", counter, nil, pressureOf(memoryPart, some)},
	{"container_pressure_memory_stalled_seconds_total", "Time in seconds that all tasks waited for memory.", counter, nil, pressureOf(memoryPart, full)},
	{"container_pressure_io_waiting_seconds_total", "Time in seconds that some tasks waited for I/O.", counter, nil, pressureOf(ioPart, some)},
	{"container_pressure_io_stalled_seconds_total", "Time in seconds that all tasks waited for I/O.", counter, nil, pressureOf(ioPart, full)},
}
