package containers

import (
	"context"

	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/server/chunk"
	"github.com/crid-project/crid/server/status"
)

func (s *Containers) list(f *cri.ContainerFilter) []*cri.Container {
	all := status.Containers(s.d.Ledger, status.ContainerFilter(f))
	items := make([]*cri.Container, len(all))
	for i, c := range all {
		items[i] = status.ContainerItem(c, s.d.Names)
	}
	return items
}

// ListContainers answers the containers that the filter wants, the newest first.
func (s *Containers) ListContainers(_ context.Context, r *cri.ListContainersRequest) (*cri.ListContainersResponse, error) {
	return &cri.ListContainersResponse{Containers: s.list(r.GetFilter())}, nil
}

// StreamContainers is ListContainers in chunks.
func (s *Containers) StreamContainers(r *cri.StreamContainersRequest, stream grpc.ServerStreamingServer[cri.StreamContainersResponse]) error {
	return chunk.Send(s.list(r.GetFilter()), func(items []*cri.Container) error {
		return stream.Send(&cri.StreamContainersResponse{Containers: items})
	})
}

// ContainerStatus answers one container.
func (s *Containers) ContainerStatus(_ context.Context, r *cri.ContainerStatusRequest) (*cri.ContainerStatusResponse, error) {
	c, err := s.find(r.GetContainerId())
	if err != nil {
		return nil, err
	}
	resp := &cri.ContainerStatusResponse{Status: status.Container(c, s.d.Names)}
	if r.GetVerbose() {
		pod, _ := s.d.Ledger.Pod(c.PodID)
		resp.Info = status.ContainerInfo(c, pod, s.d.Bundle(c.ID))
	}
	return resp, nil
}
