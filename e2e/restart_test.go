//go:build e2e

package e2e

import (
	"strconv"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/harness"
)

func TestRestart(t *testing.T) {
	for _, how := range []struct {
		name string
		end  func(*harness.Daemon) error
	}{{"kill -9", (*harness.Daemon).Kill}, {"SIGTERM", (*harness.Daemon).Stop}} {
		t.Run(how.name, func(t *testing.T) { restart(t, how.end) })
	}
}

func restart(t *testing.T, end func(*harness.Daemon) error) {
	d := harness.Start(t, harness.Options{})
	ctx := t.Context()
	p := run(t, d, "restart", nil)
	steady := harness.Container("steady", "sh", "-c", "trap 'exit 4' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done")
	brief := harness.Container("brief", "sh", "-c", "sleep 1; echo last words; exit 42")
	never := harness.Container("never")
	steadyID, briefID := p.start(steady), p.start(brief)
	neverID, err := d.Create(ctx, p.id, never, p.config)
	if err != nil {
		t.Fatal(err)
	}
	pid := p.sh(steadyID, "cat /proc/1/stat | cut -d' ' -f22") // the start time: another process has another one
	if err := end(d); err != nil {
		t.Fatal(err)
	}
	down := time.Now()
	time.Sleep(2500 * time.Millisecond) // brief ends meanwhile, and nobody is there to see it
	if err := d.Start(ctx); err != nil {
		t.Fatal(err)
	}
	up := time.Now()

	// The first list is right: no grace for it.
	containers, err := d.Containers(ctx)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]runtimeapi.ContainerState{}
	for _, c := range containers {
		got[c.GetMetadata().GetName()] = c.GetState()
	}
	want := map[string]runtimeapi.ContainerState{"steady": runtimeapi.ContainerState_CONTAINER_RUNNING, "brief": runtimeapi.ContainerState_CONTAINER_EXITED,
		"never": runtimeapi.ContainerState_CONTAINER_CREATED}
	for name, state := range want {
		if got[name] != state {
			t.Errorf("%s is %s after the restart, not %s", name, got[name], state)
		}
	}
	if pods, err := d.Pods(ctx); err != nil || len(pods) != 1 || pods[0].GetState() != runtimeapi.PodSandboxState_SANDBOX_READY {
		t.Errorf("pods after the restart: %v (%v)", pods, err)
	}
	s, err := d.Status(ctx, briefID)
	if err != nil {
		t.Fatal(err)
	}
	if at := time.Unix(0, s.GetFinishedAt()); s.GetExitCode() != 42 || at.Before(down.Add(-time.Second)) || at.After(up.Add(-500*time.Millisecond)) {
		t.Errorf("brief ended with %d at %s; it was 42, about a second after %s and before %s", s.GetExitCode(), at, down, up)
	}
	if last := p.logged(brief, "stdout"); last != "last words\n" {
		t.Errorf("what brief wrote while crid was away: %q", last)
	}
	if now := p.sh(steadyID, "cat /proc/1/stat | cut -d' ' -f22"); now != pid {
		t.Errorf("steady was started again: %s, was %s", now, pid)
	}
	lines := strings.Count(p.logged(steady, "stdout"), "\n")
	eventually(t, "more of steady's log", 5*time.Second, func() bool { return strings.Count(p.logged(steady, "stdout"), "\n") > lines })
	for n, line := range strings.Fields(p.logged(steady, "stdout")) {
		if line != strconv.Itoa(n+1) {
			t.Fatalf("line %d of steady's log is %q: something was lost or came twice", n+1, line)
		}
	}
	if err := d.StartContainer(ctx, neverID); err != nil {
		t.Errorf("a container made before the restart does not start: %v", err)
	}
	if err := d.StopContainer(ctx, steadyID, 5); err != nil {
		t.Error(err)
	}
	if s := p.exited(steadyID); s.GetExitCode() != 4 {
		t.Errorf("steady ended with %d, not with the 4 of its handler", s.GetExitCode())
	}
}

// A kubelet does not wait: its probes and starts come as soon as the socket answers, when shims are not connected to yet.
func TestTheFirstCallsAfterARestart(t *testing.T) {
	d := harness.Start(t, harness.Options{Network: harness.Plain})
	const pods = 6
	var running, created []string
	for n := range pods {
		p := run(t, d, "pod"+strconv.Itoa(n), func(c *runtimeapi.PodSandboxConfig) { harness.HostNetwork(c) })
		running = append(running, p.start(harness.Container("running")))
		id, err := d.Create(t.Context(), p.id, harness.Container("created"), p.config)
		if err != nil {
			t.Fatal(err)
		}
		created = append(created, id)
	}
	if err := d.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 3*pods)
	for _, id := range running {
		go func() { _, err := d.Exec(t.Context(), id, "true"); failed <- err }()
		go func() {
			_, err := d.Runtime.UpdateContainerResources(t.Context(), &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id,
				Linux: &runtimeapi.LinuxContainerResources{CpuShares: 512}})
			failed <- err
		}()
	}
	for _, id := range created {
		go func() { failed <- d.StartContainer(t.Context(), id) }()
	}
	for range 3 * pods {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
}
