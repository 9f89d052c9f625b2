package cgroup

// cpu2 reads the cpu files of cgroup2; usage is there without the controller.
func (c *Cgroup) cpu2(b *block) {
	u := &b.cpu
	u.Quota = Unlimited
	c.in("cpu", func(fd int) {
		u.At = now()
		if !withFile(fd, "cpu.stat", func(text []byte) {
			eachKey(text, func(k []byte, v uint64) {
				switch string(k) {
				case "usage_usec":
					u.Usage = v * 1000
				case "user_usec":
					u.User = v * 1000
				case "system_usec":
					u.System = v * 1000
				case "nr_periods":
					u.Periods = v
				case "nr_throttled":
					u.Throttled = v
				case "throttled_usec":
					u.ThrottledTime = v * 1000
				}
			})
		}) {
			return
		}
		b.CPU = u
		withFile(fd, "cpu.max", func(text []byte) {
			quota, rest := word(trim(text))
			if v, ok := parseUint(quota); ok {
				u.Quota = v
			}
			u.Period, _ = parseUint(trim(rest))
		})
		if w, ok := readUint(fd, "cpu.weight"); ok {
			u.Shares = SharesOf(w)
		}
		u.Pressure = readPressure(fd, "cpu.pressure", &b.cpuPSI)
	})
}

// memory2 reads the memory files of cgroup2, which count descendants in.
func (c *Cgroup) memory2(b *block) {
	m, s := &b.memory, &b.swap
	c.in("memory", func(fd int) {
		m.At = now()
		var ok bool
		if m.Usage, ok = readUint(fd, "memory.current"); !ok {
			return
		}
		b.Memory = m
		var inactive uint64
		withFile(fd, "memory.stat", func(text []byte) {
			eachKey(text, func(k []byte, v uint64) {
				switch string(k) {
				case "inactive_file":
					inactive = v
				case "anon":
					m.RSS = v
				case "file":
					m.Cache = v
				case "file_mapped":
					m.MappedFile = v
				case "kernel":
					m.Kernel = v
				case "pgfault":
					m.PageFaults = v
				case "pgmajfault":
					m.MajorPageFaults = v
				}
			})
		})
		m.WorkingSet = minus(m.Usage, inactive)
		if m.Limit, ok = readUint(fd, "memory.max"); !ok {
			m.Limit = Unlimited
		}
		m.Available = minus(m.Limit, m.WorkingSet)
		m.MaxUsage, _ = readUint(fd, "memory.peak")
		withFile(fd, "memory.events", func(text []byte) {
			eachKey(text, func(k []byte, v uint64) {
				switch string(k) {
				case "max":
					m.FailCount = v
				case "oom_kill":
					m.OOMKills = v
				}
			})
		})
		m.Pressure = readPressure(fd, "memory.pressure", &b.memPSI)
		if s.Usage, ok = readUint(fd, "memory.swap.current"); ok {
			s.At = now()
			if s.Limit, ok = readUint(fd, "memory.swap.max"); !ok {
				s.Limit = Unlimited
			}
			s.Available = minus(s.Limit, s.Usage)
			b.Stats.Swap = s
		}
	})
}

// io2 reads io.stat: "MAJ:MIN rbytes=N wbytes=N rios=N wios=N dbytes=N dios=N".
func (c *Cgroup) io2(b *block) {
	c.in("io", func(fd int) {
		b.io.At = now()
		found := withFile(fd, "io.stat", func(text []byte) {
			eachLine(text, func(line []byte) { b.io.v2Line(line) })
		})
		psi := readPressure(fd, "io.pressure", &b.psi)
		if found || psi != nil {
			b.io.Pressure = psi
			b.IO = &b.io
		}
	})
}

// v2Line takes one line of io.stat.
func (io *IO) v2Line(line []byte) {
	dev, rest := word(line)
	major, minor, ok := parseDevice(dev)
	if !ok {
		return
	}
	d := io.device(major, minor)
	for len(rest) > 0 {
		var f []byte
		f, rest = word(rest)
		eq := 0
		for eq < len(f) && f[eq] != '=' {
			eq++
		}
		if eq == len(f) {
			continue
		}
		v, _ := parseUint(f[eq+1:])
		switch string(f[:eq]) {
		case "rbytes":
			d.ReadBytes = v
		case "wbytes":
			d.WriteBytes = v
		case "dbytes":
			d.DiscardBytes = v
		case "rios":
			d.ReadOps = v
		case "wios":
			d.WriteOps = v
		case "dios":
			d.DiscardOps = v
		}
	}
}
