package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/server/fault"
	"github.com/crid-project/crid/server/validate"
)

// DefaultDeadline ends calls whose client set no deadline. A kubelet's own is
// two minutes.
const DefaultDeadline = 5 * time.Minute

// maxMessage bounds an error's text: it travels in a gRPC header.
const maxMessage = 8 << 10

// Observer is told how long each call took and how it ended.
type Observer interface {
	Observe(rpc string, code codes.Code, took time.Duration)
}

// Chain holds the interceptors.
type Chain struct {
	Log *slog.Logger
	// Observer may be nil.
	Observer Observer
	// Panics, if set, is told of each panic that was caught.
	Panics func()
}

// Unary wraps a call that answers once.
func (c *Chain) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	began, rpc := time.Now(), shortName(info.FullMethod)
	defer func() { err = c.finish(ctx, rpc, req, began, recover(), err) }()
	m, _ := req.(proto.Message)
	if err := validate.Request(m); err != nil {
		return nil, err
	}
	ctx, cancel := deadline(ctx, req)
	defer cancel()
	return next(ctx, req)
}

// Stream wraps a call that answers many times.
func (c *Chain) Stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	began, rpc := time.Now(), shortName(info.FullMethod)
	w := &checked{ServerStream: ss}
	defer func() { err = c.finish(ss.Context(), rpc, w.first, began, recover(), err) }()
	return next(srv, w)
}

// checked validates what is received.
type checked struct {
	grpc.ServerStream
	first any
}

// RecvMsg implements grpc.ServerStream.
func (s *checked) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	s.first = m
	p, _ := m.(proto.Message)
	return validate.Request(p)
}

// deadline gives the call an end. Two have one of their own kind: a pull ends
// for want of progress, and a command may run as long as it was asked to.
func deadline(ctx context.Context, req any) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	switch r := req.(type) {
	case *cri.PullImageRequest, *cri.ExecSyncRequest:
		return ctx, func() {}
	case *cri.StopContainerRequest:
		return context.WithTimeout(ctx, min(validate.MaxWait, validate.Seconds(r.GetTimeout())+DefaultDeadline))
	}
	return context.WithTimeout(ctx, DefaultDeadline)
}

// finish turns a panic into an error and an error into a status, and tells.
func (c *Chain) finish(ctx context.Context, rpc string, req any, began time.Time, panicked any, err error) error {
	if panicked != nil {
		c.Log.Error("panic in a call", "rpc", rpc, "panic", fmt.Sprint(panicked), "stack", string(debug.Stack()))
		if c.Panics != nil {
			c.Panics()
		}
		err = status.Errorf(codes.Internal, "%s failed by a defect of crid, see its log", rpc)
	}
	err = short(fault.Status(err))
	took, code := time.Since(began), status.Code(err)
	if c.Observer != nil {
		c.Observer.Observe(rpc, code, took)
	}
	if level := levelOf(code); c.Log.Enabled(ctx, level) {
		attrs := append([]slog.Attr{slog.String("rpc", rpc), slog.String("code", code.String()), slog.Duration("took", took)}, ids(req)...)
		if err != nil {
			attrs = append(attrs, slog.String("error", status.Convert(err).Message()))
		}
		c.Log.LogAttrs(ctx, level, "call", attrs...)
	}
	return err
}

// short cuts the text of an error to what a gRPC header should carry.
func short(err error) error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	if len(s.Message()) <= maxMessage {
		return err
	}
	return status.Error(s.Code(), strings.ToValidUTF8(s.Message()[:maxMessage], "")+" …")
}

// levelOf says how loud a call's end is: what a client did wrong is its own
// matter, what broke here is ours.
func levelOf(code codes.Code) slog.Level {
	switch code {
	case codes.OK:
		return slog.LevelDebug
	case codes.Internal, codes.Unknown, codes.DataLoss:
		return slog.LevelError
	case codes.DeadlineExceeded, codes.Unavailable, codes.ResourceExhausted:
		return slog.LevelWarn
	default:
		return slog.LevelInfo
	}
}

// ids answers the pod, the container and the image of a request and nothing
// else of it.
func ids(req any) []slog.Attr {
	var out []slog.Attr
	if r, ok := req.(interface{ GetPodSandboxId() string }); ok && r.GetPodSandboxId() != "" {
		out = append(out, slog.String("pod", clip(r.GetPodSandboxId())))
	}
	if r, ok := req.(interface{ GetContainerId() string }); ok && r.GetContainerId() != "" {
		out = append(out, slog.String("container", clip(r.GetContainerId())))
	}
	if r, ok := req.(interface{ GetImage() *cri.ImageSpec }); ok && r.GetImage().GetImage() != "" {
		out = append(out, slog.String("image", clip(r.GetImage().GetImage())))
	}
	if r, ok := req.(*cri.RunPodSandboxRequest); ok {
		md := r.GetConfig().GetMetadata()
		out = append(out, slog.String("name", clip(md.GetNamespace()+"/"+md.GetName())), slog.Uint64("attempt", uint64(md.GetAttempt())))
	}
	if r, ok := req.(*cri.CreateContainerRequest); ok {
		md := r.GetConfig().GetMetadata()
		out = append(out, slog.String("name", clip(md.GetName())), slog.Uint64("attempt", uint64(md.GetAttempt())))
	}
	return out
}

// clip keeps a hostile id from filling the log.
func clip(s string) string {
	if len(s) > 256 {
		return s[:256] + "…"
	}
	return s
}

// shortName is the last part of "/runtime.v1.RuntimeService/StopContainer".
func shortName(method string) string { return method[strings.LastIndexByte(method, '/')+1:] }
