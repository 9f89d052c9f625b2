//go:build e2e

package core

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/story"
)

// ear hears the container events of one stream.
type ear struct {
	mu     sync.Mutex
	events []*runtimeapi.ContainerEventResponse
	end    error
	cancel context.CancelFunc
}

func listen(s *story.Story) *ear {
	s.T.Helper()
	ctx, cancel := context.WithCancel(s.T.Context())
	stream, err := s.Runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err != nil {
		cancel()
		s.T.Fatal(err)
	}
	e := &ear{cancel: cancel}
	go func() {
		for {
			r, err := stream.Recv()
			e.mu.Lock()
			if err != nil {
				e.end = err
				e.mu.Unlock()
				return
			}
			e.events = append(e.events, r)
			e.mu.Unlock()
		}
	}()
	s.T.Cleanup(cancel)
	return e
}

// of tells what was heard of one id, in order.
func (e *ear) of(id string) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var kinds []string
	for _, r := range e.events {
		if r.GetContainerId() == id {
			kinds = append(kinds, r.GetContainerEventType().String())
		}
	}
	return kinds
}

const (
	madeEvent    = "CONTAINER_CREATED_EVENT"
	startedEvent = "CONTAINER_STARTED_EVENT"
	stoppedEvent = "CONTAINER_STOPPED_EVENT"
	deletedEvent = "CONTAINER_DELETED_EVENT"
)

// One event of each kind, in order: an evented kubelet acts on each, and on nothing else for five minutes.
func TestEventsInOrder(t *testing.T) {
	s := story.Begin(t)
	e := listen(s)
	p := s.Pod("events")
	c := p.Go(story.Shell("c", "exit 3"))
	c.Exited()
	c.Remove()
	if err := s.RemovePodFully(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	want := []string{madeEvent, startedEvent, stoppedEvent, deletedEvent}
	s.Eventually("all events", 5*time.Second, func() bool {
		return slices.Contains(e.of(c.ID), deletedEvent) && slices.Contains(e.of(p.ID), deletedEvent)
	})
	if got := e.of(c.ID); !slices.Equal(got, want) {
		t.Errorf("events of the container: %v", got)
	}
	if got := e.of(p.ID); len(got) < 2 || got[len(got)-1] != deletedEvent || slices.Index(got, deletedEvent) != len(got)-1 {
		t.Errorf("events of the pod: %v", got)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.events {
		if r.GetContainerId() == c.ID && r.GetContainerEventType() == runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT {
			for _, st := range r.GetContainersStatuses() {
				if st.GetId() == c.ID && (st.GetState() != exited || st.GetExitCode() != 3) {
					t.Errorf("the event of the end shows %s, %d", st.GetState(), st.GetExitCode())
				}
			}
			if r.GetPodSandboxStatus().GetId() != p.ID || len(r.GetContainersStatuses()) == 0 || r.GetCreatedAt() == 0 {
				t.Errorf("the event of the end: %v", r)
			}
		}
	}
}

// Who connects anew hears first what there is, so that nothing is missed between two streams.
func TestAStreamBeginsWithWhatIs(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("snapshot")
	a, b := p.Go(story.Sleeper("a")), p.Go(story.Shell("b", "exit 0"))
	b.Exited()
	e := listen(s)
	s.Eventually("the snapshot", 5*time.Second, func() bool { return len(e.of(a.ID)) > 0 && len(e.of(b.ID)) > 0 && len(e.of(p.ID)) > 0 })
	if got := e.of(a.ID); got[0] != startedEvent {
		t.Errorf("a container that runs: %v", got)
	}
	if got := e.of(b.ID); got[len(got)-1] != stoppedEvent {
		t.Errorf("a container that has ended: %v", got)
	}
	a.Stop(2)
	s.Eventually("then what happens", 5*time.Second, func() bool { return slices.Contains(e.of(a.ID), stoppedEvent) })
}

// Who does not read is cut off with an error at most; nobody waits for him, and memory does not grow with him.
func TestASlowListenerHurtsNobody(t *testing.T) {
	s := story.Begin(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var slow []grpc.ServerStreamingClient[runtimeapi.ContainerEventResponse]
	for range 4 {
		stream, err := s.Runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		slow = append(slow, stream)
	}
	e := listen(s)
	p := s.Pod("slow")
	for n := range 10 {
		c := p.Go(story.Shell(fmt.Sprintf("c%d", n), "exit 0"))
		c.Exited()
		start := time.Now()
		if _, err := s.Containers(t.Context()); err != nil || time.Since(start) > time.Second {
			t.Errorf("a list takes %s (%v)", time.Since(start), err)
		}
		s.Eventually("the end, for those who listen", 2*time.Second, func() bool { return slices.Contains(e.of(c.ID), stoppedEvent) })
	}
	for _, stream := range slow {
		if _, err := stream.Recv(); err != nil && status.Code(err) != codes.ResourceExhausted {
			t.Errorf("a slow listener is told %v", err)
		}
	}
}
