package stats

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/server/chunk"
	"github.com/crid-project/crid/server/status"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

// Deps are what a [Stats] needs.
type Deps struct {
	Ledger status.Ledger
	Source Source
	Names  status.Names
	// Deadline is how long one container or pod may take; 0 is 2 s.
	Deadline time.Duration
}

// Stats implements the statistics and metrics calls of CRI's RuntimeService.
// Requests must have passed validate.Request.
type Stats struct {
	d       Deps
	readers readers
	past    memory
}

// New makes a [Stats].
func New(d Deps) *Stats {
	if d.Deadline <= 0 {
		d.Deadline = defaultDeadline
	}
	return &Stats{d: d, readers: readers{deadline: d.Deadline, left: map[string]*abandoned{}}, past: memory{kept: map[string]*past{}}}
}

// Forget drops what is remembered of a container or pod that was removed.
func (s *Stats) Forget(id string) { s.past.Forget(id) }

// Stuck answers how many reads were given up and still hang.
func (s *Stats) Stuck() int { return s.readers.Stuck() }

// sweep drops what is remembered of what is no more: removals that happened
// without a RemoveContainer (with their pod) end here.
func (s *Stats) sweep() {
	pods, containers := s.d.Ledger.Pods(), s.d.Ledger.Containers()
	if s.past.size() <= len(pods)+len(containers) {
		return
	}
	s.past.Keep(func(yield func(string)) {
		for _, p := range pods {
			yield(p.ID)
		}
		for _, c := range containers {
			yield(c.ID)
		}
	})
}

func containerKey(c *store.Container) string { return "container " + c.ID }
func podKey(p *store.Pod) string             { return "pod sandbox " + p.ID }

func isRunning(c *store.Container) bool { return c.State.Phase == lifecycle.Running }

// ContainerStats answers one container. One that does not run has only its
// attributes and its writable layer.
func (s *Stats) ContainerStats(ctx context.Context, r *cri.ContainerStatsRequest) (*cri.ContainerStatsResponse, error) {
	c, err := s.d.Ledger.Container(r.GetContainerId())
	if err == nil && !c.State.Visible() {
		err = fmt.Errorf("container %s: %w", r.GetContainerId(), errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	st, err := one(ctx, &s.readers, containerKey(c), func(ctx context.Context) (*cri.ContainerStats, error) { return s.container(ctx, c) })
	if err != nil {
		return nil, err
	}
	return &cri.ContainerStatsResponse{Stats: st}, nil
}

func (s *Stats) listContainers(ctx context.Context, f *cri.ContainerStatsFilter) []*cri.ContainerStats {
	s.sweep()
	keep := status.ContainerStatsFilter(f)
	running := status.Containers(s.d.Ledger, func(c *store.Container) bool { return isRunning(c) && (keep == nil || keep(c)) })
	return each(ctx, &s.readers, running, containerKey, s.container)
}

// ListContainerStats answers all running containers that the filter wants; one
// that cannot be read is left out.
func (s *Stats) ListContainerStats(ctx context.Context, r *cri.ListContainerStatsRequest) (*cri.ListContainerStatsResponse, error) {
	st := s.listContainers(ctx, r.GetFilter())
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return &cri.ListContainerStatsResponse{Stats: st}, nil
}

// StreamContainerStats is ListContainerStats in chunks.
func (s *Stats) StreamContainerStats(r *cri.StreamContainerStatsRequest, stream grpc.ServerStreamingServer[cri.StreamContainerStatsResponse]) error {
	st := s.listContainers(stream.Context(), r.GetFilter())
	if err := stream.Context().Err(); err != nil {
		return err
	}
	return chunk.Send(st, func(items []*cri.ContainerStats) error {
		return stream.Send(&cri.StreamContainerStatsResponse{ContainerStats: items})
	})
}

// PodSandboxStats answers one pod with its running containers.
func (s *Stats) PodSandboxStats(ctx context.Context, r *cri.PodSandboxStatsRequest) (*cri.PodSandboxStatsResponse, error) {
	p, err := s.d.Ledger.Pod(r.GetPodSandboxId())
	if err == nil && !p.State.Visible() {
		err = fmt.Errorf("pod sandbox %s: %w", r.GetPodSandboxId(), errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	st, err := one(ctx, &s.readers, podKey(p), func(ctx context.Context) (*cri.PodSandboxStats, error) { return s.pod(ctx, p) })
	if err != nil {
		return nil, err
	}
	st.Linux.Containers = s.members(ctx, p)
	return &cri.PodSandboxStatsResponse{Stats: st}, nil
}

func (s *Stats) members(ctx context.Context, p *store.Pod) []*cri.ContainerStats {
	running := status.Shown(s.d.Ledger.Members(p.ID), isRunning)
	return each(ctx, &s.readers, running, containerKey, s.container)
}

// listPods reads pods and containers in two rounds, so that the one stuck
// container of a pod takes neither the pod's numbers nor its siblings'.
func (s *Stats) listPods(ctx context.Context, f *cri.PodSandboxStatsFilter) []*cri.PodSandboxStats {
	s.sweep()
	keep := status.PodStatsFilter(f)
	ready := status.Pods(s.d.Ledger, func(p *store.Pod) bool { return p.State.Phase == lifecycle.Ready && (keep == nil || keep(p)) })
	pods := each(ctx, &s.readers, ready, podKey, s.pod)
	byID := make(map[string]*cri.PodSandboxStats, len(pods))
	for _, p := range pods {
		byID[p.Attributes.Id] = p
	}
	running := status.Containers(s.d.Ledger, func(c *store.Container) bool { return isRunning(c) && byID[c.PodID] != nil })
	type member struct {
		pod string
		st  *cri.ContainerStats
	}
	for _, m := range each(ctx, &s.readers, running, containerKey, func(ctx context.Context, c *store.Container) (member, error) {
		st, err := s.container(ctx, c)
		return member{c.PodID, st}, err
	}) {
		l := byID[m.pod].Linux
		l.Containers = append(l.Containers, m.st)
	}
	return pods
}

// ListPodSandboxStats answers all ready pods that the filter wants; one that
// cannot be read is left out.
func (s *Stats) ListPodSandboxStats(ctx context.Context, r *cri.ListPodSandboxStatsRequest) (*cri.ListPodSandboxStatsResponse, error) {
	st := s.listPods(ctx, r.GetFilter())
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return &cri.ListPodSandboxStatsResponse{Stats: st}, nil
}

// StreamPodSandboxStats is ListPodSandboxStats in chunks.
func (s *Stats) StreamPodSandboxStats(r *cri.StreamPodSandboxStatsRequest, stream grpc.ServerStreamingServer[cri.StreamPodSandboxStatsResponse]) error {
	st := s.listPods(stream.Context(), r.GetFilter())
	if err := stream.Context().Err(); err != nil {
		return err
	}
	return chunk.Send(st, func(items []*cri.PodSandboxStats) error {
		return stream.Send(&cri.StreamPodSandboxStatsResponse{PodSandboxStats: items})
	})
}
