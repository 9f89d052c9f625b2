//go:build e2e

package host

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/images/kit"
	"github.com/crid-project/crid/e2e/story"
)

// The machine reboots: /run is empty, /var is as it was, the boot id is another. With leases lost, or with /run kept, it is the same.
func TestF59F60Reboot(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what            string
		keepRun, noIPAM bool
	}{{"as usual", false, false}, {"with leases lost", false, true}, {"with /run kept", true, false}} {
		t.Run(c.what, func(t *testing.T) {
			s := story.AloneIn(t, harness.Crid{}, shared)
			before := leases(s.Home)
			port := func(p *runtimeapi.PodSandboxConfig) {
				p.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 80, HostPort: 12971}}
			}
			p := s.Pod("plain", port)
			q := s.Pod("shared", func(p *runtimeapi.PodSandboxConfig) { harness.SharedPID(p) })
			p.Go(story.Shell("done", "exit 3")).Exited()
			p.Go(story.Sleeper("runs"))
			p.Make(story.Sleeper("made"))
			q.Go(story.Sleeper("other"))
			if !c.keepRun {
				if err := s.Stop(); err != nil { // an orderly shutdown, after which all images are there
					t.Fatal(err)
				}
			}
			powerOff(s)
			if !c.keepRun {
				if err := s.Home.LoseState(); err != nil {
					t.Fatal(err)
				}
			}
			if c.noIPAM {
				if err := os.RemoveAll(filepath.Join(s.Home.IPAM(), s.Home.Name)); err != nil {
					t.Fatal(err)
				}
			}
			reboot(s, 0)
			again(s)
			afterReboot(s, p, q)
			if c.keepRun { // the machine just went dark: what was not on the disk yet has to be pulled again
				if err := s.Have(t.Context(), kit.Busybox); err != nil {
					t.Fatal(err)
				}
			}
			// The kubelet's sequence, with the names that it had.
			for _, old := range []*story.Pod{p, q} {
				if err := s.StopPod(t.Context(), old.ID); err != nil {
					t.Errorf("stop: %v", err)
				}
				if err := s.RemovePod(t.Context(), old.ID); err != nil {
					t.Errorf("remove: %v", err)
				}
				id, err := s.RunPod(t.Context(), old.Config, "")
				if err != nil {
					t.Fatalf("the same name again: %v", err)
				}
				(&story.Pod{Story: s, ID: id, Config: old.Config}).Go(story.Sleeper("runs")).Sh("true")
			}
			if n := leases(s.Home) - before; n != 2 {
				t.Errorf("%d leases for two pods", n)
			}
		})
	}
}

// afterReboot: nothing runs, what had ended ended as it had, and nobody knows of the others.
func afterReboot(s *story.Story, pods ...*story.Pod) {
	s.T.Helper()
	got := states(s)
	for name, want := range map[string]runtimeapi.ContainerState{"done": exited, "runs": exited, "other": exited} {
		if got[name] != want {
			s.T.Errorf("container %s is %s", name, got[name])
		}
	}
	if got["made"] == running {
		s.T.Error("a container that was never started runs")
	}
	list, err := s.Containers(s.T.Context())
	if err != nil {
		s.T.Fatal(err)
	}
	for _, c := range list {
		st, err := s.Daemon.Status(s.T.Context(), c.GetId())
		if err != nil {
			s.T.Fatal(err)
		}
		switch name := c.GetMetadata().GetName(); {
		case name == "done" && st.GetExitCode() != 3:
			s.T.Errorf("what ended with 3 before is said to have ended with %d", st.GetExitCode())
		case name == "runs" && st.GetExitCode() != 255:
			s.T.Errorf("nobody knows how it ended, and the code is %d", st.GetExitCode())
		case st.GetState() == exited && (st.GetFinishedAt() < st.GetStartedAt() || st.GetStartedAt() < st.GetCreatedAt() && st.GetStartedAt() != 0):
			s.T.Errorf("%s: created %d, started %d, finished %d", name, st.GetCreatedAt(), st.GetStartedAt(), st.GetFinishedAt())
		}
	}
	for _, p := range pods {
		s.Eventually("the pod is not ready", 5*time.Second, func() bool { return p.Status().GetState() == notReady })
	}
}
