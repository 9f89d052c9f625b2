package shimclient

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/containerd/api/events"
	eventsapi "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func TestSlowReaderGetsOneDirtyEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newEventQueue(3)
		for i := range 10 {
			q.add(Event{Kind: ExitEvent, Pid: i})
		}
		ctx, cancel := context.WithCancel(t.Context())
		go q.run(ctx)
		if e := <-q.out; e.Kind != Dirty {
			t.Fatalf("%+v", e)
		}
		synctest.Wait()
		select {
		case e := <-q.out:
			t.Fatalf("after the dirty one: %+v", e)
		default:
		}
		q.add(Event{Kind: ExitEvent, Pid: 10})
		if e := <-q.out; e.Kind != ExitEvent || e.Pid != 10 {
			t.Fatalf("%+v", e)
		}
		cancel()
		synctest.Wait()
	})
}

func TestEventsInOrderWhileThereIsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newEventQueue(100)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go q.run(ctx)
		for i := range 100 {
			q.add(Event{Kind: ExitEvent, Pid: i})
		}
		for i := range 100 {
			if e := <-q.out; e.Pid != i {
				t.Fatalf("%d: %+v", i, e)
			}
		}
		cancel()
		synctest.Wait()
	})
}

// host serves events on a socket of its own.
func serve(t *testing.T) *Host {
	t.Helper()
	dir, err := os.MkdirTemp("", "crid")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h, err := NewHost(HostConfig{State: dir, Address: filepath.Join(dir, "a")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func start(t *testing.T, h *Host) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- h.Serve(ctx) }()
	for {
		if c, err := net.Dial("unix", h.eventsPath()); err == nil {
			c.Close()
			break
		}
		time.Sleep(time.Millisecond)
	}
	return func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
}

func forward(t *testing.T, h *Host, namespace string, msgs ...proto.Message) {
	t.Helper()
	conn, err := net.Dial("unix", h.eventsPath())
	if err != nil {
		t.Fatal(err)
	}
	c := ttrpc.NewClient(conn)
	defer func() { c.Close(); c.UserOnCloseWait(context.Background()) }()
	for _, m := range msgs {
		packed, err := packAny(m)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err = eventsapi.NewTTRPCEventsClient(c).Forward(ctx, &eventsapi.ForwardRequest{Envelope: &types.Envelope{
			Namespace: namespace, Topic: "/tasks/x", Timestamp: timestamppb.Now(), Event: packed,
		}})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestEventsOfShims(t *testing.T) {
	h := serve(t)
	defer start(t, h)()
	at := time.Now().Add(-time.Hour).UTC()
	forward(t, h, "moby", &events.TaskExit{ContainerID: "forged", ID: "forged", ExitStatus: 1}) // another daemon's shim
	forward(t, h, "crid",
		&types.Mount{}, // no event at all
		&events.TaskExit{ID: "nobody"},
		&events.TaskCreate{ContainerID: "c", Pid: 5},
		&events.TaskStart{ContainerID: "c", Pid: 5},
		&events.TaskExecStarted{ContainerID: "c", ExecID: "e", Pid: 6},
		&events.TaskExit{ContainerID: "c", ID: "e", Pid: 6, ExitStatus: 3, ExitedAt: timestamppb.New(at)},
		&events.TaskOOM{ContainerID: "c"},
		&events.TaskPaused{ContainerID: "c"},
		&events.TaskResumed{ContainerID: "c"},
		&events.TaskExit{ContainerID: "c", ID: "c", Pid: 5, ExitStatus: 137, ExitedAt: timestamppb.New(at)},
		&events.TaskDelete{ContainerID: "c", Pid: 5, ExitStatus: 137, ExitedAt: timestamppb.New(at)},
	)
	for i, want := range []Event{
		{Kind: CreateEvent, ID: "c", Pid: 5},
		{Kind: StartEvent, ID: "c", Pid: 5},
		{Kind: StartEvent, ID: "c", ExecID: "e", Pid: 6},
		{Kind: ExitEvent, ID: "c", ExecID: "e", Pid: 6, Code: 3, At: at},
		{Kind: OOMEvent, ID: "c"},
		{Kind: PausedEvent, ID: "c"},
		{Kind: ResumedEvent, ID: "c"},
		{Kind: ExitEvent, ID: "c", Pid: 5, Code: 137, At: at},
		{Kind: DeleteEvent, ID: "c", Pid: 5, Code: 137, At: at},
	} {
		got := <-h.Events()
		if got.At.IsZero() {
			t.Fatalf("event %d has no time", i)
		}
		if want.At.IsZero() {
			want.At = got.At
		}
		if got != want {
			t.Fatalf("event %d: %+v, want %+v", i, got, want)
		}
	}
}

// A shim stops starting containers when 128 of its events are not taken.
func TestShimIsAnsweredAlthoughNobodyReads(t *testing.T) {
	h := serve(t)
	defer start(t, h)()
	msgs := make([]proto.Message, maxEvents+10)
	for i := range msgs {
		msgs[i] = &events.TaskOOM{ContainerID: "c"}
	}
	forward(t, h, "crid", msgs...)
	<-h.Events() // was on its way
	if e := <-h.Events(); e.Kind != Dirty {
		t.Fatalf("%+v", e)
	}
}

func TestEventsSocketIsTakenOverFromTheDeadOnly(t *testing.T) {
	h := serve(t)
	stop := start(t, h)
	if fi, err := os.Stat(h.eventsPath()); err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", fi.Mode(), err)
	}
	if err := h.Serve(t.Context()); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Fatalf("a second daemon: %v", err)
	}
	forward(t, h, "crid", &events.TaskOOM{ContainerID: "still there"})
	stop()
	// The socket's file is left, as after a crash.
	if _, err := os.Lstat(h.eventsPath()); err != nil {
		t.Fatal(err)
	}
	start(t, h)()
}
