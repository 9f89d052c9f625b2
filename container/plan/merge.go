package plan

import oci "github.com/opencontainers/runtime-spec/specs-go"

// MergeResources answers old with what change sets put over it. Neither is
// touched; a nil one counts as empty.
func MergeResources(old, change *oci.LinuxResources) *oci.LinuxResources {
	if change == nil {
		return old
	}
	if old == nil {
		return change
	}
	out := *old
	if c := change.CPU; c != nil {
		cpu := oci.LinuxCPU{}
		if old.CPU != nil {
			cpu = *old.CPU
		}
		over(&cpu.Shares, c.Shares)
		over(&cpu.Quota, c.Quota)
		over(&cpu.Period, c.Period)
		over(&cpu.Burst, c.Burst)
		overString(&cpu.Cpus, c.Cpus)
		overString(&cpu.Mems, c.Mems)
		out.CPU = &cpu
	}
	if m := change.Memory; m != nil {
		mem := oci.LinuxMemory{}
		if old.Memory != nil {
			mem = *old.Memory
		}
		over(&mem.Limit, m.Limit)
		over(&mem.Swap, m.Swap)
		over(&mem.Reservation, m.Reservation)
		out.Memory = &mem
	}
	if len(change.HugepageLimits) > 0 {
		out.HugepageLimits = change.HugepageLimits
	}
	if change.Pids != nil {
		out.Pids = change.Pids
	}
	if len(change.Unified) > 0 {
		out.Unified = map[string]string{}
		for k, v := range old.Unified {
			out.Unified[k] = v
		}
		for k, v := range change.Unified {
			out.Unified[k] = v
		}
	}
	return &out
}

func over[T any](to **T, from *T) {
	if from != nil {
		*to = from
	}
}

func overString(to *string, from string) {
	if from != "" {
		*to = from
	}
}
