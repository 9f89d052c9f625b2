//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/images/kit"
)

func TestAPodFromRunToRemove(t *testing.T) {
	d := harness.Start(t, harness.Options{})
	ctx := t.Context()
	p := run(t, d, "whole", nil)
	s, err := d.Runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: p.id})
	if err != nil {
		t.Fatal(err)
	}
	if s.GetStatus().GetState() != runtimeapi.PodSandboxState_SANDBOX_READY || s.GetStatus().GetNetwork().GetIp() == "" {
		t.Errorf("a pod that runs is %s with address %q", s.GetStatus().GetState(), s.GetStatus().GetNetwork().GetIp())
	}
	config := harness.Container("main", "sh", "-c", "echo out; echo err >&2; exit 7")
	id, err := d.Create(ctx, p.id, config, p.config)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := d.Status(ctx, id); err != nil || s.GetState() != runtimeapi.ContainerState_CONTAINER_CREATED || s.GetStartedAt() != 0 {
		t.Errorf("a created container is %s, started at %d (%v)", s.GetState(), s.GetStartedAt(), err)
	}
	if err := d.StartContainer(ctx, id); err != nil {
		t.Fatal(err)
	}
	end := p.exited(id)
	if end.GetExitCode() != 7 || end.GetReason() != "Error" {
		t.Errorf("exit code %d, reason %q", end.GetExitCode(), end.GetReason())
	}
	if end.GetCreatedAt() > end.GetStartedAt() || end.GetStartedAt() > end.GetFinishedAt() {
		t.Errorf("times out of order: created %d, started %d, finished %d", end.GetCreatedAt(), end.GetStartedAt(), end.GetFinishedAt())
	}
	if out, errs := p.logged(config, "stdout"), p.logged(config, "stderr"); out != "out\n" || errs != "err\n" {
		t.Errorf("logged %q and %q: everything written before the end is in the file when the end is told", out, errs)
	}
	if err := d.RemovePodFully(ctx, p.id); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Status(ctx, id); err == nil {
		t.Error("a removed pod's container still has a status")
	} else {
		wantCode(t, err, codes.NotFound)
	}
}

func TestExitCodesAreTrue(t *testing.T) {
	d := harness.Start(t, harness.Options{})
	p := run(t, d, "codes", nil)
	for line, want := range map[string]int32{"exit 0": 0, "exit 255": 255, "kill -9 $$": 137, "kill -TERM $$; sleep 5": 143} {
		// process 1 of a namespace is immune to its own signals, so the shell that dies is another one
		id := p.start(harness.Container(fmt.Sprintf("c%d", want), "sh", "-c", "sh -c '"+line+"'; exit $?"))
		s := p.exited(id)
		reason := "Error"
		if want == 0 {
			reason = "Completed"
		}
		if s.GetExitCode() != want || s.GetReason() != reason {
			t.Errorf("%s: exit code %d (%s), not %d (%s)", line, s.GetExitCode(), s.GetReason(), want, reason)
		}
	}
}

func TestContainersOfAPodShareItsNetwork(t *testing.T) {
	d := harness.Start(t, harness.Options{})
	ctx := t.Context()
	if err := d.Have(ctx, kit.Httpd); err != nil {
		t.Fatal(err)
	}
	p := run(t, d, "shared", nil)
	server := harness.Container("server")
	server.Image.Image, server.Command = kit.Httpd, nil
	p.start(server)
	client := p.start(harness.Container("client"))
	eventually(t, "the page of the other container", 10*time.Second, func() bool {
		r, err := d.Exec(ctx, client, "wget", "-q", "-O", "-", "http://127.0.0.1/")
		return err == nil && strings.Contains(string(r.GetStdout()), "It works!")
	})
	if name := p.sh(client, "hostname"); name != "shared" {
		t.Errorf("the host name is %q", name)
	}
}

func TestStopIsPatientThenFirm(t *testing.T) {
	d := harness.Start(t, harness.Options{})
	p := run(t, d, "stop", nil)
	polite := harness.Container("polite", "sh", "-c", "trap 'echo told; exit 3' TERM; echo ready; while :; do sleep 1 & wait $!; done")
	deaf := harness.Container("deaf", "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
	ids := map[*runtimeapi.ContainerConfig]string{polite: p.start(polite), deaf: p.start(deaf)}
	for c := range ids {
		eventually(t, "ready", 10*time.Second, func() bool { return strings.Contains(p.logged(c, "stdout"), "ready") })
	}
	for c, want := range map[*runtimeapi.ContainerConfig]int32{polite: 3, deaf: 137} {
		start := time.Now()
		if err := d.StopContainer(t.Context(), ids[c], 2); err != nil {
			t.Fatal(err)
		}
		took := time.Since(start)
		s, err := d.Status(t.Context(), ids[c])
		if err != nil || s.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED || s.GetExitCode() != want {
			t.Errorf("%s: %s with %d (%v), not exited with %d", c.GetMetadata().GetName(), s.GetState(), s.GetExitCode(), err, want)
		}
		if c == polite && took > 1900*time.Millisecond {
			t.Errorf("a container that ends when told took %s", took)
		}
		if c == deaf && (took < 1500*time.Millisecond || took > 10*time.Second) {
			t.Errorf("a deaf container with 2 s of grace took %s", took)
		}
	}
}

func TestEverythingCanBeAskedTwice(t *testing.T) {
	d := harness.Start(t, harness.Options{})
	ctx := t.Context()
	p := run(t, d, "twice", nil)
	id := p.start(harness.Container("c"))
	for range 2 {
		if err := d.StopContainer(ctx, id, 1); err != nil {
			t.Error(err)
		}
	}
	for range 2 {
		if err := d.RemoveContainer(ctx, id); err != nil {
			t.Error(err)
		}
	}
	for range 2 {
		if err := d.StopPod(ctx, p.id); err != nil {
			t.Error(err)
		}
	}
	for range 2 {
		if err := d.RemovePod(ctx, p.id); err != nil {
			t.Error(err)
		}
	}
	for _, unknown := range []string{"0123456789abcdef", "nothing"} {
		if err := d.StopContainer(ctx, unknown, 0); err != nil {
			t.Errorf("to stop what is not there is no error: %v", err)
		}
		if err := d.RemovePod(ctx, unknown); err != nil {
			t.Errorf("to remove what is not there is no error: %v", err)
		}
	}
}

// A kubelet whose call ran into its deadline asks again, with the same name and attempt.
func TestARetryJoins(t *testing.T) {
	d := harness.Start(t, harness.Options{})
	onlyCrid(t, d)
	ctx := t.Context()
	config := d.Home.Pod("retry")
	var wait sync.WaitGroup
	ids := make([]string, 4)
	for n := range ids {
		wait.Go(func() {
			id, err := d.RunPod(ctx, config, "")
			if err != nil {
				t.Errorf("call %d: %v", n, err)
			}
			ids[n] = id
		})
	}
	wait.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("the same pod has the ids %v", ids)
		}
	}
	if pods, err := d.Pods(ctx); err != nil || len(pods) != 1 {
		t.Errorf("%d pods (%v)", len(pods), err)
	}
}

func TestManyPodsAtOnce(t *testing.T) {
	d := harness.Start(t, harness.Options{})
	ctx := t.Context()
	var wait sync.WaitGroup
	for n := range 10 {
		wait.Go(func() {
			config := d.Home.Pod(fmt.Sprintf("many-%d", n))
			id, err := d.RunPod(ctx, config, "")
			if err != nil {
				t.Error(err)
				return
			}
			c, err := d.Run(ctx, id, harness.Container("c"), config)
			if err != nil {
				t.Error(err)
				return
			}
			if r, err := d.Exec(ctx, c, "hostname"); err != nil || strings.TrimSpace(string(r.GetStdout())) != config.GetHostname() {
				t.Errorf("exec in %s answers %q (%v)", config.GetHostname(), r.GetStdout(), err)
			}
			if err := d.RemovePodFully(ctx, id); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
}
