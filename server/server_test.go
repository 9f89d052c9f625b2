package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpcstatus "google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/container"
	"github.com/crid-project/crid/container/cgroup"
	"github.com/crid-project/crid/container/plan"
	containerspec "github.com/crid-project/crid/container/spec"
	"github.com/crid-project/crid/container/stdio"
	"github.com/crid-project/crid/image"
	"github.com/crid-project/crid/sandbox"
	podspec "github.com/crid-project/crid/sandbox/spec"
	"github.com/crid-project/crid/server"
	"github.com/crid-project/crid/server/internal/worldtest"
	"github.com/crid-project/crid/server/node"
	"github.com/crid-project/crid/server/seal"
	"github.com/crid-project/crid/server/socket"
	"github.com/crid-project/crid/server/stats"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
	"github.com/crid-project/crid/streaming"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hands do to the ledger what the real ones would, at once. fail, if set, is
// what every request answers.
type hands struct {
	t testing.TB
	l *store.Ledger

	mu      sync.Mutex
	fail    error
	grace   time.Duration
	update  container.Update
	limits  [2]*oci.LinuxResources
	exec    func(stdio.ExecRequest) (int, error)
	created container.CreateRequest
}

func (h *hands) err() error { h.mu.Lock(); defer h.mu.Unlock(); return h.fail }

type podHands struct{ *hands }

func (h podHands) Run(_ context.Context, r sandbox.RunRequest) (string, error) {
	if err := h.err(); err != nil {
		return "", err
	}
	p, fresh := h.l.AddPod(&store.Pod{
		ID: store.NewID(), Handler: r.Handler, Config: r.Config, CreatedAt: time.Now().UnixNano(),
		Name: store.PodName{Name: r.Plan.Name, Namespace: r.Plan.Namespace, UID: r.Plan.UID, Attempt: r.Plan.Attempt},
	})
	if fresh {
		worldtest.StepPod(h.t, h.l, p.ID, lifecycle.PodMade{})
	}
	return p.ID, nil
}

func (h podHands) Stop(_ context.Context, id string) error {
	if err := h.err(); err != nil {
		return err
	}
	for _, c := range h.l.Members(id) {
		worldtest.Step(h.t, h.l, c.ID, lifecycle.AskStop{}, lifecycle.SeenExited{Code: 137, Signal: 9, Source: lifecycle.Kernel, Empty: true})
	}
	worldtest.StepPod(h.t, h.l, id, lifecycle.AskPodStop{})
	worldtest.StepPod(h.t, h.l, id, lifecycle.MembersDone{})
	return nil
}

func (h podHands) Remove(ctx context.Context, id string) error {
	if err := h.err(); err != nil {
		return err
	}
	for _, c := range h.l.Members(id) {
		_ = containerHands(h).Remove(ctx, c.ID)
	}
	worldtest.StepPod(h.t, h.l, id, lifecycle.AskPodRemove{})
	worldtest.StepPod(h.t, h.l, id, lifecycle.MembersDone{Erased: true})
	return h.l.ErasePod(ctx, id)
}

func (h podHands) UpdateResources(_ context.Context, _ string, overhead, resources *oci.LinuxResources) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.limits = [2]*oci.LinuxResources{overhead, resources}
	return h.fail
}

type containerHands struct{ *hands }

func (h containerHands) Create(_ context.Context, r container.CreateRequest) (string, error) {
	if err := h.err(); err != nil {
		return "", err
	}
	h.mu.Lock()
	h.created = r
	h.mu.Unlock()
	c, fresh := h.l.AddContainer(&store.Container{
		ID: store.NewID(), PodID: r.PodID, Name: r.Name, Config: r.Config, CreatedAt: time.Now().UnixNano(), ImageID: "sha256:abc", TTY: r.Plan.TTY, Cgroup: "/c",
	})
	if fresh {
		worldtest.Step(h.t, h.l, c.ID, lifecycle.Made{})
		h.l.AnnounceCreated(c.ID)
	}
	return c.ID, nil
}

func (h containerHands) Start(_ context.Context, id string) error {
	if err := h.err(); err != nil {
		return err
	}
	if _, err := h.l.StepContainer(id, lifecycle.AskStart{}); err != nil {
		return err
	}
	worldtest.Step(h.t, h.l, id, lifecycle.LaunchBegun{}, lifecycle.StartDone{})
	return nil
}

func (h containerHands) Stop(_ context.Context, id string, grace time.Duration) error {
	if err := h.err(); err != nil {
		return err
	}
	h.mu.Lock()
	h.grace = grace
	h.mu.Unlock()
	worldtest.Step(h.t, h.l, id, lifecycle.AskStop{}, lifecycle.SeenExited{Code: 137, Signal: 9, Source: lifecycle.Kernel, Empty: true})
	return nil
}

func (h containerHands) Remove(ctx context.Context, id string) error {
	if err := h.err(); err != nil {
		return err
	}
	worldtest.Step(h.t, h.l, id, lifecycle.AskRemove{}, lifecycle.SeenExited{Empty: true}, lifecycle.ReapDone{})
	return h.l.EraseContainer(ctx, id)
}

func (h containerHands) UpdateResources(_ context.Context, id string, u container.Update) error {
	h.mu.Lock()
	h.update = u
	h.mu.Unlock()
	_, err := h.l.UpdateContainer(id, func(c *store.Container) { c.Config = u.Config })
	return err
}

func (h containerHands) ReopenLog(context.Context, string) error { return h.err() }

func (h containerHands) Exec(_ context.Context, _ string, r stdio.ExecRequest) (int, error) {
	return h.exec(r)
}

type streams struct{}

func (streams) Exec(m streaming.ExecMessage) (string, error) {
	return "http://h/exec/" + m.GetContainerId(), nil
}

func (streams) Attach(m streaming.AttachMessage) (string, error) {
	return "http://h/attach/" + m.GetContainerId(), nil
}

func (streams) PortForward(m streaming.PortForwardMessage) (string, error) {
	return "http://h/portforward/" + m.GetPodSandboxId(), nil
}

type imageStore struct {
	mu   sync.Mutex
	all  []image.Image
	auth *image.Auth
	fail error
}

func (s *imageStore) Pull(_ context.Context, r image.PullRequest) (image.Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.auth = r.Auth
	if s.fail != nil {
		return image.Image{}, s.fail
	}
	return s.all[0], nil
}

func (s *imageStore) Resolve(ref string) (image.Image, error) {
	for _, i := range s.List() {
		if i.ID == ref || strings.HasPrefix(i.Tags[0], ref) {
			return i, nil
		}
	}
	return image.Image{}, fmt.Errorf("image %s: %w", ref, errdefs.ErrNotFound)
}

func (s *imageStore) List() []image.Image { s.mu.Lock(); defer s.mu.Unlock(); return s.all }

func (s *imageStore) Remove(_ context.Context, ref string) error {
	if _, err := s.Resolve(ref); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = nil
	return nil
}

func (s *imageStore) Usage() (bytes, inodes uint64) { return 1000, 10 }

// source answers made-up statistics.
type source struct{}

func (source) Cgroup(context.Context, string) (*cgroup.Stats, error) {
	return &cgroup.Stats{CPU: &cgroup.CPU{At: time.Now().UnixNano(), Usage: 5e9, Quota: cgroup.Unlimited}, Swap: &cgroup.Swap{At: 1, Usage: 7, Available: cgroup.Unlimited}}, nil
}
func (source) Network(context.Context, string) ([]stats.Interface, error) { return nil, nil }
func (source) Layer(context.Context, string) (stats.Layer, error) {
	return stats.Layer{Bytes: 100, Inodes: 2}, nil
}
func (source) Disk(context.Context) (stats.Disk, error) {
	return stats.Disk{Mountpoint: "/var/lib/crid"}, nil
}
func (source) Handles(context.Context, string) (files, sockets uint64, err error) { return 3, 1, nil }
func (source) OpenFiles(int) (uint64, error)                                      { return 1024, nil }

// rig is a server on a socket, and a client.
type rig struct {
	*hands
	images *imageStore
	rt     cri.RuntimeServiceClient
	im     cri.ImageServiceClient
	log    *bytes.Buffer
	conn   *grpc.ClientConn
	stop   func()
}

type lockedWriter struct {
	mu sync.Mutex
	b  *bytes.Buffer
}

func (w *lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func start(t testing.TB, change ...func(*server.Config)) *rig {
	t.Helper()
	l := worldtest.Ledger(t)
	h := &hands{t: t, l: l, exec: func(stdio.ExecRequest) (int, error) { return 0, nil }}
	log := &bytes.Buffer{}
	im := &imageStore{all: []image.Image{{ID: "sha256:abc", Tags: []string{"docker.io/library/busybox:latest"}, Size: 5}}}
	cfg := server.Config{
		Ledger: l, Pods: podHands{h}, Containers: containerHands{h}, Images: im, Streams: streams{}, Source: source{},
		Specs: &seal.Specs{
			Pod:       func(string) podspec.Options { return podspec.Options{} },
			Container: func(string) containerspec.Options { return containerspec.Options{} },
			Kernel:    func(string) plan.Kernel { return plan.Kernel{} },
		},
		Node: node.Deps{
			Version: "1.2.3",
			Handlers: func() []node.Handler {
				return []node.Handler{{Name: "runc", Default: true, UserNamespaces: true}, {Name: "crun"}}
			},
			Network: func() (bool, string) { return false, "no CNI configuration in /etc/cni/net.d" },
			Info:    func() map[string]any { return map[string]any{"config": map[string]string{"stateDir": "/var/lib/crid"}} },
		},
		Bundle: func(id string) string { return "/run/crid/containers/" + id }, ImageDir: "/var/lib/crid", LayerDir: "/var/lib/crid",
		Log: slog.New(slog.NewJSONHandler(&lockedWriter{b: log}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, c := range change {
		c(&cfg)
	}
	s := server.New(cfg)
	path := filepath.Join(t.TempDir(), "crid.sock")
	lis, err := socket.Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, lis) }()
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20), grpc.MaxCallSendMsgSize(32<<20)))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{hands: h, images: im, rt: cri.NewRuntimeServiceClient(conn), im: cri.NewImageServiceClient(conn), log: log, conn: conn}
	r.stop = sync.OnceFunc(func() {
		conn.Close()
		cancel()
		select {
		case err := <-served:
			if err != nil {
				t.Errorf("serve: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the server does not stop")
		}
	})
	t.Cleanup(r.stop)
	return r
}

func ctxOf(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func wantCode(t *testing.T, what string, err error, code codes.Code, in string) {
	t.Helper()
	if grpcstatus.Code(err) != code || err != nil && !strings.Contains(err.Error(), in) {
		t.Errorf("%s: got %v, want %v with %q", what, err, code, in)
	}
}

func (r *rig) pod(t *testing.T, name string) string {
	t.Helper()
	resp, err := r.rt.RunPodSandbox(ctxOf(t), &cri.RunPodSandboxRequest{Config: worldtest.PodConfig(name, nil)})
	if err != nil {
		t.Fatal(err)
	}
	return resp.PodSandboxId
}

func (r *rig) container(t *testing.T, pod, name string, run bool) string {
	t.Helper()
	resp, err := r.rt.CreateContainer(ctxOf(t), &cri.CreateContainerRequest{PodSandboxId: pod, Config: worldtest.ContainerConfig(name, nil), SandboxConfig: worldtest.PodConfig("p", nil)})
	if err != nil {
		t.Fatal(err)
	}
	if run {
		if _, err := r.rt.StartContainer(ctxOf(t), &cri.StartContainerRequest{ContainerId: resp.ContainerId}); err != nil {
			t.Fatal(err)
		}
	}
	return resp.ContainerId
}

func TestALifeOverTheWire(t *testing.T) {
	r, ctx := start(t), ctxOf(t)
	pod := r.pod(t, "p")
	if again := r.pod(t, "p"); again != pod {
		t.Errorf("the same pod again is %s, want %s", again, pod)
	}
	c := r.container(t, pod, "c", true)
	st, err := r.rt.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: pod[:10], Verbose: true})
	if err != nil || len(st.ContainersStatuses) != 1 || st.Timestamp == 0 || st.Info["info"] == "" || st.Status.RuntimeHandler != "runc" {
		t.Fatalf("pod status: %v, %v", st, err)
	}
	cs, err := r.rt.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: c})
	if err != nil || cs.Status.State != cri.ContainerState_CONTAINER_RUNNING || len(cs.Info) != 0 {
		t.Fatalf("container status: %v, %v", cs, err)
	}
	if _, err := r.rt.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: c, Timeout: 1 << 62}); err != nil {
		t.Fatal(err)
	}
	if r.grace <= 0 {
		t.Errorf("a very long grace period became %v", r.grace)
	}
	for range 2 {
		for _, f := range []func() error{
			func() error {
				_, err := r.rt.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: pod})
				return err
			},
			func() error {
				_, err := r.rt.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: c})
				return err
			},
			func() error { _, err := r.rt.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: c}); return err },
		} {
			if err := f(); err != nil {
				t.Error(err)
			}
		}
	}
	for range 2 {
		if _, err := r.rt.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: pod}); err != nil {
			t.Error(err)
		}
	}
	if l, err := r.rt.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{}); err != nil || len(l.Items) != 0 {
		t.Errorf("left: %v, %v", l, err)
	}
}

func TestWhatIsMissingAnswersAsCRISays(t *testing.T) {
	r, ctx := start(t), ctxOf(t)
	const id = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
	for name, c := range map[string]struct {
		call func() error
		want codes.Code
	}{
		"StopPodSandbox": {func() error {
			_, err := r.rt.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: id})
			return err
		}, codes.OK},
		"RemovePodSandbox": {func() error {
			_, err := r.rt.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: id})
			return err
		}, codes.OK},
		"StopContainer": {func() error {
			_, err := r.rt.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: id})
			return err
		}, codes.OK},
		"RemoveContainer": {func() error {
			_, err := r.rt.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: id})
			return err
		}, codes.OK},
		"RemoveImage": {func() error {
			_, err := r.im.RemoveImage(ctx, &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: "none"}})
			return err
		}, codes.OK},
		"PodSandboxStatus": {func() error {
			_, err := r.rt.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: id})
			return err
		}, codes.NotFound},
		"ContainerStatus": {func() error {
			_, err := r.rt.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: id})
			return err
		}, codes.NotFound},
		"StartContainer": {func() error {
			_, err := r.rt.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: id})
			return err
		}, codes.NotFound},
		"CreateContainer": {func() error {
			_, err := r.rt.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: id, Config: worldtest.ContainerConfig("c", nil)})
			return err
		}, codes.NotFound},
		"Exec": {func() error {
			_, err := r.rt.Exec(ctx, &cri.ExecRequest{ContainerId: id, Cmd: []string{"a"}, Stdout: true})
			return err
		}, codes.NotFound},
		"ExecSync": {func() error {
			_, err := r.rt.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: id, Cmd: []string{"a"}})
			return err
		}, codes.NotFound},
		"Attach": {func() error {
			_, err := r.rt.Attach(ctx, &cri.AttachRequest{ContainerId: id, Stdout: true})
			return err
		}, codes.NotFound},
		"PortForward": {func() error { _, err := r.rt.PortForward(ctx, &cri.PortForwardRequest{PodSandboxId: id}); return err }, codes.NotFound},
		"ReopenContainerLog": {func() error {
			_, err := r.rt.ReopenContainerLog(ctx, &cri.ReopenContainerLogRequest{ContainerId: id})
			return err
		}, codes.NotFound},
		"ContainerStats": {func() error {
			_, err := r.rt.ContainerStats(ctx, &cri.ContainerStatsRequest{ContainerId: id})
			return err
		}, codes.NotFound},
		"PodSandboxStats": {func() error {
			_, err := r.rt.PodSandboxStats(ctx, &cri.PodSandboxStatsRequest{PodSandboxId: id})
			return err
		}, codes.NotFound},
		"UpdateContainer": {func() error {
			_, err := r.rt.UpdateContainerResources(ctx, &cri.UpdateContainerResourcesRequest{ContainerId: id, Linux: &cri.LinuxContainerResources{}})
			return err
		}, codes.NotFound},
		"UpdatePod": {func() error {
			_, err := r.rt.UpdatePodSandboxResources(ctx, &cri.UpdatePodSandboxResourcesRequest{PodSandboxId: id, Resources: &cri.LinuxContainerResources{}})
			return err
		}, codes.NotFound},
		"checkpoint":     {func() error { _, err := r.rt.CheckpointContainer(ctx, &cri.CheckpointContainerRequest{}); return err }, codes.Unimplemented},
		"checkpoint pod": {func() error { _, err := r.rt.CheckpointPod(ctx, &cri.CheckpointPodRequest{}); return err }, codes.Unimplemented},
		"restore pod":    {func() error { _, err := r.rt.RestorePod(ctx, &cri.RestorePodRequest{}); return err }, codes.Unimplemented},
		"a pod of tomorrow": {func() error {
			_, err := r.rt.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: worldtest.PodConfig("a", nil), RuntimeHandler: "kata"})
			return err
		}, codes.InvalidArgument},
		"image of tomorrow": {func() error {
			_, err := r.im.PullImage(ctx, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: "a", RuntimeHandler: "kata"}})
			return err
		}, codes.InvalidArgument},
	} {
		wantCode(t, name, c.call(), c.want, "")
	}
	if st, err := r.im.ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: "none"}}); err != nil || st.Image != nil {
		t.Errorf("a missing image: %v, %v", st, err)
	}
}

// F90: what a state refuses is refused with a code that a caller understands.
func TestStatesRefuse(t *testing.T) {
	r, ctx := start(t), ctxOf(t)
	pod := r.pod(t, "p")
	created, exited := r.container(t, pod, "created", false), r.container(t, pod, "exited", true)
	if _, err := r.rt.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: exited}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{created, exited} {
		_, err := r.rt.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: id, Cmd: []string{"a"}})
		wantCode(t, "exec", err, codes.FailedPrecondition, "only while it runs")
		_, err = r.rt.ReopenContainerLog(ctx, &cri.ReopenContainerLogRequest{ContainerId: id})
		wantCode(t, "reopen", err, codes.FailedPrecondition, "")
	}
	_, err := r.rt.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: exited})
	wantCode(t, "start of an exited one", err, codes.FailedPrecondition, "already exited")
	_, err = r.rt.UpdateContainerResources(ctx, &cri.UpdateContainerResourcesRequest{ContainerId: exited, Linux: &cri.LinuxContainerResources{CpuShares: 5}})
	wantCode(t, "update of an exited one", err, codes.FailedPrecondition, "")
	other := worldtest.PodConfig("other", nil)
	_, err = r.rt.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: pod, Config: worldtest.ContainerConfig("x", nil), SandboxConfig: other})
	wantCode(t, "another pod's config", err, codes.InvalidArgument, "sandbox_config")
	if _, err := r.rt.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: pod}); err != nil {
		t.Fatal(err)
	}
	_, err = r.rt.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: pod, Config: worldtest.ContainerConfig("late", nil)})
	wantCode(t, "create in a stopped pod", err, codes.FailedPrecondition, "ready")
	_, err = r.rt.PortForward(ctx, &cri.PortForwardRequest{PodSandboxId: pod})
	wantCode(t, "forward to a stopped pod", err, codes.FailedPrecondition, "ready")
	_, err = r.rt.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: "../" + pod})
	wantCode(t, "a path", err, codes.InvalidArgument, "pod_sandbox_id")
}

func TestAFailureOfTheHandsKeepsItsCode(t *testing.T) {
	r, ctx := start(t), ctxOf(t)
	pod := r.pod(t, "p")
	c := r.container(t, pod, "c", true)
	r.mu.Lock()
	r.fail = fmt.Errorf("stop: still under way: %w", context.DeadlineExceeded)
	r.mu.Unlock()
	_, err := r.rt.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: c})
	wantCode(t, "stop", err, codes.DeadlineExceeded, "still under way")
	_, err = r.rt.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: pod})
	wantCode(t, "remove pod", err, codes.DeadlineExceeded, "")
}

func TestExecSyncFitsIntoOneMessage(t *testing.T) {
	r, ctx := start(t), ctxOf(t)
	c := r.container(t, r.pod(t, "p"), "c", true)
	big := bytes.Repeat([]byte("o"), 1<<20)
	r.exec = func(q stdio.ExecRequest) (int, error) {
		for range 40 {
			_, _ = q.Stdout.Write(big)
			_, _ = q.Stderr.Write(big)
		}
		return 7, nil
	}
	resp, err := r.rt.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: c, Cmd: []string{"a"}})
	if err != nil || resp.ExitCode != 7 || len(resp.Stdout) == 0 || len(resp.Stdout) != len(resp.Stderr) || len(resp.Stdout) < 7<<20 {
		t.Fatalf("code %d, %d and %d bytes, %v", resp.GetExitCode(), len(resp.GetStdout()), len(resp.GetStderr()), err)
	}
	r.exec = func(stdio.ExecRequest) (int, error) { return 0, fmt.Errorf("command: %w", context.DeadlineExceeded) }
	_, err = r.rt.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: c, Cmd: []string{"a"}, Timeout: 1})
	wantCode(t, "a probe that took too long", err, codes.DeadlineExceeded, "")
	r.exec = func(stdio.ExecRequest) (int, error) { panic("defect with a secret") }
	_, err = r.rt.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: c, Cmd: []string{"a"}})
	wantCode(t, "a panic", err, codes.Internal, "defect of crid")
	if strings.Contains(err.Error(), "secret") {
		t.Error("the panic's text went to the client")
	}
	if _, err := r.rt.Version(ctx, &cri.VersionRequest{}); err != nil {
		t.Errorf("after a panic: %v", err)
	}
}

func TestExecSyncKeepsWhatTheNodeAllows(t *testing.T) {
	r := start(t, func(c *server.Config) { c.MaxExecSync = 1 << 10 })
	c := r.container(t, r.pod(t, "p"), "c", true)
	r.exec = func(q stdio.ExecRequest) (int, error) {
		_, _ = q.Stdout.Write(bytes.Repeat([]byte("o"), 1<<12))
		_, _ = q.Stderr.Write([]byte("e"))
		return 0, nil
	}
	resp, err := r.rt.ExecSync(ctxOf(t), &cri.ExecSyncRequest{ContainerId: c, Cmd: []string{"a"}})
	if err != nil || len(resp.GetStdout()) != 1<<10 || len(resp.GetStderr()) != 1 {
		t.Fatalf("%d and %d bytes, %v", len(resp.GetStdout()), len(resp.GetStderr()), err)
	}
}

func TestAnUpdateIsMergedAndShown(t *testing.T) {
	r, ctx := start(t), ctxOf(t)
	pod := r.pod(t, "p")
	c := r.container(t, pod, "c", true)
	_, err := r.rt.UpdateContainerResources(ctx, &cri.UpdateContainerResourcesRequest{
		ContainerId: c, Linux: &cri.LinuxContainerResources{CpuQuota: 20000, CpuPeriod: 100000}, Annotations: map[string]string{"a": "b"},
	})
	if err != nil {
		t.Fatal(err)
	}
	st, err := r.rt.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: c})
	if err != nil {
		t.Fatal(err)
	}
	if got := st.Status.Resources.GetLinux(); got.GetCpuShares() != 100 || got.GetCpuQuota() != 20000 {
		t.Errorf("resources are %v", got)
	}
	if r.update.Annotations["a"] != "b" || r.update.Resources.CPU.Shares != nil || *r.update.Resources.CPU.Quota != 20000 {
		t.Errorf("the hands got %+v", r.update)
	}
	if _, err := r.rt.UpdatePodSandboxResources(ctx, &cri.UpdatePodSandboxResourcesRequest{PodSandboxId: pod, Resources: &cri.LinuxContainerResources{CpuShares: 512}}); err != nil {
		t.Fatal(err)
	}
	if r.limits[0] != nil || *r.limits[1].CPU.Shares != 512 {
		t.Errorf("the pod's hands got %+v", r.limits)
	}
}

func TestURLsAreForCompleteIDs(t *testing.T) {
	r, ctx := start(t), ctxOf(t)
	pod := r.pod(t, "p")
	c := r.container(t, pod, "c", true)
	e, err := r.rt.Exec(ctx, &cri.ExecRequest{ContainerId: c[:12], Cmd: []string{"a"}, Stdout: true})
	if err != nil || e.Url != "http://h/exec/"+c {
		t.Errorf("%v, %v", e, err)
	}
	a, err := r.rt.Attach(ctx, &cri.AttachRequest{ContainerId: c[:12], Stdout: true})
	if err != nil || a.Url != "http://h/attach/"+c {
		t.Errorf("%v, %v", a, err)
	}
	_, err = r.rt.Attach(ctx, &cri.AttachRequest{ContainerId: c, Stdout: true, Tty: true})
	wantCode(t, "attach with a terminal to a container without", err, codes.InvalidArgument, "tty")
	p, err := r.rt.PortForward(ctx, &cri.PortForwardRequest{PodSandboxId: pod[:12], Port: []int32{80}})
	if err != nil || p.Url != "http://h/portforward/"+pod {
		t.Errorf("%v, %v", p, err)
	}
}

func TestTheNodeTellsAboutItself(t *testing.T) {
	r, ctx := start(t), ctxOf(t)
	v, err := r.rt.Version(ctx, &cri.VersionRequest{Version: "v1alpha2"})
	if err != nil || v.Version != "0.1.0" || v.RuntimeName != "crid" || v.RuntimeVersion != "1.2.3" || v.RuntimeApiVersion != "v1" {
		t.Errorf("version %v, %v", v, err)
	}
	st, err := r.rt.Status(ctx, &cri.StatusRequest{Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	conds := st.Status.Conditions
	if conds[0].Type != "RuntimeReady" || !conds[0].Status || conds[1].Type != "NetworkReady" || conds[1].Status || !strings.Contains(conds[1].Message, "/etc/cni/net.d") {
		t.Errorf("conditions %v", conds)
	}
	var names []string
	for _, h := range st.RuntimeHandlers {
		names = append(names, fmt.Sprintf("%q:%t", h.Name, h.Features.UserNamespaces))
	}
	if got := strings.Join(names, " "); got != `"":true "runc":true "crun":false` {
		t.Errorf("handlers %s", got)
	}
	if !st.Features.SupplementalGroupsPolicy || !st.Features.MountOptions || !strings.Contains(st.Info["config"], "stateDir") {
		t.Errorf("features %v, info %v", st.Features, st.Info)
	}
	if c, err := r.rt.RuntimeConfig(ctx, &cri.RuntimeConfigRequest{}); err != nil || c.Linux.CgroupDriver != cri.CgroupDriver_CGROUPFS {
		t.Errorf("runtime config %v, %v", c, err)
	}
	if _, err := r.rt.UpdateRuntimeConfig(ctx, &cri.UpdateRuntimeConfigRequest{RuntimeConfig: &cri.RuntimeConfig{NetworkConfig: &cri.NetworkConfig{PodCidr: "10.0.0.0/24"}}}); err != nil {
		t.Error(err)
	}
}

func TestImagesOverTheWire(t *testing.T) {
	r, ctx := start(t), ctxOf(t)
	p, err := r.im.PullImage(ctx, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: "busybox"}, Auth: &cri.AuthConfig{Username: "u", Password: "hunter2", RegistryToken: "tok-en"}})
	if err != nil || p.ImageRef != "sha256:abc" || r.images.auth.RegistryToken != "tok-en" || r.images.auth.Password != "hunter2" {
		t.Fatalf("%v, %v", p, err)
	}
	l, err := r.im.ListImages(ctx, &cri.ListImagesRequest{Filter: &cri.ImageFilter{Image: &cri.ImageSpec{Image: "docker.io/library/busybox"}}})
	if err != nil || len(l.Images) != 1 || l.Images[0].Id != p.ImageRef || l.Images[0].Uid == nil || l.Images[0].Size == 0 || l.Images[0].Spec.GetImage() != p.ImageRef {
		t.Errorf("%v, %v", l, err)
	}
	if l, err := r.im.ListImages(ctx, &cri.ListImagesRequest{Filter: &cri.ImageFilter{Image: &cri.ImageSpec{Image: "none"}}}); err != nil || len(l.Images) != 0 {
		t.Errorf("%v, %v", l, err)
	}
	st, err := r.im.ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: "sha256:abc"}, Verbose: true})
	if err != nil || st.Image.GetId() != "sha256:abc" || !strings.Contains(st.Info["info"], "imageSpec") {
		t.Errorf("%v, %v", st, err)
	}
	r.container(t, r.pod(t, "p"), "c", false)
	fs, err := r.im.ImageFsInfo(ctx, &cri.ImageFsInfoRequest{})
	if err != nil || fs.ImageFilesystems[0].UsedBytes.GetValue() != 1000 || fs.ContainerFilesystems[0].UsedBytes.GetValue() != 100 || fs.ContainerFilesystems[0].Timestamp == 0 {
		t.Errorf("%v, %v", fs, err)
	}
	r.images.mu.Lock()
	r.images.fail = fmt.Errorf("pull busybox: %w", errdefs.ErrUnavailable)
	r.images.mu.Unlock()
	_, err = r.im.PullImage(ctx, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: "busybox"}})
	wantCode(t, "an unreachable registry", err, codes.Unavailable, "RegistryUnavailable")
	r.stop()
	if log := r.log.String(); strings.Contains(log, "hunter2") || strings.Contains(log, "tok-en") || !strings.Contains(log, `"image":"busybox"`) {
		t.Error("the log has a secret in it, or no image")
	}
}

// recvAll reads a stream to its end; every message has at least one item.
func recvAll[T any](t *testing.T, s grpc.ServerStreamingClient[T], err error, count func(*T) int) int {
	t.Helper()
	n := 0
	for err == nil {
		var m *T
		if m, err = s.Recv(); err == nil {
			if count(m) == 0 {
				t.Error("a message without an item")
			}
			n += count(m)
		}
	}
	if grpcstatus.Code(err) != codes.Unknown || err.Error() != "EOF" {
		t.Errorf("the stream ends with %v", err)
	}
	return n
}

func TestStreamingListsAnswerWhatListsDo(t *testing.T) {
	r, ctx := start(t), ctxOf(t)
	for i := range 3 {
		p := worldtest.Pod(t, r.l, fmt.Sprint("p", i), nil)
		worldtest.Running(t, r.l, p.ID, "c", nil)
	}
	pods, err := r.rt.StreamPodSandboxes(ctx, &cri.StreamPodSandboxesRequest{})
	if n := recvAll(t, pods, err, func(m *cri.StreamPodSandboxesResponse) int { return len(m.PodSandboxes) }); n != 3 {
		t.Errorf("%d pods", n)
	}
	ctrs, err := r.rt.StreamContainers(ctx, &cri.StreamContainersRequest{})
	if n := recvAll(t, ctrs, err, func(m *cri.StreamContainersResponse) int { return len(m.Containers) }); n != 3 {
		t.Errorf("%d containers", n)
	}
	cst, err := r.rt.StreamContainerStats(ctx, &cri.StreamContainerStatsRequest{})
	if n := recvAll(t, cst, err, func(m *cri.StreamContainerStatsResponse) int { return len(m.ContainerStats) }); n != 3 {
		t.Errorf("%d container stats", n)
	}
	pst, err := r.rt.StreamPodSandboxStats(ctx, &cri.StreamPodSandboxStatsRequest{})
	if n := recvAll(t, pst, err, func(m *cri.StreamPodSandboxStatsResponse) int { return len(m.PodSandboxStats) }); n != 3 {
		t.Errorf("%d pod stats", n)
	}
	met, err := r.rt.StreamPodSandboxMetrics(ctx, &cri.StreamPodSandboxMetricsRequest{})
	if n := recvAll(t, met, err, func(m *cri.StreamPodSandboxMetricsResponse) int { return len(m.PodSandboxMetrics) }); n != 3 {
		t.Errorf("%d pod metrics", n)
	}
	img, err := r.im.StreamImages(ctx, &cri.StreamImagesRequest{})
	if n := recvAll(t, img, err, func(m *cri.StreamImagesResponse) int { return len(m.Images) }); n != 1 {
		t.Errorf("%d images", n)
	}
	none, err := r.rt.StreamContainers(ctx, &cri.StreamContainersRequest{Filter: &cri.ContainerFilter{Id: "ffff"}})
	if n := recvAll(t, none, err, func(m *cri.StreamContainersResponse) int { return len(m.Containers) }); n != 0 {
		t.Errorf("%d containers", n)
	}
	bad, err := r.rt.StreamContainers(ctx, &cri.StreamContainersRequest{Filter: &cri.ContainerFilter{Id: "../"}})
	if err == nil {
		_, err = bad.Recv()
	}
	wantCode(t, "a hostile filter", err, codes.InvalidArgument, "filter.id")
}

func TestMessagesBeyondTheLimitAreRefused(t *testing.T) {
	r, ctx := start(t), ctxOf(t)
	cfg := worldtest.ContainerConfig("c", nil)
	for i := range 200 {
		cfg.Args = append(cfg.Args, strings.Repeat("x", 100<<10)+fmt.Sprint(i))
	}
	_, err := r.rt.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: "ab", Config: cfg})
	wantCode(t, "20 MiB", err, codes.ResourceExhausted, "")
	if _, err := r.rt.Version(ctx, &cri.VersionRequest{}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestEventsTellALife(t *testing.T) {
	r := start(t)
	ctx, cancel := context.WithCancel(ctxOf(t))
	defer cancel()
	s, err := r.rt.GetContainerEvents(ctx, &cri.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	// The stream is open once the server knows it; the first event tells.
	pod := r.pod(t, "p")
	next := func() *cri.ContainerEventResponse {
		m, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for m := next(); m.ContainerId != pod || m.ContainerEventType != cri.ContainerEventType_CONTAINER_STARTED_EVENT; m = next() {
	}
	c := r.container(t, pod, "c", true)
	if _, err := r.rt.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: pod}); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for !seen[pod+"CONTAINER_DELETED_EVENT"] {
		m := next()
		seen[m.ContainerId+m.ContainerEventType.String()] = true
		if m.PodSandboxStatus.GetMetadata().GetUid() != "uid-p" && m.ContainerId == pod {
			t.Errorf("event without the pod's status: %v", m)
		}
	}
	for _, want := range []string{"CREATED", "STARTED", "STOPPED", "DELETED"} {
		if !seen[c+"CONTAINER_"+want+"_EVENT"] {
			t.Errorf("no %s of the container: %v", want, seen)
		}
	}
	cancel()
	for err == nil {
		_, err = s.Recv()
	}
	if grpcstatus.Code(err) != codes.Canceled {
		t.Errorf("ended with %v", err)
	}
}

func TestStoppingEndsStreamsAndCalls(t *testing.T) {
	r := start(t)
	s, err := r.rt.GetContainerEvents(context.Background(), &cri.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	r.pod(t, "p")
	if _, err := s.Recv(); err != nil {
		t.Fatal(err)
	}
	r.stop() // fails the test if it takes long
	for err == nil {
		_, err = s.Recv()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestCountsHaveEveryState(t *testing.T) {
	l := worldtest.Ledger(t)
	p := worldtest.Pod(t, l, "p", nil)
	worldtest.Running(t, l, p.ID, "a", nil)
	worldtest.Making(t, l, p.ID, "b", nil)
	if got := fmt.Sprint(server.PodCounts(l)); got != "map[notready:0 ready:1]" {
		t.Error(got)
	}
	if got := fmt.Sprint(server.ContainerCounts(l)); got != "map[created:0 exited:0 running:1 unknown:0]" {
		t.Error(got)
	}
	if got := server.TaskCounts(l); got["making"] != 1 || got["running"] != 1 || got["exited"] != 0 {
		t.Error(got)
	}
}
