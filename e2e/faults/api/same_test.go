//go:build e2e

package api

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/faults/watch"
	"github.com/crid-project/crid/e2e/story"
)

// Thirty-two callers stop the same container, some of whom leave at once: it gets one signal, and all who stay are told that it has ended.
func TestF87ThirtyTwoStopsAreOneSignal(t *testing.T) {
	s := story.Begin(t)
	watch.Others(s)
	c := s.Pod("stops").Go(story.Shell("c", "trap 'echo signal' TERM; while :; do sleep 0.2; done"))
	c.Sh("true")
	for n, err := range story.AtOnce(32, func(n int) error {
		ctx := t.Context()
		if n%4 == 3 {
			short, cancel := context.WithTimeout(ctx, time.Duration(n)*time.Millisecond)
			defer cancel()
			ctx = short
		}
		return s.StopContainer(ctx, c.ID, 3)
	}) {
		if n%4 == 3 {
			s.WantCode("one who leaves", err, codes.OK, codes.DeadlineExceeded)
		} else if err != nil {
			t.Errorf("one who stays: %v", err)
		}
	}
	if n := strings.Count(c.Said("stdout"), "signal"); n != 1 {
		t.Errorf("the container got the stop signal %d times", n)
	}
	if st := c.WantState(exited); st.GetExitCode() != 137 {
		t.Errorf("it ended with %d", st.GetExitCode())
	}
}

// Calls that a state forbids are refused as CRI says, and change nothing.
func TestF90CallsThatAStateForbids(t *testing.T) {
	s := story.Begin(t)
	ctx := t.Context()
	p := s.Pod("states")
	made := p.Make(story.Sleeper("made"))
	done := p.Go(story.Shell("done", "exit 3"))
	done.Exited()
	runs := p.Go(story.Sleeper("runs"))
	exec := func(id string) error { _, err := s.Exec(ctx, id, "true"); return err }
	s.WantCode("exec in CREATED", exec(made.ID), codes.FailedPrecondition)
	s.WantCode("exec in EXITED", exec(done.ID), codes.FailedPrecondition)
	s.WantCode("start of EXITED", s.StartContainer(ctx, done.ID), codes.FailedPrecondition)
	_, err := s.Runtime.Attach(ctx, &runtimeapi.AttachRequest{ContainerId: done.ID, Stdout: true})
	s.WantCode("attach to EXITED", err, codes.FailedPrecondition)
	if st := done.Status(); st.GetExitCode() != 3 {
		t.Errorf("its code is %d after all that", st.GetExitCode())
	}
	// Removal kills what runs.
	if err := s.RemoveContainer(ctx, runs.ID); err != nil {
		t.Errorf("removal of RUNNING: %v", err)
	}
	again := p.Go(story.Shell("runs", "trap '' TERM; while :; do sleep 1; done"))
	stopped := make(chan error, 1)
	go func() { stopped <- s.StopContainer(ctx, again.ID, 600) }()
	s.Eventually("the stop is under way", 5*time.Second, func() bool { return again.Status().GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING })
	if err := s.RemoveContainer(ctx, again.ID); err != nil {
		t.Errorf("removal during a stop: %v", err)
	}
	if err := <-stopped; err != nil {
		s.WantCode("the stop of what was removed", err, codes.NotFound)
	}
	last := p.Go(story.Sleeper("last"))
	if err := s.StopPod(ctx, p.ID); err != nil {
		t.Fatal(err)
	}
	last.WantState(exited)
	s.WantCode("start in a stopped pod", s.StartContainer(ctx, made.ID), codes.FailedPrecondition)
	_, err = s.Create(ctx, p.ID, story.Sleeper("new"), p.Config)
	s.WantCode("create in a stopped pod", err, codes.FailedPrecondition, codes.NotFound)
	q := s.Pod("removed")
	q.Go(story.Sleeper("c"))
	if err := s.RemovePod(ctx, q.ID); err != nil {
		t.Errorf("removal of a pod that runs: %v", err)
	}
	if err := s.RemovePod(ctx, p.ID); err != nil {
		t.Error(err)
	}
	nothing(s, "after calls that are forbidden")
}
