package cgroup

import (
	"errors"
	"strconv"

	"github.com/containerd/errdefs"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// cpu1 writes a v1 cpu controller's files. Quota and period are checked
// together by the kernel (and against parent and children), so if one order is
// refused the other is tried.
func (w *limits) cpu1(cpu *oci.LinuxCPU) {
	if cpu == nil {
		return
	}
	if cpu.Shares != nil && *cpu.Shares > 0 {
		w.put("cpu", "cpu.shares", strconv.FormatUint(*cpu.Shares, 10))
	}
	period, quota := "", ""
	if cpu.Period != nil && *cpu.Period > 0 {
		period = strconv.FormatUint(*cpu.Period, 10)
	}
	if cpu.Quota != nil && *cpu.Quota != 0 {
		quota = strconv.FormatInt(max(*cpu.Quota, -1), 10)
	}
	late := false
	if period != "" {
		err := w.try("cpu", "cpu.cfs_period_us", period)
		late = err != nil && errors.Is(err, errdefs.ErrInvalidArgument) && quota != ""
		if err != nil && !late {
			w.fail("cpu.cfs_period_us", err)
		}
	}
	if quota != "" {
		w.put("cpu", "cpu.cfs_quota_us", quota)
	}
	if late {
		w.put("cpu", "cpu.cfs_period_us", period)
	}
	if cpu.Burst != nil {
		w.put("cpu", "cpu.cfs_burst_us", strconv.FormatUint(*cpu.Burst, 10))
	}
	if cpu.Idle != nil {
		w.put("cpu", "cpu.idle", strconv.FormatInt(*cpu.Idle, 10))
	}
}

// memory1 writes a v1 memory controller's files. The kernel keeps limit <=
// memsw at every moment, so growing starts with memsw and shrinking with the
// limit.
func (w *limits) memory1(m *oci.LinuxMemory) {
	if m == nil {
		return
	}
	limit, swap := int64(0), int64(0)
	if m.Limit != nil {
		limit = *m.Limit
	}
	if m.Swap != nil {
		swap = *m.Swap
	}
	if limit < 0 && swap == 0 {
		swap = -1 // no limit on memory would be refused below an old memsw
		if dir := w.c.dir("memory"); dir == "" || !readable(dir+"/memory.memsw.limit_in_bytes") {
			swap = 0 // no swap accounting, nothing in the way
		}
	}
	if limit > 0 && swap > 0 && swap < limit {
		w.fail("memory.memsw.limit_in_bytes", errSwapBelowLimit)
		return
	}
	putLimit := func() {
		if limit != 0 {
			w.put("memory", "memory.limit_in_bytes", strconv.FormatInt(max(limit, -1), 10))
		}
	}
	putSwap := func() {
		if swap != 0 {
			w.put("memory", "memory.memsw.limit_in_bytes", strconv.FormatInt(max(swap, -1), 10))
		}
	}
	now, _ := readUint(unix.AT_FDCWD, w.c.dir("memory")+"/memory.limit_in_bytes")
	if swap < 0 || swap > 0 && uint64(swap) > now {
		putSwap()
		putLimit()
	} else {
		putLimit()
		putSwap()
	}
	if m.Reservation != nil && *m.Reservation != 0 {
		w.put("memory", "memory.soft_limit_in_bytes", strconv.FormatInt(max(*m.Reservation, -1), 10))
	}
	if m.Swappiness != nil {
		w.put("memory", "memory.swappiness", strconv.FormatUint(*m.Swappiness, 10))
	}
}
