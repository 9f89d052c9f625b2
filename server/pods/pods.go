package pods

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/failpoint"
	"github.com/crid-project/crid/sandbox"
	"github.com/crid-project/crid/sandbox/plan"
	"github.com/crid-project/crid/server/chunk"
	"github.com/crid-project/crid/server/status"
	"github.com/crid-project/crid/server/validate"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
	"github.com/crid-project/crid/streaming"
)

// Hands do the work. Each is idempotent; a context ends the waiting, not the work.
type Hands interface {
	// Run makes the pod, or joins the making of one with the same name.
	Run(context.Context, sandbox.RunRequest) (id string, err error)
	Stop(ctx context.Context, id string) error
	Remove(ctx context.Context, id string) error
	// UpdateResources sets pod-level limits; nil leaves that part as it is.
	UpdateResources(ctx context.Context, id string, overhead, resources *oci.LinuxResources) error
}

// Specs opens and seals configurations; sandbox/spec and container/spec do.
type Specs interface {
	// SealPod checks a configuration for a runtime handler and says what it
	// asks of the hands. Errors name the field.
	SealPod(handler string, c *cri.PodSandboxConfig) (store.Sealed, *plan.Pod, error)
	// Limits turns CRI limits into OCI's; nil stays nil. Errors name the field.
	Limits(handler, field string, in *cri.LinuxContainerResources) (*oci.LinuxResources, error)
}

// Streams answers URLs; *streaming.Server does.
type Streams interface {
	PortForward(streaming.PortForwardMessage) (url string, err error)
}

// Announcer is told of pods that came, stopped and went.
type Announcer interface {
	Pod(kind lifecycle.Notice, p *store.Pod)
}

// Deps are what a [Pods] needs; all are required but Announce.
type Deps struct {
	Ledger status.Ledger
	Hands  Hands
	Specs  Specs
	Names  status.Names
	// Handler answers the name of the runtime handler that is asked for, ""
	// being the default; false if there is none.
	Handler func(name string) (string, bool)
	// Streams answers URLs for port forwarding; ids are complete.
	Streams  Streams
	Announce Announcer
}

// Pods implements the pod sandbox calls of CRI's RuntimeService. Requests must
// have passed validate.Request.
type Pods struct{ d Deps }

// New makes a [Pods].
func New(d Deps) *Pods { return &Pods{d} }

// find answers a pod that CRI shows.
func (s *Pods) find(id string) (*store.Pod, error) {
	p, err := s.d.Ledger.Pod(id)
	if err != nil {
		return nil, err
	}
	if !p.State.Visible() {
		return nil, fmt.Errorf("pod sandbox %s: %w", id, errdefs.ErrNotFound)
	}
	return p, nil
}

func (s *Pods) announce(kind lifecycle.Notice, p *store.Pod) {
	if s.d.Announce != nil && p != nil {
		s.d.Announce.Pod(kind, p)
	}
}

// RunPodSandbox makes and starts a pod. A retry with the same name joins.
func (s *Pods) RunPodSandbox(ctx context.Context, r *cri.RunPodSandboxRequest) (*cri.RunPodSandboxResponse, error) {
	handler, ok := s.d.Handler(r.GetRuntimeHandler())
	if !ok {
		return nil, validate.Bad("runtime_handler", "%q cannot be used: either it is not configured as [runtimes.%s], or its shim or OCI runtime is missing (crid check says which); Status lists those that can", r.GetRuntimeHandler(), r.GetRuntimeHandler())
	}
	sealed, plan, err := s.d.Specs.SealPod(handler, r.GetConfig())
	if err != nil {
		return nil, err
	}
	id, err := s.d.Hands.Run(ctx, sandbox.RunRequest{Config: sealed, Plan: plan, Handler: handler})
	if err != nil {
		return nil, err
	}
	if p, err := s.d.Ledger.Pod(id); err == nil {
		s.announce(lifecycle.NoticeCreated, p)
		s.announce(lifecycle.NoticeStarted, p)
	}
	if err := failpoint.At("p17"); err != nil {
		return nil, err
	}
	if err := failpoint.Sending("p18"); err != nil {
		return nil, err
	}
	return &cri.RunPodSandboxResponse{PodSandboxId: id}, nil
}

// StopPodSandbox ends a pod's containers and frees its network. A pod that is
// not there is stopped.
func (s *Pods) StopPodSandbox(ctx context.Context, r *cri.StopPodSandboxRequest) (*cri.StopPodSandboxResponse, error) {
	p, err := s.d.Ledger.Pod(r.GetPodSandboxId())
	if err == nil {
		before := p.State.Phase
		if err = s.d.Hands.Stop(ctx, p.ID); err == nil && before < lifecycle.Stopped && before != lifecycle.Broken { // what broke was told then
			if now, gone := s.d.Ledger.Pod(p.ID); gone == nil {
				s.announce(lifecycle.NoticeStopped, now)
			}
		}
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return nil, err
	}
	return &cri.StopPodSandboxResponse{}, nil
}

// RemovePodSandbox stops a pod if need be and removes it with its containers.
// A pod that is not there is removed.
func (s *Pods) RemovePodSandbox(ctx context.Context, r *cri.RemovePodSandboxRequest) (*cri.RemovePodSandboxResponse, error) {
	p, err := s.d.Ledger.Pod(r.GetPodSandboxId())
	if err == nil {
		if err = s.d.Hands.Remove(ctx, p.ID); err == nil {
			last := *p
			last.State.Phase, last.IPs = lifecycle.PodGone, nil
			s.announce(lifecycle.NoticeDeleted, &last)
		}
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return nil, err
	}
	return &cri.RemovePodSandboxResponse{}, nil
}

// PodSandboxStatus answers a pod and its containers from one snapshot.
func (s *Pods) PodSandboxStatus(_ context.Context, r *cri.PodSandboxStatusRequest) (*cri.PodSandboxStatusResponse, error) {
	p, err := s.find(r.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	members := status.Members(s.d.Ledger, p.ID)
	resp := &cri.PodSandboxStatusResponse{Status: status.Pod(p), Timestamp: status.Timestamp(time.Now().UnixNano(), p, members)}
	for _, c := range members {
		resp.ContainersStatuses = append(resp.ContainersStatuses, status.Container(c, s.d.Names))
	}
	if r.GetVerbose() {
		resp.Info = status.PodInfo(p)
	}
	return resp, nil
}

func (s *Pods) list(f *cri.PodSandboxFilter) []*cri.PodSandbox {
	pods := status.Pods(s.d.Ledger, status.PodFilter(f))
	items := make([]*cri.PodSandbox, len(pods))
	for i, p := range pods {
		items[i] = status.PodItem(p)
	}
	return items
}

// ListPodSandbox answers the pods that the filter wants, the newest first.
func (s *Pods) ListPodSandbox(_ context.Context, r *cri.ListPodSandboxRequest) (*cri.ListPodSandboxResponse, error) {
	return &cri.ListPodSandboxResponse{Items: s.list(r.GetFilter())}, nil
}

// StreamPodSandboxes is ListPodSandbox in chunks.
func (s *Pods) StreamPodSandboxes(r *cri.StreamPodSandboxesRequest, stream grpc.ServerStreamingServer[cri.StreamPodSandboxesResponse]) error {
	return chunk.Send(s.list(r.GetFilter()), func(items []*cri.PodSandbox) error {
		return stream.Send(&cri.StreamPodSandboxesResponse{PodSandboxes: items})
	})
}

// UpdatePodSandboxResources sets the limits of the whole pod.
func (s *Pods) UpdatePodSandboxResources(ctx context.Context, r *cri.UpdatePodSandboxResourcesRequest) (*cri.UpdatePodSandboxResourcesResponse, error) {
	p, err := s.find(r.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	overhead, err := s.d.Specs.Limits(p.Handler, "overhead", r.GetOverhead())
	if err != nil {
		return nil, err
	}
	resources, err := s.d.Specs.Limits(p.Handler, "resources", r.GetResources())
	if err != nil {
		return nil, err
	}
	if err := s.d.Hands.UpdateResources(ctx, p.ID, overhead, resources); err != nil {
		return nil, err
	}
	return &cri.UpdatePodSandboxResourcesResponse{}, nil
}

// PortForward answers where to connect to reach ports of a ready pod.
func (s *Pods) PortForward(_ context.Context, r *cri.PortForwardRequest) (*cri.PortForwardResponse, error) {
	p, err := s.find(r.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	if p.State.Phase != lifecycle.Ready {
		return nil, fmt.Errorf("pod sandbox %s is %s, ports can be forwarded only to a ready one: %w", p.ID, p.State.Phase, errdefs.ErrFailedPrecondition)
	}
	url, err := s.d.Streams.PortForward(&cri.PortForwardRequest{PodSandboxId: p.ID, Port: r.GetPort()})
	if err != nil {
		return nil, err
	}
	return &cri.PortForwardResponse{Url: url}, nil
}
