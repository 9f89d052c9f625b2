package events

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/server/status"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

// Ledger is where events come from; *store.Ledger is one.
type Ledger interface {
	status.Ledger
	// Subscribe begins a subscription that may lag behind by buffer notices.
	Subscribe(buffer int) *store.Subscription
}

const (
	// defaultQueue is how many events a consumer may lag behind. A burst of
	// 500 pods going down makes some thousands.
	defaultQueue = 4096
	// MaxStreams bounds the consumers; a node has one kubelet.
	MaxStreams = 64
)

// Deps are what an [Events] needs.
type Deps struct {
	Ledger Ledger
	Names  status.Names
	// Queue is how many events a consumer may lag behind; 0 is the default.
	Queue int
}

// Events implements GetContainerEvents.
type Events struct {
	d       Deps
	mu      sync.Mutex
	streams map[*queue]struct{}
	closed  bool
	dropped atomic.Int64
}

// New makes an [Events].
func New(d Deps) *Events {
	if d.Queue <= 0 {
		d.Queue = defaultQueue
	}
	return &Events{d: d, streams: map[*queue]struct{}{}}
}

// item is one event to be: what happened, to what, when. The statuses are
// looked up when it is sent.
type item struct {
	kind lifecycle.Notice
	at   int64
	pod  *store.Pod       // for an event of a pod
	ctr  *store.Container // for an event of a container
}

// queue is what one consumer has not been sent yet.
type queue struct {
	items chan item
	pods  chan item     // what [Events.Pod] announced, on its way to items
	cut   chan struct{} // closed: too slow, or the server ends
	once  sync.Once
}

func (q *queue) cutOff() { q.once.Do(func() { close(q.cut) }) }

// put never waits; false: the consumer was too slow and is cut off.
func (q *queue) put(to chan item, i item) bool {
	select {
	case to <- i:
		return true
	default:
		q.cutOff()
		return false
	}
}

// Pod announces what happened to a pod. It never waits.
func (e *Events) Pod(kind lifecycle.Notice, p *store.Pod) {
	i := item{kind: kind, at: time.Now().UnixNano(), pod: p}
	e.mu.Lock()
	defer e.mu.Unlock()
	for q := range e.streams {
		if !q.put(q.pods, i) {
			e.drop(q)
		}
	}
}

// drop counts a consumer that was cut off, once. mu is held.
func (e *Events) drop(q *queue) {
	if _, there := e.streams[q]; there {
		delete(e.streams, q)
		e.dropped.Add(1)
	}
}

// pump fills a consumer's queue from the ledger's notices and the pods' events
// until the subscription ends: so the queue says whether the consumer is too
// slow, even while a message to it hangs. What the ledger announced before a
// pod's event goes before it: a container is deleted before its pod is.
func (e *Events) pump(sub *store.Subscription, q *queue) {
	defer func() {
		q.cutOff()
		e.mu.Lock()
		defer e.mu.Unlock()
		e.drop(q)
	}()
	for {
		select {
		case n, ok := <-sub.Notices:
			if !ok || !q.notice(n) {
				return
			}
		case i := <-q.pods:
			for range len(sub.Notices) {
				if n, ok := <-sub.Notices; !ok || !q.notice(n) {
					return
				}
			}
			if !q.put(q.items, i) {
				return
			}
		}
	}
}

// notice puts what the ledger announced; what CRI does not show is left out.
func (q *queue) notice(n store.Notice) bool {
	if n.Pod != nil {
		return q.put(q.items, item{kind: n.Kind, at: n.At, pod: n.Pod})
	}
	if n.Container == nil || !n.Container.State.Visible() && n.Kind != lifecycle.NoticeDeleted {
		return true
	}
	return q.put(q.items, item{kind: n.Kind, at: n.At, ctr: n.Container})
}

// Streams answers how many consumers there are.
func (e *Events) Streams() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.streams)
}

// Dropped is how often a consumer was cut off for being slow.
func (e *Events) Dropped() int64 { return e.dropped.Load() }

// Close ends all streams; idempotent.
func (e *Events) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	for q := range e.streams {
		q.cutOff()
	}
}

func (e *Events) open() (*queue, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, errStopping
	}
	if len(e.streams) >= MaxStreams {
		return nil, fmt.Errorf("there are already %d event streams: %w", MaxStreams, errdefs.ErrResourceExhausted)
	}
	q := &queue{items: make(chan item, e.d.Queue), pods: make(chan item, e.d.Queue), cut: make(chan struct{})}
	e.streams[q] = struct{}{}
	return q, nil
}

func (e *Events) end(q *queue) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.streams, q) // before the pump ends: it was not dropped
	q.cutOff()
}

var (
	errSlow     = fmt.Errorf("events were not taken fast enough, connect again for a new snapshot: %w", errdefs.ErrResourceExhausted)
	errStopping = fmt.Errorf("the server is stopping, connect again: %w", errdefs.ErrUnavailable)
)

// GetContainerEvents streams until the client goes, lags behind, or the server
// stops. It never ends without an error: a kubelet would connect again at once.
func (e *Events) GetContainerEvents(_ *cri.GetEventsRequest, stream grpc.ServerStreamingServer[cri.ContainerEventResponse]) error {
	q, err := e.open()
	if err != nil {
		return err
	}
	// Subscribed before the snapshot is taken, so that nothing is missed in
	// between; what the snapshot has told already is left out of what follows.
	sub := e.d.Ledger.Subscribe(e.d.Queue)
	go e.pump(sub, q)
	defer sub.Cancel()
	defer e.end(q)
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()

	// A Send blocks as long as the client does not read. It has a goroutine of
	// its own, which ends with the stream, so that this one can give up.
	out := make(chan *cri.ContainerEventResponse)
	failed := make(chan error, 1)
	go func() {
		for {
			select {
			case m := <-out:
				if err := stream.Send(m); err != nil {
					failed <- err
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	send := func(m *cri.ContainerEventResponse) error {
		select {
		case out <- m:
			return nil
		case err := <-failed:
			return err
		case <-q.cut:
			return e.whyCut()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	told, err := e.snapshot(send)
	if err != nil {
		return err
	}
	return e.follow(ctx, q, told, failed, send)
}

func (e *Events) whyCut() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return errStopping
	}
	return errSlow
}

// versions of containers, by id.
type versions map[string]uint64

// news tells whether a snapshot that told these versions has not told this
// event. What is newer makes an entry useless.
func (v versions) news(i item) bool {
	if i.ctr == nil {
		return true
	}
	last, there := v[i.ctr.ID]
	if there && i.kind != lifecycle.NoticeDeleted && i.ctr.Version <= last {
		return false
	}
	delete(v, i.ctr.ID)
	return true
}

// follow sends what happens after a snapshot that told of these versions.
func (e *Events) follow(ctx context.Context, q *queue, told versions, failed <-chan error, send func(*cri.ContainerEventResponse) error) error {
	for {
		select {
		case i := <-q.items:
			if !told.news(i) {
				continue
			}
			if err := send(e.message(i)); err != nil {
				return err
			}
		case err := <-failed:
			return err
		case <-q.cut:
			return e.whyCut()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// snapshot sends one event for every pod and container as it is now, and says
// so in the time: a kubelet takes the status that it has for newer otherwise.
func (e *Events) snapshot(send func(*cri.ContainerEventResponse) error) (versions, error) {
	told := versions{}
	for _, p := range status.Pods(e.d.Ledger, nil) {
		kind := lifecycle.NoticeStopped
		if p.State.Phase == lifecycle.Ready {
			kind = lifecycle.NoticeStarted
		}
		if err := send(e.message(item{kind: kind, at: time.Now().UnixNano(), pod: p})); err != nil {
			return nil, err
		}
		for _, c := range status.Members(e.d.Ledger, p.ID) {
			i := item{kind: current(c), at: time.Now().UnixNano(), ctr: c}
			if err := send(e.message(i)); err != nil {
				return nil, err
			}
			told[c.ID] = c.Version
		}
	}
	return told, nil
}

// current is the kind of event that led to the container's present state.
func current(c *store.Container) lifecycle.Notice {
	switch status.ContainerState(c) {
	case cri.ContainerState_CONTAINER_RUNNING:
		return lifecycle.NoticeStarted
	case cri.ContainerState_CONTAINER_EXITED:
		return lifecycle.NoticeStopped
	case cri.ContainerState_CONTAINER_CREATED, cri.ContainerState_CONTAINER_UNKNOWN:
	}
	return lifecycle.NoticeCreated
}

var kinds = map[lifecycle.Notice]cri.ContainerEventType{
	lifecycle.NoticeCreated: cri.ContainerEventType_CONTAINER_CREATED_EVENT,
	lifecycle.NoticeStarted: cri.ContainerEventType_CONTAINER_STARTED_EVENT,
	lifecycle.NoticeStopped: cri.ContainerEventType_CONTAINER_STOPPED_EVENT,
	lifecycle.NoticeDeleted: cri.ContainerEventType_CONTAINER_DELETED_EVENT,
}

// message is the event with the statuses as they are now, which is at least as
// new as the event itself; of what the event is about, the event's own
// snapshot is the least that is told.
func (e *Events) message(i item) *cri.ContainerEventResponse {
	m := &cri.ContainerEventResponse{ContainerEventType: kinds[i.kind], CreatedAt: i.at}
	pod := i.pod
	if i.ctr != nil {
		m.ContainerId = i.ctr.ID
		pod, _ = e.d.Ledger.Pod(i.ctr.PodID)
	} else {
		m.ContainerId = pod.ID
		if now, err := e.d.Ledger.Pod(pod.ID); err == nil && i.kind != lifecycle.NoticeDeleted {
			pod = now
		}
	}
	if pod == nil {
		// Its record went while the event waited: the kubelet learns of that
		// from the pod's own event and takes no offence at a missing status.
		return m
	}
	m.PodSandboxStatus = status.Pod(pod)
	found := i.ctr == nil || i.kind == lifecycle.NoticeDeleted
	for _, c := range status.Members(e.d.Ledger, pod.ID) {
		if i.ctr != nil && c.ID == i.ctr.ID {
			if i.kind == lifecycle.NoticeDeleted {
				continue
			}
			found = true
			if c.Version < i.ctr.Version {
				c = i.ctr
			}
		}
		m.ContainersStatuses = append(m.ContainersStatuses, status.Container(c, e.d.Names))
	}
	if !found {
		m.ContainersStatuses = append(m.ContainersStatuses, status.Container(i.ctr, e.d.Names))
	}
	return m
}
