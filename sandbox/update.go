package sandbox

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	oci "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/crid-project/crid/container/cgroup"
	"github.com/crid-project/crid/store/lifecycle"
)

// UpdateResources sets the limits of the pod's own cgroup: what its containers
// may use together, and the overhead on top. Nil leaves that part as it is.
func (p *Pods) UpdateResources(_ context.Context, id string, overhead, resources *oci.LinuxResources) error {
	v, err := p.Ledger.Pod(id)
	if err != nil {
		return err
	}
	if v.State.Phase != lifecycle.Ready {
		return fmt.Errorf("update pod sandbox %s: it is %s: %w", v.ID, v.State.Phase, errdefs.ErrFailedPrecondition)
	}
	if resources == nil {
		return nil // overhead alone is a part of a sum that is not known here
	}
	if err := cgroup.Load(v.Cgroup).Set(sum(resources, overhead)); err != nil {
		return fmt.Errorf("update pod sandbox %s: %w", v.ID, err)
	}
	return nil
}

// sum adds the overhead to limits that are set.
func sum(r, overhead *oci.LinuxResources) *oci.LinuxResources {
	if overhead == nil {
		return r
	}
	out := *r
	if r.Memory != nil && overhead.Memory != nil {
		m := *r.Memory
		m.Limit = add(m.Limit, overhead.Memory.Limit)
		m.Swap = add(m.Swap, overhead.Memory.Limit)
		out.Memory = &m
	}
	if r.CPU != nil && overhead.CPU != nil {
		c := *r.CPU
		if samePeriod(c.Period, overhead.CPU.Period) {
			c.Quota = add(c.Quota, overhead.CPU.Quota)
		}
		if c.Shares != nil && overhead.CPU.Shares != nil {
			s := *c.Shares + *overhead.CPU.Shares
			c.Shares = &s
		}
		out.CPU = &c
	}
	return &out
}

func samePeriod(a, b *uint64) bool { return a != nil && b != nil && *a == *b }

// add adds to a limit; none (nil, 0 or below) stays none.
func add(a, b *int64) *int64 {
	if a == nil || b == nil || *a <= 0 || *b <= 0 {
		return a
	}
	s := *a + *b
	return &s
}
