//go:build e2e

package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/faults/watch"
	"github.com/crid-project/crid/e2e/images/kit"
	"github.com/crid-project/crid/e2e/story"
)

// deadlines are how long callers wait before they ask again. The last caller leaves of his own will.
var deadlines = []time.Duration{time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond, time.Second}

// refusals are what a call may be told that is no answer to a deadline: what is asked for is not offered at all.
var refusals = map[protoreflect.Name][]codes.Code{
	"CheckpointContainer": {codes.Unimplemented},
	"CheckpointPod":       {codes.Unimplemented},
	"RestorePod":          {codes.Unimplemented},
}

// patience asks with each deadline, then as one who leaves in the middle, then until it is answered.
func patience(s *story.Story, what string, refused []codes.Code, ask func(context.Context) error) {
	s.T.Helper()
	allowed := append([]codes.Code{codes.OK, codes.DeadlineExceeded, codes.Canceled}, refused...)
	for _, d := range deadlines {
		ctx, cancel := context.WithTimeout(s.T.Context(), d)
		s.WantCode(fmt.Sprintf("%s with %s", what, d), ask(ctx), allowed...)
		cancel()
	}
	ctx, cancel := context.WithCancel(s.T.Context())
	timer := time.AfterFunc(5*time.Millisecond, cancel)
	s.WantCode(what+", cancelled", ask(ctx), allowed...)
	timer.Stop()
	cancel()
	s.WantCode(what+", until it is answered", ask(s.T.Context()), append([]codes.Code{codes.OK}, refused...)...)
}

// life are the calls that change something, in an order in which each can be made.
var life = []protoreflect.Name{"PullImage", "RunPodSandbox", "CreateContainer", "StartContainer", "UpdateContainerResources", "ReopenContainerLog", "ExecSync",
	"Exec", "Attach", "PortForward", "UpdatePodSandboxResources", "CheckpointContainer", "UpdateRuntimeConfig", "StopContainer", "RemoveContainer",
	"StopPodSandbox", "RemovePodSandbox", "RemoveImage"}

// Every call there is, with deadlines of a millisecond to a second, then cancelled, then for good: each is told its deadline or success, and what is there
// at the end was made once.
func TestF86EveryCallWithEveryDeadline(t *testing.T) {
	s := story.Begin(t)
	watch.Others(s)
	conn := dial(s)
	const image = "quay.io/crid/forms:oci-tar"
	config := s.Home.Pod("deadline")
	container := story.Shell("c", "trap 'exit 5' TERM; echo started >> /count; while :; do sleep 1 & wait $!; done")
	ids := map[string]string{}
	special := map[protoreflect.Name]func() proto.Message{
		"PullImage": func() proto.Message { return &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: image}} },
		"RemoveImage": func() proto.Message {
			return &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: image}}
		},
		"ImageStatus": func() proto.Message {
			return &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: kit.Busybox}}
		},
		"RunPodSandbox": func() proto.Message { return &runtimeapi.RunPodSandboxRequest{Config: config} },
		"CreateContainer": func() proto.Message {
			return &runtimeapi.CreateContainerRequest{PodSandboxId: ids["pod"], Config: container, SandboxConfig: config}
		},
		"StopContainer": func() proto.Message {
			return &runtimeapi.StopContainerRequest{ContainerId: ids["container"], Timeout: 10}
		},
		"ExecSync": func() proto.Message {
			return &runtimeapi.ExecSyncRequest{ContainerId: ids["container"], Cmd: []string{"true"}, Timeout: 10}
		},
		"Exec": func() proto.Message {
			return &runtimeapi.ExecRequest{ContainerId: ids["container"], Cmd: []string{"true"}, Stdout: true}
		},
		"Attach": func() proto.Message { return &runtimeapi.AttachRequest{ContainerId: ids["container"], Stdout: true} },
		"PortForward": func() proto.Message {
			return &runtimeapi.PortForwardRequest{PodSandboxId: ids["pod"], Port: []int32{80}}
		},
		"UpdateContainerResources": func() proto.Message {
			return &runtimeapi.UpdateContainerResourcesRequest{ContainerId: ids["container"], Linux: &runtimeapi.LinuxContainerResources{CpuShares: 512}}
		},
		"UpdatePodSandboxResources": func() proto.Message {
			return &runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: ids["pod"], Resources: &runtimeapi.LinuxContainerResources{CpuShares: 512}}
		},
		"UpdateRuntimeConfig": func() proto.Message {
			return &runtimeapi.UpdateRuntimeConfigRequest{RuntimeConfig: &runtimeapi.RuntimeConfig{}}
		},
	}
	byName := map[protoreflect.Name]call{}
	for _, c := range calls(t, false) {
		byName[c.Name()] = c
	}
	ask := func(c call) {
		patience(s, string(c.Name()), refusals[c.Name()], func(ctx context.Context) error {
			req := c.request(t)
			if other, ok := special[c.Name()]; ok {
				req = other()
			} else {
				set(req, "pod_sandbox_id", ids["pod"])
				set(req, "container_id", ids["container"])
			}
			reply := fresh(t, c.Output())
			err := conn.Invoke(ctx, c.path(), req, reply)
			switch r := reply.(type) {
			case *runtimeapi.RunPodSandboxResponse:
				ids["pod"] = r.GetPodSandboxId()
			case *runtimeapi.CreateContainerResponse:
				ids["container"] = r.GetContainerId()
			}
			return err
		})
	}
	changing := map[protoreflect.Name]bool{}
	for _, name := range life {
		changing[name] = true
	}
	for _, name := range life {
		c, ok := byName[name]
		if !ok {
			t.Logf("no call %s in this version of CRI", name)
			continue
		}
		ask(c)
		switch name {
		case "StartContainer":
			p := &story.Pod{Story: s, ID: ids["pod"], Config: config}
			ctr := &story.Container{Pod: p, ID: ids["container"], Config: container}
			ctr.Sh("sleep 0.2")
			if n := ctr.Sh("wc -l < /count"); n != "1" {
				t.Errorf("the container has started %s times", n)
			}
			for _, other := range calls(t, false) { // those that only ask, while there is something to ask about
				if !changing[other.Name()] {
					ask(other)
				}
			}
			askStreams(s, conn)
		case "StopContainer":
			if st, err := s.Daemon.Status(t.Context(), ids["container"]); err != nil || st.GetState() != exited || st.GetExitCode() != 5 {
				t.Errorf("after the stops: %v (%v)", st, err)
			}
		}
	}
	nothing(s, "after a life of short deadlines")
}

// askStreams has the calls that answer with a stream go through the same.
func askStreams(s *story.Story, conn *grpc.ClientConn) {
	s.T.Helper()
	for _, c := range calls(s.T, true) {
		for _, d := range append(deadlines, 0) {
			ctx, cancel := context.WithTimeout(s.T.Context(), max(d, 50*time.Millisecond))
			if d > 0 {
				ctx, cancel = context.WithTimeout(s.T.Context(), d)
			}
			stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, c.path())
			if err == nil {
				err = errors.Join(stream.SendMsg(c.request(s.T)), stream.CloseSend())
			}
			for err == nil {
				err = stream.RecvMsg(fresh(s.T, c.Output()))
			}
			cancel()
			if !errors.Is(err, io.EOF) {
				s.WantCode(fmt.Sprintf("%s with %s", c.Name(), d), err, codes.DeadlineExceeded, codes.Canceled, codes.Unimplemented)
			}
		}
	}
}
