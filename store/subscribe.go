package store

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/crid-project/crid/store/lifecycle"
)

// Notice is one CRI event with the snapshot that it is about: a container's, or that
// of a pod which broke by itself. (What happens to pods by request, the
// server announces.)
type Notice struct {
	Kind      lifecycle.Notice
	Container *Container
	Pod       *Pod
	// At is when it happened, Unix nanoseconds.
	At int64
}

func noticeTime(n lifecycle.Notice, c *Container) int64 {
	switch n {
	case lifecycle.NoticeCreated:
		return c.CreatedAt
	case lifecycle.NoticeStarted:
		return c.StartedAt
	case lifecycle.NoticeStopped:
		return c.FinishedAt()
	case lifecycle.NoticeDeleted:
	}
	return time.Now().UnixNano()
}

// Subscription receives notices from the moment it was made. One that does not
// keep up is cut off: Notices is closed and Overrun is true.
type Subscription struct {
	Notices <-chan Notice
	ch      chan Notice
	overrun atomic.Bool
	all     *subscribers
	once    sync.Once
}

// Overrun reports whether the subscriber was cut off for being slow.
func (s *Subscription) Overrun() bool { return s.overrun.Load() }

// Cancel ends the subscription. Idempotent.
func (s *Subscription) Cancel() { s.all.remove(s) }

type subscribers struct {
	mu      sync.Mutex
	subs    map[*Subscription]struct{}
	dropped atomic.Int64
}

// Subscribe begins a subscription that may lag behind by buffer notices.
func (l *Ledger) Subscribe(buffer int) *Subscription {
	s := &Subscription{ch: make(chan Notice, buffer), all: &l.subs}
	s.Notices = s.ch
	l.subs.mu.Lock()
	defer l.subs.mu.Unlock()
	if l.subs.subs == nil {
		l.subs.subs = map[*Subscription]struct{}{}
	}
	l.subs.subs[s] = struct{}{}
	return s
}

// CutOff answers how many subscribers were too slow so far.
func (l *Ledger) CutOff() int64 { return l.subs.dropped.Load() }

func (a *subscribers) remove(s *Subscription) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.subs, s)
	s.once.Do(func() { close(s.ch) })
}

// publish never blocks.
func (a *subscribers) publish(n Notice) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for s := range a.subs {
		select {
		case s.ch <- n:
		default:
			s.overrun.Store(true)
			a.dropped.Add(1)
			delete(a.subs, s)
			s.once.Do(func() { close(s.ch) })
		}
	}
}
