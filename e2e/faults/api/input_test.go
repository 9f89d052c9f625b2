//go:build e2e

package api

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/faults/watch"
	"github.com/crid-project/crid/e2e/story"
)

// sane are the codes that a bad request may have. A defect is told as Internal or Unknown.
var sane = map[codes.Code]bool{codes.OK: true, codes.InvalidArgument: true, codes.NotFound: true, codes.FailedPrecondition: true,
	codes.Unimplemented: true, codes.ResourceExhausted: true, codes.DeadlineExceeded: true}

// strings that nobody should take for an id, a name or a path.
var hostile = map[string]string{
	"empty": "", "up": "../../../../etc", "root": "/", "dot": ".", "4 KiB": strings.Repeat("a", 4096), "64 KiB": strings.Repeat("é", 32<<10),
	"zero byte": "a\x00b", "newline": "a\nb", "unicode": "ⅳ\u202eexe", "format": "%s%n%d", "shell": "$(reboot)`reboot`;", "one letter": "a", "id": strings.Repeat("f", 64),
	"flag": "--help", "spaces": "   ",
}

func check(s *story.Story, what string, err error) {
	s.T.Helper()
	st := status.Convert(err)
	if !sane[st.Code()] {
		s.T.Errorf("%s: %v", what, err)
	}
	if len(st.Message()) > 8<<10+16 || !utf8.ValidString(st.Message()) || strings.ContainsAny(st.Message(), "\x00\n") {
		s.T.Errorf("%s: a message of %d bytes: %.200q", what, len(st.Message()), st.Message())
	}
}

// Every call with every hostile string in each of its ids and names, and with nothing at all: it is refused in words, at once, and nothing is left.
func TestF92HostileRequests(t *testing.T) {
	s := story.Begin(t)
	watch.Others(s)
	conn := dial(s)
	pid := s.Pid()
	for _, c := range calls(t, false) {
		for _, what := range slices.Sorted(maps.Keys(hostile)) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			req := c.request(t)
			set(req, "", hostile[what])
			start := time.Now()
			err := conn.Invoke(ctx, c.path(), req, fresh(t, c.Output()))
			cancel()
			if what == "zero byte" && status.Code(err) == codes.Internal && strings.Contains(err.Error(), "marshal") {
				continue // it never left
			}
			check(s, fmt.Sprintf("%s, %s", c.Name(), what), err)
			if took := time.Since(start); took > 8*time.Second {
				t.Errorf("%s, %s: %s", c.Name(), what, took)
			}
		}
	}
	nothing(s, "after hostile requests")
	if s.Pid() != pid {
		t.Error("the daemon is another")
	}
}

// Fields with values that no kubelet sends: the field is named, the code is InvalidArgument, and nothing is left of it.
func TestF92FieldsAreNamed(t *testing.T) {
	s := story.Begin(t)
	many := map[string]string{}
	for i := range 10_000 {
		many[fmt.Sprintf("label-%d", i)] = strings.Repeat("v", 100)
	}
	for what, c := range map[string]struct {
		field  string
		change func(*runtimeapi.PodSandboxConfig)
	}{
		"no metadata":        {"metadata", func(p *runtimeapi.PodSandboxConfig) { p.Metadata = nil }},
		"a name of 64 KiB":   {"name", func(p *runtimeapi.PodSandboxConfig) { p.Metadata.Name = strings.Repeat("n", 64<<10) }},
		"a relative log":     {"log_directory", func(p *runtimeapi.PodSandboxConfig) { p.LogDirectory = "../../x" }},
		"an unknown network": {"network", func(p *runtimeapi.PodSandboxConfig) { p.Linux.SecurityContext.NamespaceOptions.Network = 77 }},
		"an unknown pid":     {"pid", func(p *runtimeapi.PodSandboxConfig) { p.Linux.SecurityContext.NamespaceOptions.Pid = -1 }},
		"a port of 1<<31-1": {"port", func(p *runtimeapi.PodSandboxConfig) {
			p.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 1<<31 - 1, HostPort: 80}}
		}},
		"a cgroup above": {"cgroup_parent", func(p *runtimeapi.PodSandboxConfig) { p.Linux.CgroupParent = "/../../x" }},
		"hostname":       {"hostname", func(p *runtimeapi.PodSandboxConfig) { p.Hostname = strings.Repeat("h", 5000) }},
	} {
		config := s.Home.Pod("bad")
		c.change(config)
		_, err := s.RunPod(t.Context(), config, "")
		s.WantCode(what, err, codes.InvalidArgument)
		if err != nil && !strings.Contains(err.Error(), c.field) {
			t.Errorf("%s: the field %s is not named: %.300v", what, c.field, err)
		}
	}
	p := s.Pod("good")
	for what, c := range map[string]struct {
		field  string
		change func(*runtimeapi.ContainerConfig)
	}{
		"no metadata":     {"metadata", func(c *runtimeapi.ContainerConfig) { c.Metadata = nil }},
		"no image":        {"image", func(c *runtimeapi.ContainerConfig) { c.Image = nil }},
		"a log elsewhere": {"log_path", func(c *runtimeapi.ContainerConfig) { c.LogPath = "../../../etc/x" }},
		"a relative mount": {"mounts", func(c *runtimeapi.ContainerConfig) {
			c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/x", HostPath: "y"}}
		}},
		"propagation of 99": {"propagation", func(c *runtimeapi.ContainerConfig) {
			c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/x", HostPath: "/tmp", Propagation: 99}}
		}},
		"a negative memory": {"memory", func(c *runtimeapi.ContainerConfig) {
			c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: -5}
		}},
		"a stop signal of 9999": {"stop_signal", func(c *runtimeapi.ContainerConfig) { c.StopSignal = 9999 }},
	} {
		config := story.Sleeper("bad")
		c.change(config)
		_, err := s.Create(t.Context(), p.ID, config, p.Config)
		s.WantCode(what, err, codes.InvalidArgument)
		if err != nil && !strings.Contains(err.Error(), c.field) {
			t.Errorf("%s: the field %s is not named: %.300v", what, c.field, err)
		}
	}
	if list, err := s.Containers(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("containers: %v (%v)", list, err)
	}
	c := p.Go(story.Sleeper("c"))
	for what, err := range map[string]error{
		"a negative timeout of exec": second(s.Runtime.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: c.ID, Cmd: []string{"true"}, Timeout: -1})),
		"exec of nothing":            second(s.Runtime.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: c.ID})),
	} {
		s.WantCode(what, err, codes.InvalidArgument)
	}
	// A grace that overflows is as long as can be, a negative one none.
	deaf := p.Go(story.Shell("deaf", "trap '' TERM; echo ready; while :; do sleep 1; done"))
	deaf.Heard("ready")
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := s.StopContainer(ctx, deaf.ID, 1<<63-1); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a stop with a grace of ages: %v", err)
	}
	large := s.Home.Pod("large")
	large.Labels = many
	if id, err := s.RunPod(t.Context(), large, ""); err == nil {
		if err := s.RemovePodFully(t.Context(), id); err != nil {
			t.Error(err)
		}
	} else {
		s.WantCode("10,000 labels", err, codes.InvalidArgument)
	}
}

func second[T any](_ T, err error) error { return err }

// raw sends bytes as they are.
type raw struct{}

func (raw) Name() string { return "proto" }
func (raw) Marshal(v any) ([]byte, error) {
	if b, ok := v.([]byte); ok {
		return b, nil
	}
	return proto.Marshal(v.(proto.Message))
}
func (raw) Unmarshal(b []byte, v any) error { return proto.Unmarshal(b, v.(proto.Message)) }

var _ encoding.Codec = raw{}

// Messages that are no messages, that are too large, and calls that do not exist.
func TestF92MessagesThatAreNone(t *testing.T) {
	s := story.Begin(t)
	watch.Others(s)
	conn := dial(s)
	before := watch.Field(t, s.Pid(), "VmRSS")
	for what, body := range map[string][]byte{
		"noise": []byte("\xff\xfe\x00garbage\x12\x7f"), "16 MiB": make([]byte, 17<<20), "200 MiB": make([]byte, 200<<20),
		"a length that lies": {0x0a, 0xff, 0xff, 0xff, 0x7f}, "deep": []byte(strings.Repeat("\x0a\x0a", 5000)), "unknown fields": {0xfa, 0x7f, 0x03, 'a', 'b', 'c'},
	} {
		for _, c := range calls(t, false) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			err := conn.Invoke(ctx, c.path(), body, fresh(t, c.Output()), grpc.ForceCodec(raw{}))
			cancel()
			switch status.Code(err) {
			case codes.Internal: // gRPC's own word for what it cannot decode
				if !strings.Contains(err.Error(), "unmarshal") {
					t.Errorf("%s, %s: %v", c.Name(), what, err)
				}
			default:
				check(s, fmt.Sprintf("%s, %s", c.Name(), what), err)
			}
			if len(body) > 1<<20 {
				break // once is enough
			}
		}
	}
	if err := conn.Invoke(t.Context(), "/runtime.v1.RuntimeService/NoSuchCall", &runtimeapi.VersionRequest{}, &runtimeapi.VersionResponse{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("a call that does not exist: %v", err)
	}
	nothing(s, "after messages that are none")
	s.Eventually("the memory is given back", 60*time.Second, func() bool { return watch.Field(t, s.Pid(), "VmRSS") < before+48<<10 })
}
