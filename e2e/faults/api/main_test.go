//go:build e2e

package api

import (
	"context"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/story"
)

func TestMain(m *testing.M) { story.Main(m) }

const exited = runtimeapi.ContainerState_CONTAINER_EXITED

// call is one of CRI's.
type call struct {
	protoreflect.MethodDescriptor
}

func (c call) path() string { return "/" + string(c.Parent().FullName()) + "/" + string(c.Name()) }

// request is an empty one of its kind.
func (c call) request(t *testing.T) proto.Message { t.Helper(); return fresh(t, c.Input()) }

func fresh(t *testing.T, d protoreflect.MessageDescriptor) proto.Message {
	t.Helper()
	m, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		t.Fatal(err)
	}
	return m.New().Interface()
}

// calls are all of CRI's that answer once, or with a stream.
func calls(t *testing.T, streams bool) (all []call) {
	t.Helper()
	for _, name := range []protoreflect.FullName{"runtime.v1.RuntimeService", "runtime.v1.ImageService"} {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
		if err != nil {
			t.Fatal(err)
		}
		methods := d.(protoreflect.ServiceDescriptor).Methods()
		for i := range methods.Len() {
			if m := methods.Get(i); m.IsStreamingServer() == streams {
				all = append(all, call{m})
			}
		}
	}
	return all
}

// dial makes a connection to the daemon's socket.
func dial(s *story.Story) *grpc.ClientConn {
	s.T.Helper()
	conn, err := grpc.NewClient("passthrough:///crid", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", s.Home.Socket())
		}), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20), grpc.MaxCallSendMsgSize(256<<20)))
	if err != nil {
		s.T.Fatal(err)
	}
	s.T.Cleanup(func() { _ = conn.Close() })
	return conn
}

// nothing fails the test if a pod or a container is there.
func nothing(s *story.Story, after string) {
	s.T.Helper()
	pods, err := s.Pods(s.T.Context())
	if err != nil || len(pods) > 0 {
		s.T.Errorf("%s: pods %v (%v)", after, pods, err)
	}
	list, err := s.Containers(s.T.Context())
	if err != nil || len(list) > 0 {
		s.T.Errorf("%s: containers %v (%v)", after, list, err)
	}
}

// set sets every field of a name that ends so, wherever it is at the top of a message.
func set(m proto.Message, suffix, value string) (n int) {
	fields := m.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Kind() == protoreflect.StringKind && !f.IsList() && !f.IsMap() && strings.HasSuffix(string(f.Name()), suffix) {
			m.ProtoReflect().Set(f, protoreflect.ValueOfString(value))
			n++
		}
	}
	return n
}
