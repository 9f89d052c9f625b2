package stats

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/server/chunk"
	"github.com/crid-project/crid/server/status"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

// ListMetricDescriptors answers what ListPodSandboxMetrics can answer. It never
// changes.
func (s *Stats) ListMetricDescriptors(context.Context, *cri.ListMetricDescriptorsRequest) (*cri.ListMetricDescriptorsResponse, error) {
	resp := &cri.ListMetricDescriptorsResponse{}
	for _, m := range table {
		resp.Descriptors = append(resp.Descriptors, &cri.MetricDescriptor{
			Name: m.name, Help: m.help, LabelKeys: slices.Concat(baseLabels, m.labels),
		})
	}
	return resp, nil
}

// metrics turns a reading into its series. They are live, so they carry no time.
func metrics(r *reading) []*cri.Metric {
	out := make([]*cri.Metric, 0, len(table))
	for i := range table {
		m := &table[i]
		m.of(r, func(v uint64, labels ...string) {
			all := r.base // shared: messages are only read from here on
			if len(labels) > 0 {
				all = slices.Concat(r.base, labels)
			}
			out = append(out, &cri.Metric{Name: m.name, MetricType: m.kind, LabelValues: all, Value: value(v)})
		})
	}
	return out
}

// podMetrics reads a pod's own series.
func (s *Stats) podMetrics(ctx context.Context, p *store.Pod) (*cri.PodSandboxMetrics, error) {
	r := &reading{
		pod: true, now: time.Now(), created: p.CreatedAt, started: p.CreatedAt,
		base: []string{"", p.Cgroup, "", p.ID, p.Name.Namespace, p.Name.Name},
	}
	if p.Cgroup != "" {
		r.cgroup, _ = s.d.Source.Cgroup(ctx, p.Cgroup)
	}
	if p.NetNS != "" {
		all, _ := s.d.Source.Network(ctx, p.NetNS)
		r.interfaces = slices.DeleteFunc(all, func(i Interface) bool { return i.Loopback }) // as cadvisor does
	}
	return &cri.PodSandboxMetrics{PodSandboxId: p.ID, Metrics: metrics(r)}, ctx.Err()
}

// containerMetrics reads a container's series; p is its pod.
func (s *Stats) containerMetrics(ctx context.Context, p *store.Pod, c *store.Container) (*cri.ContainerMetrics, error) {
	cfg := status.ContainerConfig(c.Config)
	r := &reading{
		now: time.Now(), created: c.CreatedAt, started: c.StartedAt,
		base:   []string{c.Name.Name, c.Cgroup, status.ContainerItem(c, s.d.Names).GetImage().GetImage(), c.ID, p.Name.Namespace, p.Name.Name},
		limits: cfg.GetLinux().GetResources(),
	}
	if c.Cgroup != "" {
		r.cgroup, _ = s.d.Source.Cgroup(ctx, c.Cgroup)
		if files, sockets, err := s.d.Source.Handles(ctx, c.Cgroup); err == nil {
			r.handles = &handles{files: files, sockets: sockets}
			r.handles.soft, _ = s.d.Source.OpenFiles(c.Init.Pid)
		}
	}
	if l, _, ok := s.measure(ctx, c.ID); ok {
		r.layer = &l
		r.disk, _ = s.d.Source.Disk(ctx)
	}
	return &cri.ContainerMetrics{ContainerId: c.ID, Metrics: metrics(r)}, ctx.Err()
}

func (s *Stats) allMetrics(ctx context.Context) []*cri.PodSandboxMetrics {
	s.sweep()
	ready := status.Pods(s.d.Ledger, func(p *store.Pod) bool { return p.State.Phase == lifecycle.Ready })
	byID := make(map[string]*store.Pod, len(ready))
	for _, p := range ready {
		byID[p.ID] = p
	}
	pods := each(ctx, &s.readers, ready, podKey, s.podMetrics)
	answers := make(map[string]*cri.PodSandboxMetrics, len(pods))
	for _, m := range pods {
		answers[m.PodSandboxId] = m
	}
	running := status.Containers(s.d.Ledger, func(c *store.Container) bool { return isRunning(c) && answers[c.PodID] != nil })
	type member struct {
		pod string
		m   *cri.ContainerMetrics
	}
	for _, m := range each(ctx, &s.readers, running, containerKey, func(ctx context.Context, c *store.Container) (member, error) {
		cm, err := s.containerMetrics(ctx, byID[c.PodID], c)
		return member{c.PodID, cm}, err
	}) {
		a := answers[m.pod]
		a.ContainerMetrics = append(a.ContainerMetrics, m.m)
	}
	return pods
}

// ListPodSandboxMetrics answers the series of all ready pods and their running
// containers; what cannot be read is left out.
func (s *Stats) ListPodSandboxMetrics(ctx context.Context, _ *cri.ListPodSandboxMetricsRequest) (*cri.ListPodSandboxMetricsResponse, error) {
	m := s.allMetrics(ctx)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return &cri.ListPodSandboxMetricsResponse{PodMetrics: m}, nil
}

// StreamPodSandboxMetrics is ListPodSandboxMetrics in chunks.
func (s *Stats) StreamPodSandboxMetrics(_ *cri.StreamPodSandboxMetricsRequest, stream grpc.ServerStreamingServer[cri.StreamPodSandboxMetricsResponse]) error {
	m := s.allMetrics(stream.Context())
	if err := stream.Context().Err(); err != nil {
		return err
	}
	return chunk.Send(m, func(items []*cri.PodSandboxMetrics) error {
		return stream.Send(&cri.StreamPodSandboxMetricsResponse{PodSandboxMetrics: items})
	})
}
