package cgroup

import (
	"golang.org/x/sys/unix"
)

// v1Limit maps what v1 writes for "no limit" (the largest number of bytes
// that is whole pages) to Unlimited.
func v1Limit(v uint64) uint64 {
	if v >= 1<<62 {
		return Unlimited
	}
	return v
}

// cpu1 reads cpuacct and cpu.
func (c *Cgroup) cpu1(b *block) {
	u := &b.cpu
	u.Quota = Unlimited
	c.in("cpuacct", func(fd int) {
		u.At = now()
		var ok bool
		if u.Usage, ok = readUint(fd, "cpuacct.usage"); !ok {
			return
		}
		b.CPU = u
		u.User, _ = readUint(fd, "cpuacct.usage_user")
		u.System, _ = readUint(fd, "cpuacct.usage_sys")
	})
	c.in("cpu", func(fd int) {
		withFile(fd, "cpu.stat", func(text []byte) {
			eachKey(text, func(k []byte, v uint64) {
				switch string(k) {
				case "nr_periods":
					u.Periods = v
				case "nr_throttled":
					u.Throttled = v
				case "throttled_time":
					u.ThrottledTime = v
				}
			})
		})
		if v, ok := readUint(fd, "cpu.cfs_quota_us"); ok {
			u.Quota = v
		}
		u.Period, _ = readUint(fd, "cpu.cfs_period_us")
		u.Shares, _ = readUint(fd, "cpu.shares")
	})
}

// memory1 reads the memory controller. Its memory.stat has the totals of
// everything below under "total_" names.
func (c *Cgroup) memory1(b *block) {
	m, s := &b.memory, &b.swap
	c.in("memory", func(fd int) {
		m.At = now()
		var ok bool
		if m.Usage, ok = readUint(fd, "memory.usage_in_bytes"); !ok {
			return
		}
		b.Memory = m
		var inactive, swapped uint64
		withFile(fd, "memory.stat", func(text []byte) {
			eachKey(text, func(k []byte, v uint64) {
				switch string(k) {
				case "total_inactive_file":
					inactive = v
				case "total_rss":
					m.RSS = v
				case "total_cache":
					m.Cache = v
				case "total_mapped_file":
					m.MappedFile = v
				case "total_swap":
					swapped = v
				case "total_pgfault":
					m.PageFaults = v
				case "total_pgmajfault":
					m.MajorPageFaults = v
				}
			})
		})
		m.WorkingSet = minus(m.Usage, inactive)
		limit, _ := readUint(fd, "memory.limit_in_bytes")
		m.Limit = v1Limit(limit)
		m.Available = minus(m.Limit, m.WorkingSet)
		m.MaxUsage, _ = readUint(fd, "memory.max_usage_in_bytes")
		m.FailCount, _ = readUint(fd, "memory.failcnt")
		m.Kernel, _ = readUint(fd, "memory.kmem.usage_in_bytes")
		withFile(fd, "memory.oom_control", func(text []byte) {
			eachKey(text, func(k []byte, v uint64) {
				if string(k) == "oom_kill" {
					m.OOMKills = v
				}
			})
		})
		if both, ok := readUint(fd, "memory.memsw.limit_in_bytes"); ok {
			s.At, s.Usage = now(), swapped
			s.Limit = minus(v1Limit(both), m.Limit)
			s.Available = minus(s.Limit, s.Usage)
			b.Stats.Swap = s
		}
	})
}

// io1 reads blkio: the throttling layer counts all traffic since Linux 5.x,
// whether anything is throttled or not.
func (c *Cgroup) io1(b *block) {
	c.in("blkio", func(fd int) {
		b.io.At = now()
		if v1Traffic(fd, "blkio.throttle.io_service_bytes", &b.io, false) {
			v1Traffic(fd, "blkio.throttle.io_serviced", &b.io, true)
			b.IO = &b.io
		}
	})
}

// v1Traffic reads a file of "MAJ:MIN Kind N" lines, with descendants where
// the kernel offers that.
func v1Traffic(fd int, name string, io *IO, ops bool) bool {
	take := func(text []byte) {
		eachLine(text, func(line []byte) {
			dev, rest := word(line)
			kind, rest := word(rest)
			major, minor, ok := parseDevice(dev)
			v, ok2 := parseUint(trim(rest))
			if !ok || !ok2 {
				return
			}
			d := io.device(major, minor)
			switch {
			case string(kind) == "Read" && ops:
				d.ReadOps = v
			case string(kind) == "Read":
				d.ReadBytes = v
			case string(kind) == "Write" && ops:
				d.WriteOps = v
			case string(kind) == "Write":
				d.WriteBytes = v
			case string(kind) == "Discard" && ops:
				d.DiscardOps = v
			case string(kind) == "Discard":
				d.DiscardBytes = v
			}
		})
	}
	return withFile(fd, name+"_recursive", take) || withFile(fd, name, take)
}

// device finds or adds the entry of a device.
func (io *IO) device(major, minor uint64) *DeviceIO {
	for i := range io.Devices {
		if d := &io.Devices[i]; d.Major == major && d.Minor == minor {
			return d
		}
	}
	io.Devices = append(io.Devices, DeviceIO{Major: major, Minor: minor})
	return &io.Devices[len(io.Devices)-1]
}

// pressure reads PSI on a hybrid host, where the cgroup2 hierarchy has it
// although the controllers are elsewhere.
func (c *Cgroup) pressure(b *block) {
	dir := c.unifiedDir()
	if dir == "" {
		return
	}
	fd, err := openDir(dir)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	// Half a move (a process in v1 only) would show as no pressure: only what
	// somebody lives in is believed.
	populated := false
	withFile(fd, "cgroup.events", func(text []byte) {
		eachKey(text, func(k []byte, v uint64) { populated = populated || string(k) == "populated" && v != 0 })
	})
	if !populated {
		return
	}
	if b.CPU != nil {
		b.CPU.Pressure = readPressure(fd, "cpu.pressure", &b.cpuPSI)
	}
	if b.Memory != nil {
		b.Memory.Pressure = readPressure(fd, "memory.pressure", &b.memPSI)
	}
	if b.IO != nil {
		b.IO.Pressure = readPressure(fd, "io.pressure", &b.psi)
	}
}
