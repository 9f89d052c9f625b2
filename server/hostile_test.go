package server_test

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/server/internal/worldtest"
)

// fill sets every field of m, lists and maps with one entry, strings to s and
// numbers to n.
func fill(m protoreflect.Message, s string, n int64, depth int) {
	for i := range m.Descriptor().Fields().Len() {
		fd := m.Descriptor().Fields().Get(i)
		switch {
		case fd.IsMap():
			mp := m.Mutable(fd).Map()
			if fd.MapKey().Kind() == protoreflect.StringKind && fd.MapValue().Kind() == protoreflect.StringKind {
				mp.Set(protoreflect.ValueOfString(s).MapKey(), protoreflect.ValueOfString(s))
			}
		case fd.Message() != nil && depth > 0:
			if fd.IsList() {
				fill(m.Mutable(fd).List().AppendMutable().Message(), s, n, depth-1)
			} else {
				fill(m.Mutable(fd).Message(), s, n, depth-1)
			}
		case fd.Message() == nil:
			v, ok := scalar(fd, s, n)
			switch {
			case !ok:
			case fd.IsList():
				m.Mutable(fd).List().Append(v)
			default:
				m.Set(fd, v)
			}
		}
	}
}

func scalar(fd protoreflect.FieldDescriptor, s string, n int64) (protoreflect.Value, bool) {
	switch fd.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(s), true
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(s)), true
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(n%2 != 0), true
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(n % 3)), true
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(n), true
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(n)), true
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(n)), true
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(uint64(n)), true
	default:
		return protoreflect.Value{}, false
	}
}

// call makes a call by its name and answers its code; streams are read to
// their end.
func call(ctx context.Context, r *rig, m protoreflect.MethodDescriptor, req proto.Message) error {
	name := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
	out, err := protoregistry.GlobalTypes.FindMessageByName(m.Output().FullName())
	if err != nil {
		return err
	}
	if !m.IsStreamingServer() {
		return r.conn.Invoke(ctx, name, req, out.New().Interface())
	}
	s, err := r.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, name)
	if err != nil {
		return err
	}
	if err := s.SendMsg(req); err != nil {
		return err
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	for err == nil {
		err = s.RecvMsg(out.New().Interface())
	}
	if err.Error() == "EOF" {
		return nil
	}
	return err
}

// F92: whatever is sent to whatever call, the answer says what is wrong with
// it, and nothing breaks.
func TestNoRequestBreaksTheServer(t *testing.T) {
	r := start(t)
	pod := r.pod(t, "p")
	ctr := r.container(t, pod, "c", true)
	services := (&cri.VersionRequest{}).ProtoReflect().Descriptor().ParentFile().Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			m := methods.Get(j)
			in, err := protoregistry.GlobalTypes.FindMessageByName(m.Input().FullName())
			if err != nil {
				t.Fatal(err)
			}
			if m.Name() == "GetContainerEvents" {
				continue // takes nothing and does not end
			}
			for _, s := range []string{"", "../../../etc/passwd", "a\x00b", "\n", pod[:8], ctr, strings.Repeat("A", 70<<10), "ünïcode", "0"} {
				for _, n := range []int64{0, -1, 1, 1<<63 - 1, -1 << 63} {
					req := in.New()
					fill(req, s, n, 5)
					switch code := grpcstatus.Code(call(ctxOf(t), r, m, req.Interface())); code {
					case codes.OK, codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition, codes.Unimplemented:
					default:
						t.Errorf("%s with %.20q and %d: %v", m.Name(), s, n, code)
					}
				}
			}
			switch code := grpcstatus.Code(call(ctxOf(t), r, m, in.New().Interface())); code {
			case codes.OK, codes.InvalidArgument, codes.Unimplemented:
			default:
				t.Errorf("%s with nothing: %v", m.Name(), code)
			}
		}
	}
	if strings.Contains(r.log.String(), "panic in a call") {
		t.Error("a call panicked")
	}
}

// F93: an ambiguous id must not stop the wrong container, nor look like a
// container that is gone.
func TestAnAmbiguousIDIsRefused(t *testing.T) {
	r, ctx := start(t), ctxOf(t)
	p := worldtest.Pod(t, r.l, "p", nil)
	first := map[byte]string{}
	short := ""
	for i := 0; short == ""; i++ {
		id := worldtest.Running(t, r.l, p.ID, strings.Repeat("x", i+1), nil).ID
		if first[id[0]] != "" {
			short = id[:1]
		}
		first[id[0]] = id
	}
	_, err := r.rt.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: short})
	wantCode(t, "stop", err, codes.InvalidArgument, "ambiguous")
	_, err = r.rt.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: short})
	wantCode(t, "remove", err, codes.InvalidArgument, "ambiguous")
	_, err = r.rt.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: short})
	wantCode(t, "status", err, codes.InvalidArgument, "ambiguous")
}

func BenchmarkOverTheWire(b *testing.B) {
	r := start(b)
	for i := range 60 {
		p := worldtest.Pod(b, r.l, "p"+strings.Repeat("x", i), nil)
		worldtest.Running(b, r.l, p.ID, "a", nil)
		worldtest.Running(b, r.l, p.ID, "b", nil)
	}
	ctx := context.Background()
	for name, f := range map[string]func() error{
		"Version":             func() error { _, err := r.rt.Version(ctx, &cri.VersionRequest{}); return err },
		"ListPodSandbox":      func() error { _, err := r.rt.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{}); return err },
		"ListContainers":      func() error { _, err := r.rt.ListContainers(ctx, &cri.ListContainersRequest{}); return err },
		"ListPodSandboxStats": func() error { _, err := r.rt.ListPodSandboxStats(ctx, &cri.ListPodSandboxStatsRequest{}); return err },
		"ListPodSandboxMetrics": func() error {
			_, err := r.rt.ListPodSandboxMetrics(ctx, &cri.ListPodSandboxMetricsRequest{})
			return err
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
