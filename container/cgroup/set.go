package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Set writes limits, for crid's own cgroups and the pod-level ones that the
// kubelet names; a container's are its runtime's to set. Only what is asked
// for is written: nil and zero mean "leave as it is", -1 means no limit.
//
// Memory and swap follow the OCI meaning (swap is memory plus swap together)
// on both versions; CPU shares become a weight on v2. A limit whose controller
// or file is missing fails with ErrFailedPrecondition, one that the kernel
// refuses with ErrInvalidArgument; both name the file.
func (c *Cgroup) Set(r *oci.LinuxResources) error {
	if err := c.mine(); err != nil {
		return err
	}
	if r == nil {
		return nil
	}
	w := &limits{c: c}
	if c.t.v2 {
		w.cpu2(r.CPU)
		w.memory2(r.Memory)
		w.unified(r.Unified)
	} else {
		w.cpu1(r.CPU)
		w.memory1(r.Memory)
		if len(r.Unified) > 0 {
			w.fail("unified", fmt.Errorf("this machine has cgroup v1: %w", errdefs.ErrFailedPrecondition))
		}
	}
	w.cpuset(r.CPU)
	w.pids(r.Pids)
	w.hugepages(r.HugepageLimits)
	return w.err
}

// limits writes control files until one fails.
type limits struct {
	c   *Cgroup
	err error
}

func (w *limits) fail(what string, err error) {
	if w.err == nil {
		w.err = fmt.Errorf("set %s of cgroup %s: %w", what, w.c.path, err)
	}
}

// try writes one file of a controller and answers the kernel's word.
func (w *limits) try(controller, file, value string) error {
	dir := w.c.dir(controller)
	if dir == "" {
		return fmt.Errorf("the %s controller is not mounted: %w", controller, errdefs.ErrFailedPrecondition)
	}
	err := writeFile(dir+"/"+file, value)
	switch {
	case err == nil:
		return nil
	case gone(err) && !w.c.Exists():
		return fmt.Errorf("the cgroup is gone: %w", errdefs.ErrNotFound)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the kernel has no such file here (is the %s controller enabled?): %w", controller, errdefs.ErrFailedPrecondition)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE):
		return fmt.Errorf("the kernel refuses %q (%w): %w", value, err, errdefs.ErrInvalidArgument)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("more than %q is in use: %w", value, errdefs.ErrFailedPrecondition)
	}
	return err
}

// put is try that records the failure.
func (w *limits) put(controller, file, value string) {
	if w.err != nil {
		return
	}
	if err := w.try(controller, file, value); err != nil {
		w.fail(file, err)
	}
}

// cpuset is the same on both versions.
func (w *limits) cpuset(cpu *oci.LinuxCPU) {
	if cpu == nil {
		return
	}
	if cpu.Cpus != "" {
		w.put("cpuset", "cpuset.cpus", cpu.Cpus)
	}
	if cpu.Mems != "" {
		w.put("cpuset", "cpuset.mems", cpu.Mems)
	}
}

func (w *limits) pids(p *oci.LinuxPids) {
	if p == nil || p.Limit == nil || *p.Limit == 0 {
		return
	}
	w.put("pids", "pids.max", orMax(*p.Limit))
}

func (w *limits) hugepages(list []oci.LinuxHugepageLimit) {
	suffix := ".limit_in_bytes"
	if w.c.t.v2 {
		suffix = ".max"
	}
	known := HugepageSizes()
	for _, h := range list {
		if !slices.Contains(known, h.Pagesize) {
			w.fail("hugetlb", fmt.Errorf("page size %q is not one of this machine's (%s): %w",
				h.Pagesize, strings.Join(known, ", "), errdefs.ErrInvalidArgument))
			return
		}
		w.put("hugetlb", "hugetlb."+h.Pagesize+suffix, strconv.FormatUint(h.Limit, 10))
	}
}

// orMax writes a negative limit the way pids.max and cgroup2 want it.
func orMax(v int64) string {
	if v < 0 {
		return "max"
	}
	return strconv.FormatInt(v, 10)
}

// WeightOf converts v1 CPU shares (2..262144, default 1024) to a v2 weight
// (1..10000, default 100) by the curve that runc and the kubelet use since
// 2025: it keeps both ends and the default. 0 (unset) stays 0.
func WeightOf(shares uint64) uint64 {
	switch {
	case shares == 0:
		return 0
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

// SharesOf is the inverse of WeightOf, for reports: the smallest number of
// shares with at least that weight.
func SharesOf(weight uint64) uint64 {
	if weight == 0 {
		return 0
	}
	lo, hi := uint64(2), uint64(262144)
	for lo < hi {
		mid := (lo + hi) / 2
		if WeightOf(mid) >= weight {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}
