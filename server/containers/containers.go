package containers

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/container"
	"github.com/crid-project/crid/container/plan"
	"github.com/crid-project/crid/container/stdio"
	"github.com/crid-project/crid/failpoint"
	"github.com/crid-project/crid/server/status"
	"github.com/crid-project/crid/server/validate"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
	"github.com/crid-project/crid/streaming"
)

// Hands do the work. Each is idempotent; a context ends the waiting, not the work.
type Hands interface {
	// Create makes the container, or joins the making of one with the same
	// name and attempt in the same pod.
	Create(context.Context, container.CreateRequest) (id string, err error)
	Start(ctx context.Context, id string) error
	Stop(ctx context.Context, id string, grace time.Duration) error
	Remove(ctx context.Context, id string) error
	// UpdateResources applies limits, and keeps the configuration (which has
	// them merged in) as the container's from then on.
	UpdateResources(ctx context.Context, id string, u container.Update) error
	ReopenLog(ctx context.Context, id string) error
	// Exec runs a command to its end.
	Exec(ctx context.Context, id string, r stdio.ExecRequest) (exitCode int, err error)
}

// Specs opens and seals configurations; container/spec does.
type Specs interface {
	// SealContainer checks a configuration against its pod's and its runtime
	// handler, and says what it asks of the hands. Errors name the field.
	SealContainer(handler string, pod *cri.PodSandboxConfig, c *cri.ContainerConfig) (store.Sealed, *plan.Container, error)
	// Limits turns CRI limits into OCI's; nil stays nil. Errors name the field.
	Limits(handler, field string, in *cri.LinuxContainerResources) (*oci.LinuxResources, error)
}

// Streams answers URLs for interactive calls, whose ids are complete;
// *streaming.Server does.
type Streams interface {
	Exec(streaming.ExecMessage) (url string, err error)
	Attach(streaming.AttachMessage) (url string, err error)
}

// Deps are what a [Containers] needs; all are required but Removed.
type Deps struct {
	Ledger  status.Ledger
	Hands   Hands
	Specs   Specs
	Streams Streams
	Names   status.Names
	// Bundle is the bundle directory of a container.
	Bundle func(id string) string
	// Removed is told of containers that are gone.
	Removed func(id string)
	// MaxExecSync is how many bytes of each output ExecSync keeps; 0, and
	// whatever is more, means the most that an answer can have.
	MaxExecSync int
}

// Containers implements the container calls of CRI's RuntimeService. Requests
// must have passed validate.Request.
type Containers struct{ d Deps }

// New makes a [Containers].
func New(d Deps) *Containers { return &Containers{d} }

// find answers a container that CRI shows.
func (s *Containers) find(id string) (*store.Container, error) {
	c, err := s.d.Ledger.Container(id)
	if err != nil {
		return nil, err
	}
	if !c.State.Visible() {
		return nil, fmt.Errorf("container %s: %w", id, errdefs.ErrNotFound)
	}
	return c, nil
}

// CreateContainer makes a container in a ready pod. A retry with the same name
// and attempt joins.
func (s *Containers) CreateContainer(ctx context.Context, r *cri.CreateContainerRequest) (*cri.CreateContainerResponse, error) {
	p, err := s.d.Ledger.Pod(r.GetPodSandboxId())
	if err == nil && !p.State.Visible() {
		err = fmt.Errorf("pod sandbox %s: %w", r.GetPodSandboxId(), errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	if p.State.Phase != lifecycle.Ready {
		return nil, fmt.Errorf("pod sandbox %s is %s, containers can be created only in a ready one: %w", p.ID, p.State.Phase, errdefs.ErrFailedPrecondition)
	}
	if err := samePod(r.GetSandboxConfig(), p); err != nil {
		return nil, err
	}
	sealed, plan, err := s.d.Specs.SealContainer(p.Handler, status.PodConfig(p.Config), r.GetConfig())
	if err != nil {
		return nil, err
	}
	md := r.GetConfig().GetMetadata()
	id, err := s.d.Hands.Create(ctx, container.CreateRequest{
		PodID: p.ID, Name: store.ContainerName{Name: md.GetName(), Attempt: md.GetAttempt()}, Config: sealed, Plan: plan,
	})
	if err != nil {
		return nil, err
	}
	if err := failpoint.Sending("c9"); err != nil {
		return nil, err
	}
	return &cri.CreateContainerResponse{ContainerId: id}, nil
}

// samePod refuses a sandbox_config that is another pod's. CRI sends the pod's
// own again "for easy reference"; the one on record is what counts.
func samePod(c *cri.PodSandboxConfig, p *store.Pod) error {
	md := c.GetMetadata()
	if md != nil && (md.GetUid() != p.Name.UID || md.GetName() != p.Name.Name || md.GetNamespace() != p.Name.Namespace) {
		return validate.Bad("sandbox_config.metadata", "names another pod than pod_sandbox_id")
	}
	return nil
}

// StartContainer starts a created container. A second call joins or finds it done.
func (s *Containers) StartContainer(ctx context.Context, r *cri.StartContainerRequest) (*cri.StartContainerResponse, error) {
	c, err := s.find(r.GetContainerId())
	if err != nil {
		return nil, err
	}
	if err := s.d.Hands.Start(ctx, c.ID); err != nil {
		return nil, err
	}
	if err := failpoint.Sending("s10"); err != nil {
		return nil, err
	}
	return &cri.StartContainerResponse{}, nil
}

// StopContainer ends a container: its stop signal, the grace period, SIGKILL.
// One that is not there is stopped. A further call joins, and can only shorten
// the grace period.
func (s *Containers) StopContainer(ctx context.Context, r *cri.StopContainerRequest) (*cri.StopContainerResponse, error) {
	c, err := s.d.Ledger.Container(r.GetContainerId())
	if err == nil {
		err = s.d.Hands.Stop(ctx, c.ID, validate.Seconds(r.GetTimeout()))
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return nil, err
	}
	return &cri.StopContainerResponse{}, nil
}

// RemoveContainer removes a container, killing it first if it runs. One that
// is not there is removed.
func (s *Containers) RemoveContainer(ctx context.Context, r *cri.RemoveContainerRequest) (*cri.RemoveContainerResponse, error) {
	c, err := s.d.Ledger.Container(r.GetContainerId())
	if err == nil {
		if err = s.d.Hands.Remove(ctx, c.ID); err == nil && s.d.Removed != nil {
			s.d.Removed(c.ID)
		}
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return nil, err
	}
	return &cri.RemoveContainerResponse{}, nil
}

// ReopenContainerLog makes a new log file after a rotation. Only a running
// container writes one; for others CRI lets us refuse.
func (s *Containers) ReopenContainerLog(ctx context.Context, r *cri.ReopenContainerLogRequest) (*cri.ReopenContainerLogResponse, error) {
	c, err := s.running(r.GetContainerId(), "its log can be reopened")
	if err != nil {
		return nil, err
	}
	if err := s.d.Hands.ReopenLog(ctx, c.ID); err != nil {
		return nil, err
	}
	return &cri.ReopenContainerLogResponse{}, nil
}

// running answers a container that runs; errdefs.ErrFailedPrecondition if it does not.
func (s *Containers) running(id, what string) (*store.Container, error) {
	c, err := s.find(id)
	if err != nil {
		return nil, err
	}
	if c.State.Phase != lifecycle.Running {
		return nil, fmt.Errorf("container %s is %s, %s only while it runs: %w", c.ID, c.State.Phase, what, errdefs.ErrFailedPrecondition)
	}
	return c, nil
}
