//go:build e2e

package restart

import (
	"context"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/faults/inject"
	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/images/kit"
	"github.com/crid-project/crid/e2e/project"
	"github.com/crid-project/crid/e2e/story"
)

// reset runs `crid reset` on the story's daemon, or what is left of it.
func reset(s *story.Story, more ...string) {
	s.T.Helper()
	program, err := project.Bin("crid")
	if err != nil {
		s.T.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.T.Context(), time.Minute)
	defer cancel()
	h := s.Home
	args := append([]string{"--config", h.Config(), "--root", h.Root(), "--state", h.State(), "--address", h.Socket(), "reset", "--yes"}, more...)
	start := time.Now()
	if out, err := exec.CommandContext(ctx, program, args...).CombinedOutput(); err != nil {
		s.T.Fatalf("crid %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	inject.Within(s.T, "the reset", time.Since(start), 45*time.Second)
}

// bare fails the test for anything that a pod could have left. The daemon does not run.
func bare(s *story.Story, before harness.Census) {
	s.T.Helper()
	var left []string
	for thing := range s.Census(s.T.Context()) {
		if before[thing] > 0 {
			continue // the node's own, or what another run left
		}
		for _, kind := range []string{"process in a cgroup: ", "shim or helper: ", "mount ", "veth ", "address lease ", "iptables ", "fifo ", "socket "} {
			if strings.HasPrefix(thing, kind) {
				left = append(left, thing)
			}
		}
		if strings.HasPrefix(thing, "cgroup ") && strings.Count(thing, "/") > 2 {
			left = append(left, thing)
		}
	}
	slices.Sort(left)
	for _, thing := range left {
		s.T.Errorf("after a reset there is still %s", thing)
	}
}

func furnish(s *story.Story) {
	s.T.Helper()
	p := s.Pod("a", func(c *runtimeapi.PodSandboxConfig) {
		c.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 80, HostPort: 12097}}
	})
	p.Go(story.Shell("deaf", "trap '' TERM; while :; do sleep 1; done"))
	p.Make(story.Sleeper("made"))
	s.Pod("b", func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
	}).Go(story.Sleeper("c"))
}

// After a reset the node is as before the first pod; images stay unless they are to go.
func TestResetLeavesNothing(t *testing.T) {
	s := alone(t)
	before := s.Census(t.Context())
	furnish(s)
	reset(s) // while crid runs
	for deadline := time.Now().Add(5 * time.Second); s.Running() && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if s.Running() {
		t.Error("crid runs after a reset")
		inject.Crash(s)
	}
	bare(s, before)
	reset(s) // twice is no error
	inject.Again(s)
	if pods, err := s.Pods(t.Context()); err != nil || len(pods) != 0 {
		t.Errorf("pods after a reset: %v (%v)", pods, err)
	}
	if r, err := s.Images.ImageStatus(t.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: kit.Busybox}}); err != nil || r.GetImage() == nil {
		t.Errorf("a reset without --images took the image (%v)", err)
	}

	furnish(s)
	inject.Crash(s)
	reset(s, "--images") // while crid is down
	bare(s, before)
	if found, err := filepath.Glob(filepath.Join(s.Home.Root(), "*", "*")); err != nil || len(found) != 0 {
		t.Errorf("under the root there is still %v (%v)", found, err)
	}
	inject.Again(s)
	if r, err := s.Images.ListImages(t.Context(), &runtimeapi.ListImagesRequest{}); err != nil || len(r.GetImages()) != 0 {
		t.Errorf("images after a reset with --images: %v (%v)", r.GetImages(), err)
	}
	if err := s.Have(t.Context(), kit.Busybox); err != nil {
		t.Fatal(err)
	}
	s.Pod("a").Go(story.Sleeper("deaf")).Sh("true")
}
