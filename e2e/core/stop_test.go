//go:build e2e

package core

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/story"
)

const deaf = "trap '' TERM; echo ready; while :; do sleep 1; done"

// on tells, by its exit code, which signal a container was stopped with.
func on(name string) *runtimeapi.ContainerConfig {
	return story.Shell(name, "trap 'exit 15' TERM; trap 'exit 10' USR1; trap 'exit 12' USR2; trap 'exit 3' QUIT; echo ready; while :; do sleep 1 & wait $!; done")
}

func TestGraceIsGivenAndEnds(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("grace")
	polite, stubborn := p.Go(on("polite")), p.Go(story.Shell("deaf", deaf))
	polite.Heard("ready")
	stubborn.Heard("ready")
	if took := polite.Stop(20); took > 3*time.Second {
		t.Errorf("who ends when told is waited for %s", took)
	}
	if st := polite.WantState(exited); st.GetExitCode() != 15 {
		t.Errorf("the handler of TERM ends with 15, told is %d", st.GetExitCode())
	}
	if took := stubborn.Stop(1); took < 900*time.Millisecond || took > 5*time.Second {
		t.Errorf("who is deaf, with a second of grace, took %s", took)
	}
	if st := stubborn.WantState(exited); st.GetExitCode() != 137 {
		t.Errorf("who was killed ended with %d", st.GetExitCode())
	}
	none := p.Go(story.Shell("none", deaf))
	none.Heard("ready")
	if took := none.Stop(0); took > 2*time.Second {
		t.Errorf("without grace it took %s", took)
	}
}

// A second stop may only shorten the grace: were it to prolong it, a caller that retries would keep its container alive for ever.
func TestASecondStopOnlyShortens(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("shorten")
	c := p.Go(story.Shell("deaf", deaf))
	c.Heard("ready")
	start := time.Now()
	first := make(chan error, 1)
	go func() { first <- s.StopContainer(t.Context(), c.ID, 60) }()
	time.Sleep(200 * time.Millisecond)
	if err := s.StopContainer(t.Context(), c.ID, 1); err != nil {
		t.Fatal(err)
	}
	if err := <-first; err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 6*time.Second {
		t.Errorf("60 seconds, then 1: it took %s", took)
	}
	c = p.Go(story.Shell("again", deaf))
	c.Heard("ready")
	start = time.Now()
	go func() { first <- s.StopContainer(t.Context(), c.ID, 1) }()
	time.Sleep(100 * time.Millisecond)
	if err := s.StopContainer(t.Context(), c.ID, 60); err != nil {
		t.Fatal(err)
	}
	if err := <-first; err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 6*time.Second {
		t.Errorf("1 second, then 60: it took %s", took)
	}
}

// The caller's patience is not the grace: who gives up early has still asked.
func TestAStopGoesOnWithoutItsCaller(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("abandoned")
	c := p.Go(story.Shell("deaf", deaf))
	c.Heard("ready")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err := s.StopContainer(ctx, c.ID, 1)
	s.WantCode("a stop that is given up", err, codes.DeadlineExceeded)
	if st := c.Exited(); st.GetExitCode() != 137 {
		t.Errorf("code %d", st.GetExitCode())
	}
}

func TestTheStopSignalIsTheConfigurationsThenTheImages(t *testing.T) {
	s := story.Begin(t)
	const image = "ghcr.io/crid/oddities:1" // its STOPSIGNAL is SIGUSR1
	if err := s.Have(t.Context(), image); err != nil {
		t.Fatal(err)
	}
	p := s.Pod("signals")
	ofImage := on("image")
	ofImage.Image.Image = image
	ofConfig := on("config")
	ofConfig.Image.Image, ofConfig.StopSignal = image, runtimeapi.Signal_SIGNAL_SIGUSR2
	for config, want := range map[*runtimeapi.ContainerConfig]int32{ofImage: 10, ofConfig: 12} {
		c := p.Go(config)
		c.Heard("ready")
		if got := c.Status().GetStopSignal(); want == 10 && got != runtimeapi.Signal_SIGNAL_SIGUSR1 || want == 12 && got != runtimeapi.Signal_SIGNAL_SIGUSR2 {
			t.Errorf("the status names %s", got)
		}
		c.Stop(10)
		if st := c.WantState(exited); st.GetExitCode() != want {
			t.Errorf("stop signal of the %s: ended with %d, not %d", config.GetMetadata().GetName(), st.GetExitCode(), want)
		}
	}
}

func TestManyStopsOfOneContainer(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("stops")
	c := p.Go(story.Shell("deaf", deaf))
	c.Heard("ready")
	start := time.Now()
	for n, err := range story.AtOnce(32, func(n int) error { return s.StopContainer(t.Context(), c.ID, int64(1+n%5)) }) {
		if err != nil {
			t.Errorf("stop %d: %v", n, err)
		}
	}
	if took := time.Since(start); took > 6*time.Second {
		t.Errorf("32 stops, the shortest with 1 second, took %s", took)
	}
	c.WantState(exited)
}

// 32 at once, each of another container, take the time of one: no grace waits for another's.
func TestStopsSideBySide(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("many")
	var ids []string
	for n := range 8 {
		c := p.Go(story.Shell(fmt.Sprintf("deaf-%d", n), deaf))
		c.Heard("ready")
		ids = append(ids, c.ID)
	}
	start := time.Now()
	for n, err := range story.AtOnce(len(ids), func(n int) error { return s.StopContainer(t.Context(), ids[n], 1) }) {
		if err != nil {
			t.Errorf("stop %d: %v", n, err)
		}
	}
	if took := time.Since(start); took > 6*time.Second {
		t.Errorf("%d stops of 1 second took %s: they wait for each other", len(ids), took)
	}
}

func TestStoppingAPodStopsItsContainers(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("all")
	a, b := p.Go(story.Shell("a", deaf)), p.Go(story.Sleeper("b"))
	c := p.Make(story.Sleeper("c"))
	start := time.Now()
	if err := s.StopPod(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %s: the kubelet has given grace before", took)
	}
	a.WantState(exited)
	b.WantState(exited)
	if err := s.StartContainer(t.Context(), c.ID); err == nil {
		t.Error("a container starts in a pod that was stopped")
	}
	if _, err := s.Create(t.Context(), p.ID, story.Sleeper("d"), p.Config); err == nil {
		t.Error("a container is created in a pod that was stopped")
	}
}

// Removal of what runs ends it: the kubelet does this after it has waited long enough.
func TestRemoveOfWhatRuns(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("remove")
	c := p.Go(story.Shell("deaf", deaf))
	c.Heard("ready")
	pid := c.Pid()
	c.Remove()
	if n := names(s)["deaf"]; n != 0 {
		t.Error("removed and still listed")
	}
	if harness.Alive(pid) {
		t.Error("removed, and its process lives")
	}
	p.Go(story.Sleeper("other"))
	if err := s.RemovePod(t.Context(), p.ID); err != nil {
		t.Errorf("removal of a pod that runs: %v", err)
	}
	if pods, err := s.Pods(t.Context()); err != nil || len(pods) != 0 {
		t.Errorf("pods after that: %v (%v)", pods, err)
	}
}

func TestWhatIsNotThereIsStoppedAndRemoved(t *testing.T) {
	s := story.Begin(t)
	ctx := t.Context()
	for what, err := range map[string]error{"StopContainer": s.StopContainer(ctx, unknown, 0), "RemoveContainer": s.RemoveContainer(ctx, unknown),
		"StopPodSandbox": s.StopPod(ctx, unknown), "RemovePodSandbox": s.RemovePod(ctx, unknown)} {
		if err != nil {
			t.Errorf("%s of what is not there: %v", what, err)
		}
	}
	err := s.StartContainer(ctx, unknown)
	s.WantCode("start of what is not there", err, codes.NotFound)
	p := s.Pod("twice")
	c := p.Go(story.Sleeper("c"))
	for _, do := range []func() error{func() error { return s.StopContainer(ctx, c.ID, 1) }, func() error { return s.RemoveContainer(ctx, c.ID) },
		func() error { return s.StopPod(ctx, p.ID) }, func() error { return s.RemovePod(ctx, p.ID) }} {
		for _, err := range append(story.AtOnce(4, func(int) error { return do() }), do()) {
			if err != nil {
				t.Error(err)
			}
		}
	}
}

// Stop, start and remove from many sides: whatever wins, the end is clean and nobody hangs.
func TestEverybodyAtOnce(t *testing.T) {
	s := story.Begin(t)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for round := range 4 {
		p := s.Pod(fmt.Sprintf("melee-%d", round))
		c := p.Make(story.Sleeper("c"))
		var wait sync.WaitGroup
		for _, do := range []func() error{
			func() error { return s.StartContainer(ctx, c.ID) }, func() error { return s.StopContainer(ctx, c.ID, 1) }, func() error { return s.RemoveContainer(ctx, c.ID) },
			func() error { return s.StopPod(ctx, p.ID) }, func() error { return s.RemovePod(ctx, p.ID) },
			func() error { _, err := s.Exec(ctx, c.ID, "true"); return err }, func() error { _, err := s.Status(ctx, c.ID); return err },
		} {
			wait.Go(func() {
				time.Sleep(time.Duration(round) * 3 * time.Millisecond)
				if err := do(); status.Code(err) == codes.DeadlineExceeded || status.Code(err) == codes.Internal {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		if err := s.RemovePodFully(ctx, p.ID); err != nil {
			t.Error(err)
		}
		if n := names(s)["c"]; n != 0 {
			t.Errorf("round %d: %d containers are left", round, n)
		}
	}
}
