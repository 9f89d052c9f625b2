package cgroup

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Stats are a cgroup's counters. A part whose controller is missing is nil.
// Limits that are not set are Unlimited.
type Stats struct {
	CPU     *CPU
	Memory  *Memory
	Swap    *Swap
	Pids    *Pids
	IO      *IO
	Hugetlb []Hugetlb
}

// CPU is processor time. At is when it was read, in Unix nanoseconds, as in
// all parts.
type CPU struct {
	At int64
	// Usage, User, System are nanoseconds used since the cgroup was made.
	Usage, User, System uint64
	// Periods, Throttled are enforcement intervals passed, and those in which
	// the quota ran out; ThrottledTime is in nanoseconds.
	Periods, Throttled, ThrottledTime uint64
	// Quota is microseconds per Period (also microseconds), or Unlimited.
	Quota, Period uint64
	// Shares is the v1 share; on v2 what corresponds to the weight. 0: unknown.
	Shares uint64
	// Pressure is nil without PSI.
	Pressure *Pressure
}

// Memory is in bytes.
type Memory struct {
	At int64
	// Usage is everything charged, page cache included.
	Usage uint64
	// WorkingSet is Usage without the inactive file pages: what the kubelet
	// evicts by.
	WorkingSet uint64
	// RSS is anonymous memory, Cache the page cache, MappedFile what of it is mapped.
	RSS, Cache, MappedFile uint64
	// Kernel is kernel memory charged; 0 where the kernel does not tell.
	Kernel uint64
	// Limit may be Unlimited; Available (Limit - WorkingSet) is then, too.
	Limit, Available uint64
	// MaxUsage is the highest Usage ever seen; 0 if the kernel does not keep it.
	MaxUsage uint64
	// PageFaults, MajorPageFaults are counts.
	PageFaults, MajorPageFaults uint64
	// FailCount counts charges that hit the limit, OOMKills processes ended by
	// the OOM killer.
	FailCount, OOMKills uint64
	Pressure            *Pressure
}

// Swap is in bytes, without the memory part. Limit and Available (Limit -
// Usage) may be Unlimited.
type Swap struct {
	At                      int64
	Usage, Limit, Available uint64
}

// Pids counts processes and threads, of the cgroup and everything below.
type Pids struct {
	At int64
	// Processes are thread groups, Threads tasks (what the limit counts).
	Processes, Threads uint64
	// Limit on threads, or Unlimited.
	Limit uint64
}

// IO is block device traffic.
type IO struct {
	At       int64
	Devices  []DeviceIO
	Pressure *Pressure
}

// DeviceIO is the traffic of one device: bytes and operations since the
// cgroup was made.
type DeviceIO struct {
	Major, Minor                        uint64
	ReadBytes, WriteBytes, DiscardBytes uint64
	ReadOps, WriteOps, DiscardOps       uint64
}

// Hugetlb is one page size, in bytes; Max 0 where the kernel does not keep it.
type Hugetlb struct {
	At               int64
	Size             string // "2MB"
	Usage, Max       uint64
	Limit, FailCount uint64
}

// Pressure is the kernel's PSI for one resource.
type Pressure struct{ Some, Full Stall }

// Stall is the share of time in percent, over windows of 10, 60 and 300
// seconds, and the total in nanoseconds.
type Stall struct {
	Avg10, Avg60, Avg300 float64
	TotalNanoseconds     uint64
}

// block is what a whole answer is allocated as: one piece.
type block struct {
	Stats
	cpu                 CPU
	memory              Memory
	swap                Swap
	pids                Pids
	io                  IO
	cpuPSI, memPSI, psi Pressure
}

// Stats reads all counters, straight from the kernel's files: about a hundred
// microseconds, no process is asked. ErrNotFound if the cgroup is gone, the
// context's error if it ends in between.
func (c *Cgroup) Stats(ctx context.Context) (*Stats, error) {
	if c.err != nil {
		return nil, c.err
	}
	c = c.innermost()
	b := &block{}
	read := []func(*block){c.cpu2, c.memory2, c.pids, c.io2, c.hugetlb}
	if !c.t.v2 {
		read = []func(*block){c.cpu1, c.memory1, c.pids, c.io1, c.hugetlb, c.pressure}
	}
	for _, part := range read {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("read statistics of cgroup %s: %w", c.path, err)
		}
		part(b)
	}
	if b.CPU == nil && b.Memory == nil && b.Stats.Pids == nil && b.IO == nil && !c.Exists() {
		return nil, fmt.Errorf("read statistics of cgroup %s: %w", c.path, errdefs.ErrNotFound)
	}
	return &b.Stats, nil
}

// in opens a controller's directory and hands it to fn; false if there is none.
func (c *Cgroup) in(controller string, fn func(dirfd int)) bool {
	dir := c.dir(controller)
	if dir == "" {
		return false
	}
	fd, err := openDir(dir)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	fn(fd)
	return true
}

// now is the time of a reading.
func now() int64 { return time.Now().UnixNano() }

// minus floors at 0; Unlimited stays what it is.
func minus(a, b uint64) uint64 {
	switch {
	case a == Unlimited:
		return Unlimited
	case a < b:
		return 0
	}
	return a - b
}

// pids counts processes and threads; both versions name the files alike.
func (c *Cgroup) pids(b *block) {
	p := &b.pids
	found := c.in("pids", func(fd int) {
		var ok bool
		if p.Threads, ok = readUint(fd, "pids.current"); ok {
			b.Stats.Pids = p
		}
		if p.Limit, ok = readUint(fd, "pids.max"); !ok {
			p.Limit = Unlimited
		}
	})
	dir := c.dir("pids")
	if !found {
		// Without the controller the processes can still be counted.
		for _, d := range c.dirs() {
			if readable(d) {
				dir = d
				break
			}
		}
	}
	if dir == "" {
		return
	}
	p.At = now()
	_ = walk(dir, 0, func(dirfd int, _ string) error {
		return procsOf(dirfd, func(int) { p.Processes++ })
	})
	if b.Stats.Pids == nil && p.Processes > 0 {
		p.Threads, p.Limit = p.Processes, Unlimited
		b.Stats.Pids = p
	}
}

// hugetlb reads every page size that the controller has here.
func (c *Cgroup) hugetlb(b *block) {
	c.in("hugetlb", func(fd int) {
		for _, size := range HugepageSizes() {
			h := Hugetlb{At: now(), Size: size, Limit: Unlimited}
			name := "hugetlb." + size
			var ok bool
			if c.t.v2 {
				h.Usage, ok = readUint(fd, name+".current")
				h.Limit, _ = readUint(fd, name+".max")
				withFile(fd, name+".events", func(b []byte) {
					eachKey(b, func(k []byte, v uint64) {
						if string(k) == "max" {
							h.FailCount = v
						}
					})
				})
			} else {
				h.Usage, ok = readUint(fd, name+".usage_in_bytes")
				h.Limit, _ = readUint(fd, name+".limit_in_bytes")
				h.Max, _ = readUint(fd, name+".max_usage_in_bytes")
				h.FailCount, _ = readUint(fd, name+".failcnt")
				h.Limit = v1Limit(h.Limit)
			}
			if ok {
				b.Hugetlb = append(b.Hugetlb, h)
			}
		}
	})
}

// readPressure reads one pressure file into p; nil if there is no PSI.
func readPressure(fd int, name string, p *Pressure) *Pressure {
	if !withFile(fd, name, func(b []byte) { parsePressure(b, p) }) {
		return nil
	}
	return p
}
