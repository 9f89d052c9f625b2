package containers

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/container"
	"github.com/crid-project/crid/server/status"
	"github.com/crid-project/crid/store/lifecycle"
)

// UpdateContainerResources changes the limits of a created or running
// container. Fields that are not set stay as they are.
func (s *Containers) UpdateContainerResources(ctx context.Context, r *cri.UpdateContainerResourcesRequest) (*cri.UpdateContainerResourcesResponse, error) {
	c, err := s.find(r.GetContainerId())
	if err != nil {
		return nil, err
	}
	if c.State.Phase >= lifecycle.Exited {
		return nil, fmt.Errorf("container %s is %s, resources can be updated only before that: %w", c.ID, c.State.Phase, errdefs.ErrFailedPrecondition)
	}
	p, err := s.d.Ledger.Pod(c.PodID)
	if err != nil {
		return nil, err
	}
	old := status.ContainerConfig(c.Config)
	if old == nil {
		return nil, fmt.Errorf("update container %s: its configuration cannot be read: %w", c.ID, errdefs.ErrInternal)
	}
	merged := proto.CloneOf(old)
	if r.GetLinux() != nil {
		if merged.Linux == nil {
			merged.Linux = &cri.LinuxContainerConfig{}
		}
		merged.Linux.Resources = Merge(merged.Linux.GetResources(), r.GetLinux())
	}
	sealed, _, err := s.d.Specs.SealContainer(p.Handler, status.PodConfig(p.Config), merged)
	if err != nil {
		return nil, err
	}
	limits, err := s.d.Specs.Limits(p.Handler, "linux", r.GetLinux())
	if err != nil {
		return nil, err
	}
	before, err := s.d.Specs.Limits(p.Handler, "linux", old.GetLinux().GetResources())
	if err != nil {
		return nil, err
	}
	if err := s.d.Hands.UpdateResources(ctx, c.ID, container.Update{Resources: limits, Before: before, Annotations: r.GetAnnotations(), Config: sealed}); err != nil {
		return nil, err
	}
	return &cri.UpdateContainerResourcesResponse{}, nil
}

// Merge answers old with every field that change sets: CRI's zero values mean
// "not specified" (api.proto, LinuxContainerResources). Hugepage limits are
// merged by page size, unified ones by key. Neither argument is changed.
func Merge(old, change *cri.LinuxContainerResources) *cri.LinuxContainerResources {
	if old == nil {
		return proto.CloneOf(change)
	}
	out := proto.CloneOf(old)
	set := func(dst *int64, v int64) {
		if v != 0 {
			*dst = v
		}
	}
	set(&out.CpuPeriod, change.GetCpuPeriod())
	set(&out.CpuQuota, change.GetCpuQuota())
	set(&out.CpuShares, change.GetCpuShares())
	set(&out.MemoryLimitInBytes, change.GetMemoryLimitInBytes())
	set(&out.MemorySwapLimitInBytes, change.GetMemorySwapLimitInBytes())
	set(&out.OomScoreAdj, change.GetOomScoreAdj())
	if v := change.GetCpusetCpus(); v != "" {
		out.CpusetCpus = v
	}
	if v := change.GetCpusetMems(); v != "" {
		out.CpusetMems = v
	}
	for _, h := range change.GetHugepageLimits() {
		out.HugepageLimits = mergeHugepage(out.HugepageLimits, h)
	}
	for k, v := range change.GetUnified() {
		if out.Unified == nil {
			out.Unified = map[string]string{}
		}
		out.Unified[k] = v
	}
	return out
}

func mergeHugepage(limits []*cri.HugepageLimit, h *cri.HugepageLimit) []*cri.HugepageLimit {
	for _, l := range limits {
		if l.GetPageSize() == h.GetPageSize() {
			l.Limit = h.GetLimit()
			return limits
		}
	}
	return append(limits, proto.CloneOf(h))
}
