package shimclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/api/events"
	eventsapi "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

const (
	eventsSocket = "events.sock"
	maxEvents    = 1024 // that wait for the reader of Events
)

// Kind is what an event is about.
type Kind int

// The kinds of events. Dirty stands for any number of lost ones: look at
// everything.
const (
	Dirty Kind = iota
	CreateEvent
	StartEvent
	ExitEvent
	OOMEvent
	DeleteEvent
	PausedEvent
	ResumedEvent
)

// String is the kind's name in logs and metrics, such as "exit".
func (k Kind) String() string {
	if names := [...]string{"dirty", "create", "start", "exit", "oom", "delete", "paused", "resumed"}; k >= 0 && int(k) < len(names) {
		return names[k]
	}
	return "unknown"
}

// Event is what a shim, or somebody who claims to be one, published. It is a
// hint where to look and nothing more: events get lost, come twice and come out
// of order.
type Event struct {
	Kind   Kind
	ID     string // container
	ExecID string // of an exec's process, else empty
	Pid    int
	Code   int // exit code, for ExitEvent
	At     time.Time
}

// Events gives what Serve receives. It must be read by one reader; if the
// reader falls behind by 1024 events they are thrown away for one Dirty event.
// It is never closed.
func (h *Host) Events() <-chan Event { return h.queue.out }

// Serve receives the events of shims on State/events.sock until ctx ends, which
// is no error. A shim is answered at once, whatever becomes of its event: it
// stops starting containers when too many of its events are not taken.
func (h *Host) Serve(ctx context.Context) error {
	listener, err := listenEvents(ctx, h.eventsPath())
	if ctx.Err() != nil && err != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("serve events of shims: %w", err)
	}
	server, err := ttrpc.NewServer(ttrpc.WithServerHandshaker(ttrpc.UnixSocketRequireSameUser()))
	if err != nil {
		listener.Close()
		return fmt.Errorf("serve events of shims: %w", err)
	}
	eventsapi.RegisterTTRPCEventsService(server, &forwarder{h})

	var pump sync.WaitGroup
	pump.Go(func() { h.queue.run(ctx) })
	defer pump.Wait()
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	err = server.Serve(ctx, listener)
	if ctx.Err() != nil {
		return nil
	}
	server.Close()
	return fmt.Errorf("serve events of shims: %w", err)
}

// listenEvents takes the path over from an earlier daemon, but not from a
// living one. The socket stays behind at the end: to a shim that retries, a
// refused connection and a missing file are the same.
func listenEvents(ctx context.Context, path string) (net.Listener, error) {
	if listened(ctx, path) {
		return nil, fmt.Errorf("another daemon listens on %s; stop it first: %w", path, errdefs.ErrAlreadyExists)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

type forwarder struct{ host *Host }

// Forward implements the events service. Events of other namespaces and of
// kinds unknown here are accepted and forgotten.
func (f *forwarder) Forward(_ context.Context, req *eventsapi.ForwardRequest) (*emptypb.Empty, error) {
	if e := req.GetEnvelope(); e != nil && e.Namespace == f.host.config.Namespace {
		if ev, ok := decodeEvent(e); ok {
			f.host.queue.add(ev)
		}
	}
	return &emptypb.Empty{}, nil
}

func decodeEvent(e *types.Envelope) (Event, bool) {
	name := e.GetEvent().GetTypeUrl()
	name = name[strings.LastIndexByte(name, '/')+1:]
	unmarshal := func(m proto.Message) bool { return proto.Unmarshal(e.GetEvent().GetValue(), m) == nil }
	ev := Event{At: timeOf(e.Timestamp)}
	switch name {
	case "containerd.events.TaskExit":
		var m events.TaskExit
		if !unmarshal(&m) {
			return ev, false
		}
		ev.Kind, ev.ID, ev.Pid, ev.Code, ev.At = ExitEvent, m.ContainerID, int(m.Pid), int(m.ExitStatus), timeOf(m.ExitedAt)
		if m.ID != m.ContainerID {
			ev.ExecID = m.ID
		}
	case "containerd.events.TaskOOM":
		var m events.TaskOOM
		if !unmarshal(&m) {
			return ev, false
		}
		ev.Kind, ev.ID = OOMEvent, m.ContainerID
	case "containerd.events.TaskCreate":
		var m events.TaskCreate
		if !unmarshal(&m) {
			return ev, false
		}
		ev.Kind, ev.ID, ev.Pid = CreateEvent, m.ContainerID, int(m.Pid)
	case "containerd.events.TaskStart":
		var m events.TaskStart
		if !unmarshal(&m) {
			return ev, false
		}
		ev.Kind, ev.ID, ev.Pid = StartEvent, m.ContainerID, int(m.Pid)
	case "containerd.events.TaskExecStarted":
		var m events.TaskExecStarted
		if !unmarshal(&m) {
			return ev, false
		}
		ev.Kind, ev.ID, ev.ExecID, ev.Pid = StartEvent, m.ContainerID, m.ExecID, int(m.Pid)
	case "containerd.events.TaskDelete":
		var m events.TaskDelete
		if !unmarshal(&m) {
			return ev, false
		}
		ev.Kind, ev.ID, ev.Pid, ev.Code, ev.At = DeleteEvent, m.ContainerID, int(m.Pid), int(m.ExitStatus), timeOf(m.ExitedAt)
		if m.ID != m.ContainerID { // empty for the init
			ev.ExecID = m.ID
		}
	case "containerd.events.TaskPaused":
		var m events.TaskPaused
		if !unmarshal(&m) {
			return ev, false
		}
		ev.Kind, ev.ID = PausedEvent, m.ContainerID
	case "containerd.events.TaskResumed":
		var m events.TaskResumed
		if !unmarshal(&m) {
			return ev, false
		}
		ev.Kind, ev.ID = ResumedEvent, m.ContainerID
	default:
		return ev, false
	}
	return ev, ev.ID != ""
}

// eventQueue lies between shims, who must not wait, and a reader who may be
// slow.
type eventQueue struct {
	out  chan Event
	wake chan struct{} // holds one token while there is something new

	mu     sync.Mutex
	max    int
	events []Event
}

func newEventQueue(size int) *eventQueue {
	return &eventQueue{out: make(chan Event), wake: make(chan struct{}, 1), max: size}
}

// add never waits.
func (q *eventQueue) add(e Event) {
	q.mu.Lock()
	switch {
	case len(q.events) >= q.max:
		q.events = append(q.events[:0], Event{Kind: Dirty, At: time.Now()})
	case len(q.events) == 1 && q.events[0].Kind == Dirty:
		// It stands for this one too, for as long as it has not been taken.
	default:
		q.events = append(q.events, e)
	}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *eventQueue) take() (Event, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.events) == 0 {
		q.events = nil // an idle daemon keeps no buffer of its worst minute
		return Event{}, false
	}
	e := q.events[0]
	q.events = q.events[1:]
	return e, true
}

func (q *eventQueue) run(ctx context.Context) {
	for {
		e, ok := q.take()
		if !ok {
			select {
			case <-q.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		select {
		case q.out <- e:
		case <-ctx.Done():
			return
		}
	}
}
