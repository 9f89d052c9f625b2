package events_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/server/events"
	"github.com/crid-project/crid/server/fault"
	"github.com/crid-project/crid/server/internal/worldtest"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client is the server's end of a stream; a closed gate lets messages through.
type client struct {
	grpc.ServerStream
	ctx  context.Context
	gate chan struct{}

	mu  sync.Mutex
	got []*cri.ContainerEventResponse
}

func (c *client) Context() context.Context     { return c.ctx }
func (c *client) SetHeader(metadata.MD) error  { return nil }
func (c *client) SendHeader(metadata.MD) error { return nil }

func (c *client) Send(m *cri.ContainerEventResponse) error {
	select {
	case <-c.gate:
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got = append(c.got, m)
	return nil
}

func (c *client) all() []*cri.ContainerEventResponse {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*cri.ContainerEventResponse(nil), c.got...)
}

// serve runs one stream; the client's context ends when the stream does, as
// gRPC sees to.
func serve(t *testing.T, e *events.Events, open bool) (*client, <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	c := &client{ctx: ctx, gate: make(chan struct{})}
	if open {
		close(c.gate)
	}
	done := make(chan error, 1)
	before := e.Streams()
	go func() {
		err := e.GetContainerEvents(&cri.GetEventsRequest{}, c)
		cancel()
		done <- err
	}()
	for e.Streams() == before && len(done) == 0 {
		time.Sleep(time.Millisecond)
	}
	return c, done
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 5 s", what)
		}
	}
}

func ended(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(5 * time.Second):
		t.Fatal("the stream does not end")
		return nil
	}
}

// A kubelet that connected after a start had to wait for its relist to learn
// what runs.
func TestAStreamBeginsWithWhatIs(t *testing.T) {
	l := worldtest.Ledger(t)
	e := events.New(events.Deps{Ledger: l, Names: worldtest.Names})
	p := worldtest.Pod(t, l, "p", nil)
	run, made := worldtest.Running(t, l, p.ID, "run", nil), worldtest.Container(t, l, p.ID, "made", nil)
	gone := worldtest.Exited(t, l, p.ID, "gone", lifecycle.SeenExited{Code: 3, Source: lifecycle.Kernel})
	worldtest.Making(t, l, p.ID, "unseen", nil)
	began := time.Now().UnixNano()
	c, done := serve(t, e, true)
	eventually(t, "four events", func() bool { return len(c.all()) == 4 })
	kinds := map[string]cri.ContainerEventType{}
	for _, m := range c.all() {
		kinds[m.ContainerId] = m.ContainerEventType
		if m.PodSandboxStatus.GetId() != p.ID || len(m.ContainersStatuses) != 3 || m.CreatedAt < began {
			t.Errorf("event without its statuses: %v", m)
		}
	}
	for id, want := range map[string]cri.ContainerEventType{
		p.ID: cri.ContainerEventType_CONTAINER_STARTED_EVENT, run.ID: cri.ContainerEventType_CONTAINER_STARTED_EVENT,
		made.ID: cri.ContainerEventType_CONTAINER_CREATED_EVENT, gone.ID: cri.ContainerEventType_CONTAINER_STOPPED_EVENT,
	} {
		if got, ok := kinds[id]; !ok || got != want {
			t.Errorf("%.6s: %v %t, want %v", id, got, ok, want)
		}
	}
	e.Close()
	if err := ended(t, done); fault.Code(err) != codes.Unavailable {
		t.Errorf("ended with %v", err)
	}
}

func TestDeletionsStillTellOfTheirPod(t *testing.T) {
	l := worldtest.Ledger(t)
	e := events.New(events.Deps{Ledger: l})
	p := worldtest.Pod(t, l, "p", nil)
	v := worldtest.Container(t, l, p.ID, "c", nil)
	c, done := serve(t, e, true)
	eventually(t, "the snapshot", func() bool { return len(c.all()) == 2 })
	worldtest.Step(t, l, v.ID, lifecycle.AskRemove{})
	if err := l.EraseContainer(t.Context(), v.ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the deletion", func() bool { return len(c.all()) == 3 })
	m := c.all()[2]
	if m.ContainerEventType != cri.ContainerEventType_CONTAINER_DELETED_EVENT || m.PodSandboxStatus.GetId() != p.ID || len(m.ContainersStatuses) != 0 {
		t.Errorf("container: %v", m)
	}
	last := *p
	last.State.Phase = lifecycle.PodGone
	e.Pod(lifecycle.NoticeDeleted, &last)
	eventually(t, "the pod's deletion", func() bool { return len(c.all()) == 4 })
	m = c.all()[3]
	if m.ContainerId != p.ID || m.PodSandboxStatus.GetMetadata().GetUid() == "" || m.PodSandboxStatus.State != cri.PodSandboxState_SANDBOX_NOTREADY {
		t.Errorf("pod: %v", m)
	}
	e.Close()
	_ = ended(t, done)
}

// between lets something happen between subscription and snapshot.
type between struct {
	*store.Ledger
	happens func()
}

func (b between) Subscribe(buffer int) *store.Subscription {
	s := b.Ledger.Subscribe(buffer)
	b.happens()
	return s
}

// An end that falls between subscription and snapshot was told twice.
func TestWhatTheSnapshotToldIsNotToldAgain(t *testing.T) {
	l := worldtest.Ledger(t)
	p := worldtest.Pod(t, l, "p", nil)
	one, two := worldtest.Running(t, l, p.ID, "one", nil), worldtest.Running(t, l, p.ID, "two", nil)
	end := lifecycle.SeenExited{Code: 3, Source: lifecycle.Kernel, Empty: true}
	e := events.New(events.Deps{Ledger: between{l, func() { worldtest.Step(t, l, one.ID, end) }}, Names: worldtest.Names})
	c, done := serve(t, e, true)
	eventually(t, "the snapshot", func() bool { return len(c.all()) >= 3 })
	worldtest.Step(t, l, two.ID, end)
	ends := func() map[string]int {
		n := map[string]int{}
		for _, m := range c.all() {
			if m.ContainerEventType == cri.ContainerEventType_CONTAINER_STOPPED_EVENT {
				n[m.ContainerId]++
			}
		}
		return n
	}
	eventually(t, "the other end", func() bool { return ends()[two.ID] == 1 })
	if n := ends(); n[one.ID] != 1 {
		t.Errorf("the end of one is told %d times", n[one.ID])
	}
	e.Close()
	_ = ended(t, done)
}

// A pod that breaks by itself, by an unmounted namespace for example, has containers that run on: without an event of its own a
// kubelet that trusts in events learns of it minutes later.
func TestAPodThatBreaksIsTold(t *testing.T) {
	l := worldtest.Ledger(t)
	e := events.New(events.Deps{Ledger: l})
	p := worldtest.Pod(t, l, "p", nil)
	c, done := serve(t, e, true)
	eventually(t, "the snapshot", func() bool { return len(c.all()) == 1 })
	for range 2 { // seen twice, told once
		if _, err := l.StepPod(p.ID, lifecycle.SeenPodBroken{Why: "a namespace is gone"}); err != nil {
			t.Fatal(err)
		}
	}
	e.Pod(lifecycle.NoticeDeleted, p) // comes after
	eventually(t, "both events", func() bool { return len(c.all()) == 3 })
	m := c.all()[1]
	if m.ContainerEventType != cri.ContainerEventType_CONTAINER_STOPPED_EVENT || m.ContainerId != p.ID || m.PodSandboxStatus.GetState() != cri.PodSandboxState_SANDBOX_NOTREADY {
		t.Errorf("%v", m)
	}
	e.Close()
	_ = ended(t, done)
}

// One consumer that does not read must neither hold up the ledger nor the
// others, and has to learn that it missed something.
func TestASlowConsumerIsCutOffWithAnError(t *testing.T) {
	for name, burst := range map[string]func(*testing.T, *store.Ledger, *events.Events, *store.Pod){
		"of containers' events": func(t *testing.T, l *store.Ledger, _ *events.Events, p *store.Pod) {
			for i := range 40 {
				worldtest.Running(t, l, p.ID, fmt.Sprint("c", i), nil)
			}
		},
		"of pods' events": func(_ *testing.T, _ *store.Ledger, e *events.Events, p *store.Pod) {
			for range 40 {
				e.Pod(lifecycle.NoticeStopped, p)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := worldtest.Ledger(t)
			e := events.New(events.Deps{Ledger: l, Queue: 8})
			p := worldtest.Pod(t, l, "p", nil)
			_, slowDone := serve(t, e, false) // it never reads
			burst(t, l, e, p)
			if err := ended(t, slowDone); fault.Code(err) != codes.ResourceExhausted {
				t.Errorf("the slow one ended with %v", err)
			}
			eventually(t, "one drop to be counted", func() bool { return e.Dropped() == 1 })
			again, done := serve(t, e, true)
			eventually(t, "a snapshot after connecting again", func() bool { return len(again.all()) > 0 })
			e.Close()
			_ = ended(t, done)
			if e.Streams() != 0 {
				t.Errorf("%d streams are left", e.Streams())
			}
		})
	}
}

func TestAClientThatLeavesLeavesNothing(t *testing.T) {
	l := worldtest.Ledger(t)
	e := events.New(events.Deps{Ledger: l})
	worldtest.Pod(t, l, "p", nil)
	ctx, cancel := context.WithCancel(context.Background())
	c := &client{ctx: ctx, gate: make(chan struct{})}
	done := make(chan error, 1)
	go func() { done <- e.GetContainerEvents(nil, c) }()
	eventually(t, "the stream", func() bool { return e.Streams() == 1 })
	cancel()
	if err := ended(t, done); err == nil || e.Streams() != 0 {
		t.Errorf("ended with %v, %d left", err, e.Streams())
	}
}

func TestStreamsAreBounded(t *testing.T) {
	e := events.New(events.Deps{Ledger: worldtest.Ledger(t)})
	var all []<-chan error
	for range events.MaxStreams {
		_, done := serve(t, e, true)
		all = append(all, done)
	}
	_, done := serve(t, e, true)
	if err := ended(t, done); fault.Code(err) != codes.ResourceExhausted {
		t.Errorf("one too many: %v", err)
	}
	e.Close()
	for _, d := range all {
		_ = ended(t, d)
	}
}
