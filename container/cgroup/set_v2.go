package cgroup

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// errSwapBelowLimit is a request that no kernel can fulfil: memory plus swap
// is less than memory.
var errSwapBelowLimit = fmt.Errorf("memory swap limit is below the memory limit (it is memory plus swap): %w", errdefs.ErrInvalidArgument)

// readable tells whether a control file is there.
func readable(path string) bool { return unix.Access(path, unix.R_OK) == nil }

// cpu2 writes cpu.weight and cpu.max.
func (w *limits) cpu2(cpu *oci.LinuxCPU) {
	if cpu == nil {
		return
	}
	if cpu.Idle != nil {
		w.put("cpu", "cpu.idle", strconv.FormatInt(*cpu.Idle, 10))
	}
	// An idle group's weight is fixed; the kernel refuses to set it.
	if cpu.Shares != nil && *cpu.Shares > 0 && (cpu.Idle == nil || *cpu.Idle == 0) {
		w.put("cpu", "cpu.weight", strconv.FormatUint(WeightOf(*cpu.Shares), 10))
	}
	quota := cpu.Quota != nil && *cpu.Quota != 0
	period := cpu.Period != nil && *cpu.Period > 0
	if quota || period {
		q, p := w.cpuMax()
		if quota {
			q = orMax(*cpu.Quota)
		}
		if period {
			p = strconv.FormatUint(*cpu.Period, 10)
		}
		w.put("cpu", "cpu.max", strings.TrimSpace(q+" "+p))
	}
	if cpu.Burst != nil {
		w.put("cpu", "cpu.max.burst", strconv.FormatUint(*cpu.Burst, 10))
	}
}

// cpuMax reads quota and period as they are, so that one can be changed alone.
func (w *limits) cpuMax() (quota, period string) {
	quota = "max"
	withFile(unix.AT_FDCWD, w.c.unifiedDir()+"/cpu.max", func(b []byte) {
		f := strings.Fields(string(b))
		if len(f) == 2 {
			quota, period = f[0], f[1]
		}
	})
	return quota, period
}

// memory2 writes memory.max, memory.swap.max and memory.low. OCI's swap
// counts memory in, cgroup2's does not.
func (w *limits) memory2(m *oci.LinuxMemory) {
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
	if swap != 0 || limit < 0 {
		value, err := w.swapMax(limit, swap)
		if err != nil {
			w.fail("memory.swap.max", err)
			return
		}
		// A kernel without swap has no file: then no swap is what is had.
		if value != "0" && value != "max" || readable(w.c.unifiedDir()+"/memory.swap.max") {
			w.put("memory", "memory.swap.max", value)
		}
	}
	if limit != 0 {
		w.put("memory", "memory.max", orMax(limit))
	}
	if m.Reservation != nil && *m.Reservation != 0 {
		w.put("memory", "memory.low", orMax(*m.Reservation))
	}
}

// swapMax converts OCI's memory+swap to cgroup2's swap alone.
func (w *limits) swapMax(limit, swap int64) (string, error) {
	switch {
	case swap < 0, swap == 0 && limit < 0:
		return "max", nil
	case limit < 0:
		return strconv.FormatInt(swap, 10), nil
	case limit == 0: // swap alone is changed: against the limit as it is
		now, ok := readUint(unix.AT_FDCWD, w.c.unifiedDir()+"/memory.max")
		if !ok || now == Unlimited {
			return "", fmt.Errorf("a swap limit (memory plus swap) needs a memory limit: %w", errdefs.ErrInvalidArgument)
		}
		limit = int64(min(now, 1<<62))
	}
	if swap < limit {
		return "", errSwapBelowLimit
	}
	return strconv.FormatInt(swap-limit, 10), nil
}

// unified writes cgroup2 files as named, in a fixed order. Only files of a
// controller: cgroup.* steer the hierarchy itself.
func (w *limits) unified(files map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		controller, _, ok := strings.Cut(name, ".")
		if !ok || controller == "" || controller == "cgroup" || strings.ContainsAny(name, "/\x00") || strings.Contains(name, "..") {
			w.fail("unified", fmt.Errorf("key %q is not a controller's file: %w", name, errdefs.ErrInvalidArgument))
			return
		}
		w.put(controller, name, files[name])
	}
}
