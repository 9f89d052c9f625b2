//go:build e2e

package core

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/images/kit"
	"github.com/crid-project/crid/e2e/story"
)

// patience is how long the callers of these tests wait before they ask again.
var patience = []time.Duration{time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond}

// insist asks with each patience in turn, then without a limit. It fails if a retry is told anything but "I gave up waiting" or success:
// "name is reserved" is what wedges a kubelet.
func insist(s *story.Story, what string, call func(context.Context) error) {
	s.T.Helper()
	for _, limit := range patience {
		ctx, cancel := context.WithTimeout(s.T.Context(), limit)
		err := call(ctx)
		cancel()
		if code := status.Code(err); err != nil && code != codes.DeadlineExceeded && code != codes.Canceled {
			s.T.Errorf("%s with %s: %v", what, limit, err)
		}
	}
	if err := call(s.T.Context()); err != nil {
		s.T.Fatalf("%s after retries: %v", what, err)
	}
}

// A kubelet whose call ran into its deadline asks again, for the same: it gets what is under way, never a second one and never a refusal.
func TestRetriesJoin(t *testing.T) {
	s := story.Begin(t)
	for round := range 3 {
		config := s.Home.Pod(fmt.Sprintf("retry-%d", round))
		var pod, ctr string
		insist(s, "RunPodSandbox", func(ctx context.Context) (err error) { pod, err = s.RunPod(ctx, config, ""); return err })
		container := story.Shell("c", "trap 'exit 5' TERM; echo started >> /count; while :; do sleep 1 & wait $!; done")
		insist(s, "CreateContainer", func(ctx context.Context) (err error) { ctr, err = s.Create(ctx, pod, container, config); return err })
		// A second StartContainer of what runs already is the same wish; peers refuse it, a retry must not be refused.
		insist(s, "StartContainer", func(ctx context.Context) error { return s.StartContainer(ctx, ctr) })
		p := &story.Pod{Story: s, ID: pod, Config: config}
		c := &story.Container{Pod: p, ID: ctr, Config: container}
		s.Eventually("the start is counted", 5*time.Second, func() bool { n, _ := c.Try("test -s /count"); return n == 0 })
		if n := c.Sh("wc -l < /count"); n != "1" {
			t.Errorf("the container has started %s times", n)
		}
		insist(s, "StopContainer", func(ctx context.Context) error { return s.StopContainer(ctx, ctr, 10) })
		if st := c.WantState(exited); st.GetExitCode() != 5 {
			t.Errorf("ended with %d", st.GetExitCode())
		}
		insist(s, "RemoveContainer", func(ctx context.Context) error { return s.RemoveContainer(ctx, ctr) })
		insist(s, "StopPodSandbox", func(ctx context.Context) error { return s.StopPod(ctx, pod) })
		insist(s, "RemovePodSandbox", func(ctx context.Context) error { return s.RemovePod(ctx, pod) })
		if pods, err := s.Pods(t.Context()); err != nil || len(pods) != 0 {
			t.Fatalf("round %d leaves %v (%v)", round, pods, err)
		}
	}
}

func TestAPullIsJoined(t *testing.T) {
	s := story.Begin(t)
	const image = "quay.io/crid/forms:oci-gzip"
	spec := &runtimeapi.ImageSpec{Image: image}
	if _, err := s.Images.RemoveImage(t.Context(), &runtimeapi.RemoveImageRequest{Image: spec}); err != nil {
		t.Fatal(err)
	}
	insist(s, "PullImage", func(ctx context.Context) error {
		_, err := s.Images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: spec})
		return err
	})
	if _, err := s.Images.RemoveImage(t.Context(), &runtimeapi.RemoveImageRequest{Image: spec}); err != nil {
		t.Fatal(err)
	}
	refs := make([]string, 16)
	for _, err := range story.AtOnce(len(refs), func(n int) (err error) { refs[n], err = s.Pull(t.Context(), image); return err }) {
		if err != nil {
			t.Error(err)
		}
	}
	for _, ref := range refs {
		if ref != refs[0] {
			t.Errorf("the same pull gives %s and %s", refs[0], ref)
		}
	}
}

// 32 callers who want the same get the same.
func TestIdenticalRequestsMakeOneObject(t *testing.T) {
	s := story.Begin(t)
	ctx := t.Context()
	config := s.Home.Pod("same")
	ids := make([]string, 32)
	for _, err := range story.AtOnce(len(ids), func(n int) (err error) { ids[n], err = s.RunPod(ctx, config, ""); return err }) {
		if err != nil {
			t.Error(err)
		}
	}
	one := func(what string) {
		t.Helper()
		for _, id := range ids {
			if id != ids[0] {
				t.Fatalf("%s: %s and %s", what, ids[0], id)
			}
		}
	}
	one("RunPodSandbox")
	pod := ids[0]
	for _, err := range story.AtOnce(len(ids), func(n int) (err error) { ids[n], err = s.Create(ctx, pod, story.Sleeper("c"), config); return err }) {
		if err != nil {
			t.Error(err)
		}
	}
	one("CreateContainer")
	ctr := ids[0]
	for _, err := range story.AtOnce(len(ids), func(int) error { return s.StartContainer(ctx, ctr) }) {
		if err != nil {
			t.Errorf("StartContainer: %v", err)
		}
	}
	if n := names(s); len(n) != 1 || n["c"] != 1 {
		t.Errorf("containers: %v", n)
	}
	for _, err := range story.AtOnce(32, func(int) error { return s.RemoveContainer(ctx, ctr) }) {
		if err != nil {
			t.Errorf("RemoveContainer: %v", err)
		}
	}
	for _, err := range story.AtOnce(32, func(int) error { return s.RemovePod(ctx, pod) }) {
		if err != nil {
			t.Errorf("RemovePodSandbox: %v", err)
		}
	}
}

// A name belongs to what is there, and to nothing after that.
func TestNamesAreFreeAgain(t *testing.T) {
	s := story.Begin(t)
	ctx := t.Context()
	p := s.Pod("names")
	first := p.Go(story.Sleeper("c"))
	first.Remove()
	second := p.Go(story.Sleeper("c"))
	if second.ID == first.ID {
		t.Error("a new container has the removed one's id")
	}
	second.Remove()
	bad := story.Sleeper("c")
	bad.Image.Image = "registry.k8s.io/not/here:1"
	if _, err := s.Create(ctx, p.ID, bad, p.Config); err == nil {
		t.Fatal("a container of an image that is not there")
	}
	bad = story.Sleeper("c")
	bad.Mounts = []*runtimeapi.Mount{{ContainerPath: "/x", HostPath: "relative"}}
	if _, err := s.Create(ctx, p.ID, bad, p.Config); err == nil {
		t.Fatal("a mount of a relative path")
	}
	p.Go(story.Sleeper("c")) // the name is free after creates that failed
	next := story.Sleeper("c")
	next.Metadata.Attempt = 1
	p.Go(next) // another attempt is another name
	if err := s.RemovePodFully(ctx, p.ID); err != nil {
		t.Fatal(err)
	}
	id, err := s.RunPod(ctx, p.Config, "")
	if err != nil || id == p.ID {
		t.Errorf("the removed pod's name again: %s (%v)", id, err)
	}
}

// A pod whose network fails leaves nothing, and its name is free at once.
func TestAPodThatCannotBeMade(t *testing.T) {
	s := story.Begin(t)
	ctx := t.Context()
	for what, change := range map[string]func(*runtimeapi.PodSandboxConfig){
		"an unknown sysctl": func(c *runtimeapi.PodSandboxConfig) { c.Linux.Sysctls = map[string]string{"net.no.such": "1"} },
		"a host port of 70000": func(c *runtimeapi.PodSandboxConfig) {
			c.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 80, HostPort: 70000}}
		},
	} {
		config := s.Home.Pod("broken")
		change(config)
		if id, err := s.RunPod(ctx, config, ""); err == nil {
			t.Errorf("a pod with %s runs: %s", what, id)
		}
		fine := s.Home.Pod("broken")
		fine.Metadata = config.Metadata
		id, err := s.RunPod(ctx, fine, "")
		if err != nil {
			t.Fatalf("after a pod with %s its name is not free: %v", what, err)
		}
		if err := s.RemovePodFully(ctx, id); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.RunPod(ctx, s.Home.Pod("handler"), "no-such-handler"); err == nil {
		t.Error("a pod of a handler that is not there")
	}
	if err := s.Have(ctx, kit.Busybox); err != nil {
		t.Error(err)
	}
}
