package harness

import (
	"context"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CRI is a client of one runtime. Its methods take what most calls need; Runtime and Images give the whole protocol.
type CRI struct {
	Runtime runtimeapi.RuntimeServiceClient
	Images  runtimeapi.ImageServiceClient
	Socket  string
	conn    *grpc.ClientConn
}

// callLimit bounds every call that comes without a deadline of its own.
const callLimit = 2 * time.Minute

// Dial makes a client for a socket; it does not wait for the other side.
func Dial(socket string) (*CRI, error) {
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	limit := func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if _, ok := ctx.Deadline(); !ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, callLimit)
			defer cancel()
		}
		return invoke(ctx, method, req, reply, cc, opts...)
	}
	// A daemon that starts is asked again within milliseconds, not after gRPC's usual second.
	again := grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 2 * time.Millisecond, Multiplier: 1.2, MaxDelay: 20 * time.Millisecond}, MinConnectTimeout: 5 * time.Second}
	conn, err := grpc.NewClient("passthrough:///"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(dial), grpc.WithConnectParams(again),
		grpc.WithUnaryInterceptor(limit), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", socket, err)
	}
	return &CRI{Runtime: runtimeapi.NewRuntimeServiceClient(conn), Images: runtimeapi.NewImageServiceClient(conn), Socket: socket, conn: conn}, nil
}

// Close ends the connection.
func (c *CRI) Close() { _ = c.conn.Close() }

// Version asks who is there.
func (c *CRI) Version(ctx context.Context) (*runtimeapi.VersionResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return c.Runtime.Version(ctx, &runtimeapi.VersionRequest{})
}

// Pull pulls an image and gives its reference as containers name it.
func (c *CRI) Pull(ctx context.Context, image string) (string, error) {
	r, err := c.Images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: image}})
	if err != nil {
		return "", fmt.Errorf("pull %s: %w", image, err)
	}
	return r.GetImageRef(), nil
}

// Have pulls an image unless it is there.
func (c *CRI) Have(ctx context.Context, image string) error {
	r, err := c.Images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: image}})
	if err == nil && r.GetImage() != nil {
		return nil
	}
	_, err = c.Pull(ctx, image)
	return err
}

// RunPod runs a sandbox and gives its id.
func (c *CRI) RunPod(ctx context.Context, config *runtimeapi.PodSandboxConfig, handler string) (string, error) {
	r, err := c.Runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
	return r.GetPodSandboxId(), err
}

// Create creates a container and gives its id.
func (c *CRI) Create(ctx context.Context, pod string, config *runtimeapi.ContainerConfig, sandbox *runtimeapi.PodSandboxConfig) (string, error) {
	r, err := c.Runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config, SandboxConfig: sandbox})
	return r.GetContainerId(), err
}

// StartContainer starts a created container.
func (c *CRI) StartContainer(ctx context.Context, id string) error {
	_, err := c.Runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: id})
	return err
}

// Run creates and starts a container.
func (c *CRI) Run(ctx context.Context, pod string, config *runtimeapi.ContainerConfig, sandbox *runtimeapi.PodSandboxConfig) (string, error) {
	id, err := c.Create(ctx, pod, config, sandbox)
	if err != nil {
		return "", err
	}
	return id, c.StartContainer(ctx, id)
}

// StopContainer stops a container, with so many seconds of grace.
func (c *CRI) StopContainer(ctx context.Context, id string, grace int64) error {
	_, err := c.Runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: grace})
	return err
}

// RemoveContainer removes a container.
func (c *CRI) RemoveContainer(ctx context.Context, id string) error {
	_, err := c.Runtime.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: id})
	return err
}

// StopPod stops a sandbox and its containers.
func (c *CRI) StopPod(ctx context.Context, id string) error {
	_, err := c.Runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id})
	return err
}

// RemovePod removes a sandbox.
func (c *CRI) RemovePod(ctx context.Context, id string) error {
	_, err := c.Runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id})
	return err
}

// Pods lists all sandboxes.
func (c *CRI) Pods(ctx context.Context) ([]*runtimeapi.PodSandbox, error) {
	r, err := c.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	return r.GetItems(), err
}

// Containers lists all containers.
func (c *CRI) Containers(ctx context.Context) ([]*runtimeapi.Container, error) {
	r, err := c.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	return r.GetContainers(), err
}

// Status of a container.
func (c *CRI) Status(ctx context.Context, id string) (*runtimeapi.ContainerStatus, error) {
	r, err := c.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	return r.GetStatus(), err
}

// Exec runs a command in a container; a command that ends with another code than 0 is no error.
func (c *CRI) Exec(ctx context.Context, id string, command ...string) (*runtimeapi.ExecSyncResponse, error) {
	return c.Runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: command, Timeout: 30})
}

// RemoveAllPods stops and removes every pod. It tries all, and tells of the first that would not go.
func (c *CRI) RemoveAllPods(ctx context.Context) error {
	pods, err := c.Pods(ctx)
	if err != nil {
		return err
	}
	var first error
	for _, p := range pods {
		err := c.StopPod(ctx, p.GetId())
		if err == nil {
			err = c.RemovePod(ctx, p.GetId())
		}
		if err != nil && first == nil {
			first = fmt.Errorf("remove pod %s: %w", p.GetMetadata().GetName(), err)
		}
	}
	return first
}

// WaitState waits until a container is in a state.
func (c *CRI) WaitState(ctx context.Context, id string, want runtimeapi.ContainerState, limit time.Duration) (*runtimeapi.ContainerStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		status, err := c.Status(ctx, id)
		if err == nil && status.GetState() == want {
			return status, nil
		}
		select {
		case <-ctx.Done():
			return status, fmt.Errorf("wait for %s: after %s the container is %s (%w)", want, limit, status.GetState(), ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}
