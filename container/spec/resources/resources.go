package resources

import (
	"regexp"
	"slices"
	"strings"

	"github.com/crid-project/crid/container/plan"
	"github.com/crid-project/crid/container/spec/field"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Bounds of the kernel's CPU controller, which answers a bare EINVAL outside.
const (
	minPeriod = 1_000     // µs, kernel/sched: min_cfs_quota_period
	maxPeriod = 1_000_000 // µs, max_cfs_quota_period
	minQuota  = 1_000     // µs
	minShares = 2
	maxShares = 262_144
)

// MinOOMScoreAdj and MaxOOMScoreAdj bound oom_score_adj (proc(5)).
const (
	MinOOMScoreAdj = -1000
	MaxOOMScoreAdj = 1000
)

var (
	cpuList     = regexp.MustCompile(`^[0-9]{1,7}(-[0-9]{1,7})?(,[0-9]{1,7}(-[0-9]{1,7})?)*$`)
	pageSize    = regexp.MustCompile(`^[1-9][0-9]{0,5}[KMG]B$`)
	unifiedName = regexp.MustCompile(`^[a-z][a-z0-9_]*(\.[a-zA-Z0-9_-]+)+$`)
)

// Resources returns the OCI form of in, whose zero values mean "not specified"
// and are left out, so that an update touches only what it names. A nil in
// gives empty resources, never nil. What contradicts itself or the kernel's
// bounds is refused with ErrInvalidArgument, what this machine cannot limit
// with ErrFailedPrecondition; the error names the field below name.
//
// Swap follows the peers: with a memory limit and no swap limit, memory and
// swap together are limited to the memory limit, that is, no swap.
func Resources(name string, in *runtime.LinuxContainerResources, k plan.Kernel) (*oci.LinuxResources, error) {
	out := &oci.LinuxResources{}
	if in == nil {
		return out, nil
	}
	cpu, err := cpuLimits(name, in)
	if err != nil {
		return nil, err
	}
	out.CPU = cpu
	if out.Memory, err = memoryLimits(name, in, k); err != nil {
		return nil, err
	}
	if out.HugepageLimits, err = hugepageLimits(name, in.GetHugepageLimits(), k); err != nil {
		return nil, err
	}
	if out.Unified, err = unified(name+".unified", in.GetUnified(), k); err != nil {
		return nil, err
	}
	if _, err := OOMScoreAdj(name, in, k); err != nil {
		return nil, err
	}
	return out, nil
}

// OOMScoreAdj returns the oom_score_adj asked for, raised to the lowest one the
// kernel lets this process set. Not specified is 0: a container must not
// inherit the shim's protection.
func OOMScoreAdj(name string, in *runtime.LinuxContainerResources, k plan.Kernel) (int, error) {
	adj := in.GetOomScoreAdj()
	if adj < MinOOMScoreAdj || adj > MaxOOMScoreAdj {
		return 0, field.Invalid(name+".oom_score_adj", "must be from %d to %d, got %d", MinOOMScoreAdj, MaxOOMScoreAdj, adj)
	}
	return max(int(adj), k.MinOOMScoreAdj), nil
}

func cpuLimits(name string, in *runtime.LinuxContainerResources) (*oci.LinuxCPU, error) {
	period, quota, shares := in.GetCpuPeriod(), in.GetCpuQuota(), in.GetCpuShares()
	switch {
	case period != 0 && (period < minPeriod || period > maxPeriod):
		return nil, field.Invalid(name+".cpu_period", "must be from %d to %d µs, got %d", minPeriod, maxPeriod, period)
	case quota < -1 || quota > 0 && quota < minQuota:
		return nil, field.Invalid(name+".cpu_quota", "must be -1 (no limit) or at least %d µs, got %d", minQuota, quota)
	case shares < 0 || shares > maxShares:
		return nil, field.Invalid(name+".cpu_shares", "must be from %d to %d, got %d", minShares, maxShares, shares)
	}
	for _, set := range []struct{ name, value string }{
		{name + ".cpuset_cpus", in.GetCpusetCpus()}, {name + ".cpuset_mems", in.GetCpusetMems()},
	} {
		if set.value != "" && (len(set.value) > field.MaxPath || !cpuList.MatchString(set.value)) {
			return nil, field.Invalid(set.name, `must be a list such as "0-3,7", got %q`, field.Short(set.value))
		}
	}
	out := &oci.LinuxCPU{Cpus: in.GetCpusetCpus(), Mems: in.GetCpusetMems()}
	if period != 0 {
		out.Period = ptr(uint64(period))
	}
	if quota != 0 {
		out.Quota = ptr(quota)
	}
	if shares != 0 {
		out.Shares = ptr(uint64(max(shares, minShares)))
	}
	if *out == (oci.LinuxCPU{}) {
		return nil, nil
	}
	return out, nil
}

func memoryLimits(name string, in *runtime.LinuxContainerResources, k plan.Kernel) (*oci.LinuxMemory, error) {
	limit, swap := in.GetMemoryLimitInBytes(), in.GetMemorySwapLimitInBytes()
	switch {
	case limit < -1:
		return nil, field.Invalid(name+".memory_limit_in_bytes", "must be -1 (no limit) or positive, got %d", limit)
	case swap < -1:
		return nil, field.Invalid(name+".memory_swap_limit_in_bytes", "must be -1 (no limit) or positive, got %d", swap)
	case limit > 0 && swap > 0 && swap < limit:
		return nil, field.Invalid(name+".memory_swap_limit_in_bytes",
			"counts memory and swap together and must not be less than the memory limit %d, got %d", limit, swap)
	case limit == -1 && swap > 0:
		return nil, field.Invalid(name+".memory_swap_limit_in_bytes", "cannot be limited (%d) while memory is not", swap)
	}
	if limit == 0 && (swap == 0 || !k.Swap) {
		return nil, nil
	}
	out := &oci.LinuxMemory{}
	if limit != 0 {
		out.Limit = ptr(limit)
	}
	switch {
	case !k.Swap:
	case swap != 0:
		out.Swap = ptr(swap)
	default:
		out.Swap = ptr(limit)
	}
	return out, nil
}

// hugepageLimits keeps the limits of sizes that the kernel has. The kubelet
// names every size it knows with limit 0 for those not asked for, so a 0 for
// an unknown size is nothing; a real one is refused. Without any hugetlb
// controller limits are left out, as the peers do.
func hugepageLimits(name string, in []*runtime.HugepageLimit, k plan.Kernel) ([]oci.LinuxHugepageLimit, error) {
	var out []oci.LinuxHugepageLimit
	for i, l := range in {
		at := field.At(name+".hugepage_limits", i) + ".page_size"
		size := l.GetPageSize()
		switch known := slices.Contains(k.HugepageSizes, size); {
		case !pageSize.MatchString(size):
			return nil, field.Invalid(at, `must be a size such as "2MB" or "1GB", got %q`, field.Short(size))
		case known:
			out = append(out, oci.LinuxHugepageLimit{Pagesize: size, Limit: l.GetLimit()})
		case l.GetLimit() > 0 && len(k.HugepageSizes) > 0:
			return nil, field.Unsupported(at, "this kernel has no huge pages of %s, only %s", size, strings.Join(k.HugepageSizes, ", "))
		}
	}
	return out, nil
}

// unified checks raw cgroup v2 files and values: the runtime writes them as
// they are, so a key is one file name of a controller and nothing else.
func unified(name string, in map[string]string, k plan.Kernel) (map[string]string, error) {
	if len(in) == 0 {
		return nil, nil
	}
	if !k.CgroupV2 {
		return nil, field.Unsupported(name, "needs cgroup v2, this node has v1")
	}
	out := make(map[string]string, len(in))
	for key, value := range in {
		if len(key) > 255 || !unifiedName.MatchString(key) || strings.HasPrefix(key, "cgroup.") {
			return nil, field.Invalid(name, `key must be a controller's file such as "memory.high", got %q`, field.Short(key))
		}
		if strings.ContainsRune(value, 0) || len(value) > field.MaxPath {
			return nil, field.Invalid(field.Key(name, key), "must be short text without NUL, got %q", field.Short(value))
		}
		out[key] = value
	}
	return out, nil
}

func ptr[T any](v T) *T { return &v }
