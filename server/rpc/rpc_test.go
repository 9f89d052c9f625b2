package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/server/rpc"
)

type seen struct {
	rpc  string
	code codes.Code
}

type observer struct{ all []seen }

func (o *observer) Observe(rpc string, code codes.Code, _ time.Duration) {
	o.all = append(o.all, seen{rpc, code})
}

func chain() (*rpc.Chain, *observer, *bytes.Buffer) {
	o, log := &observer{}, &bytes.Buffer{}
	return &rpc.Chain{Log: slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), Observer: o}, o, log
}

func info(name string) *grpc.UnaryServerInfo {
	return &grpc.UnaryServerInfo{FullMethod: "/runtime.v1.RuntimeService/" + name}
}

func TestEveryCallIsObservedWithItsCode(t *testing.T) {
	c, o, log := chain()
	panics := 0
	c.Panics = func() { panics++ }
	req := &cri.StopContainerRequest{ContainerId: "abc123"}
	for _, x := range []struct {
		next func(context.Context, any) (any, error)
		code codes.Code
	}{
		{func(context.Context, any) (any, error) { return &cri.StopContainerResponse{}, nil }, codes.OK},
		{func(context.Context, any) (any, error) { return nil, fmt.Errorf("x: %w", errdefs.ErrNotFound) }, codes.NotFound},
		{func(context.Context, any) (any, error) { return nil, errors.New("x") }, codes.Unknown},
		{func(context.Context, any) (any, error) { panic("x") }, codes.Internal},
		{func(context.Context, any) (any, error) { return nil, errors.New(strings.Repeat("é", 20_000)) }, codes.Unknown},
	} {
		_, err := c.Unary(t.Context(), req, info("StopContainer"), x.next)
		last := o.all[len(o.all)-1]
		if status.Code(err) != x.code || last != (seen{"StopContainer", x.code}) {
			t.Errorf("got %v, observed %v, want %v", err, last, x.code)
		}
		if err != nil && len(status.Convert(err).Message()) > 9<<10 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	}
	if panics != 1 || !strings.Contains(log.String(), `"stack"`) || !strings.Contains(log.String(), `"container":"abc123"`) {
		t.Errorf("%d panics, log %.300s", panics, log)
	}
}

func TestBadRequestsDoNotGetThrough(t *testing.T) {
	c, o, _ := chain()
	_, err := c.Unary(t.Context(), &cri.StopContainerRequest{ContainerId: "../"}, info("StopContainer"), func(context.Context, any) (any, error) {
		t.Error("it got through")
		return nil, nil
	})
	if status.Code(err) != codes.InvalidArgument || o.all[0].code != codes.InvalidArgument {
		t.Errorf("got %v", err)
	}
}

// A client without a deadline must not wait for ever; a pull and a command may.
func TestCallsWithoutADeadlineGetOne(t *testing.T) {
	c, _, _ := chain()
	for _, x := range []struct {
		name string
		req  any
		want time.Duration // 0: none
	}{
		{"StartContainer", &cri.StartContainerRequest{ContainerId: "a"}, rpc.DefaultDeadline},
		{"StopContainer", &cri.StopContainerRequest{ContainerId: "a", Timeout: 3600}, time.Hour + rpc.DefaultDeadline},
		{"StopContainer", &cri.StopContainerRequest{ContainerId: "a", Timeout: 1 << 62}, 99 * 365 * 24 * time.Hour},
		{"PullImage", &cri.PullImageRequest{Image: &cri.ImageSpec{Image: "a"}}, 0},
		{"ExecSync", &cri.ExecSyncRequest{ContainerId: "a", Cmd: []string{"a"}}, 0},
	} {
		_, err := c.Unary(t.Context(), x.req, info(x.name), func(ctx context.Context, _ any) (any, error) {
			end, ok := ctx.Deadline()
			if ok != (x.want > 0) || ok && time.Until(end) < x.want-time.Minute {
				t.Errorf("%s: %v %t, want %v", x.name, time.Until(end), ok, x.want)
			}
			return nil, nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, _ = c.Unary(ctx, &cri.StartContainerRequest{ContainerId: "a"}, info("StartContainer"), func(ctx context.Context, _ any) (any, error) {
		if end, _ := ctx.Deadline(); time.Until(end) > time.Second {
			t.Error("the client's own deadline was put off")
		}
		return nil, nil
	})
}

func TestTheLogHasIDsAndNoSecrets(t *testing.T) {
	c, _, log := chain()
	ok := func(context.Context, any) (any, error) { return nil, nil }
	_, _ = c.Unary(t.Context(), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: "busybox"}, Auth: &cri.AuthConfig{Password: "hunter2"}}, info("PullImage"), ok)
	_, _ = c.Unary(t.Context(), &cri.CreateContainerRequest{PodSandboxId: "aaa", Config: &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: "web"}, Image: &cri.ImageSpec{Image: "i"}, Envs: []*cri.KeyValue{{Key: "K", Value: []byte("s3cret")}},
	}}, info("CreateContainer"), ok)
	_, _ = c.Unary(t.Context(), &cri.StopContainerRequest{ContainerId: strings.Repeat("x", 100_000)}, info("StopContainer"), ok)
	s := log.String()
	for _, want := range []string{`"image":"busybox"`, `"pod":"aaa"`, `"name":"web"`, `"code":"InvalidArgument"`} {
		if !strings.Contains(s, want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(s, "hunter2") || strings.Contains(s, "s3cret") || len(s) > 5000 {
		t.Errorf("a secret, or too much: %d bytes", len(s))
	}
}

type stream struct {
	grpc.ServerStream
	ctx context.Context
	req *cri.ListContainersRequest
}

func (s *stream) Context() context.Context { return s.ctx }
func (s *stream) RecvMsg(m any) error {
	m.(*cri.StreamContainersRequest).Filter = s.req.GetFilter()
	return nil
}

func TestStreamsAreCheckedToo(t *testing.T) {
	c, o, _ := chain()
	run := func(id string, next func() error) error {
		s := &stream{ctx: t.Context(), req: &cri.ListContainersRequest{Filter: &cri.ContainerFilter{Id: id}}}
		return c.Stream(nil, s, &grpc.StreamServerInfo{FullMethod: "/x/StreamContainers"}, func(_ any, ss grpc.ServerStream) error {
			if err := ss.RecvMsg(&cri.StreamContainersRequest{}); err != nil {
				return err
			}
			return next()
		})
	}
	if err := run("../", func() error { t.Error("it got through"); return nil }); status.Code(err) != codes.InvalidArgument {
		t.Errorf("got %v", err)
	}
	if err := run("abc", func() error { panic("x") }); status.Code(err) != codes.Internal {
		t.Errorf("got %v", err)
	}
	if err := run("abc", func() error { return nil }); err != nil {
		t.Errorf("got %v", err)
	}
	if len(o.all) != 3 || o.all[2].code != codes.OK {
		t.Errorf("observed %v", o.all)
	}
}
