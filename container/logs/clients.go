package logs

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"time"
)

// queueSize is how much output waits for one client, in bytes.
const queueSize = 256 << 10

// ErrSlowClient ended a subscription: the client did not read for longer than
// [Options.Patience], and the container would have had to wait for it.
var ErrSlowClient = errors.New("attached client is too slow and was cut off")

// Subscription is one attached client. It sees everything that is written from
// now on, in the order in which it was read.
//
// A client that reads at its own pace holds the container back, as a terminal
// would: nothing is left out. One that takes nothing for as long as
// [Options.Patience] is cut off, so that it stops neither the container nor its
// log. (Other runtimes wait for it for ever.)
type Subscription struct {
	log            *Log
	stdout, stderr io.Writer

	mu     sync.Mutex
	queue  []piece
	size   int
	ending bool // no more to come
	err    error
	more   chan struct{} // capacity 1: something to do for the writer
	room   chan struct{} // capacity 1: something was taken from the queue
	over   chan struct{} // closed: ended, the queue is not wanted any more
	done   chan struct{} // closed: and nothing is being written any more
}

type piece struct {
	to   io.Writer
	data []byte
}

// Subscribe shows the container's output to a client; a nil writer leaves that
// stream out. Subscription.Done is closed when all streams have ended and the
// client has got everything, or when it was cut off, cancelled or failed.
// Writers must return with an error once the caller gives the client up.
func (l *Log) Subscribe(stdout, stderr io.Writer) *Subscription {
	s := &Subscription{
		log: l, stdout: stdout, stderr: stderr,
		more: make(chan struct{}, 1), room: make(chan struct{}, 1),
		over: make(chan struct{}), done: make(chan struct{}),
	}
	l.mu.Lock()
	if l.closed || l.followed && len(l.tails) == 0 {
		s.ending = true
		signal(s.more)
	} else {
		l.clients[s] = struct{}{}
	}
	l.mu.Unlock()
	go s.run()
	return s
}

// Done is closed when the subscription has ended and its writers are not used
// any more.
func (s *Subscription) Done() <-chan struct{} { return s.done }

// Err is why a subscription ended early: [ErrSlowClient], the writer's error,
// or nil.
func (s *Subscription) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Cancel ends the subscription. It does not wait for a write under way; Done
// does. Idempotent.
func (s *Subscription) Cancel() { s.abort(nil) }

func (s *Subscription) abort(err error) {
	s.mu.Lock()
	select {
	case <-s.over:
	default:
		s.err = err
		s.queue, s.size = nil, 0
		close(s.over)
	}
	s.mu.Unlock()
	s.log.mu.Lock()
	delete(s.log.clients, s)
	s.log.mu.Unlock()
}

// run writes to the client, so that a client that hangs holds up nobody else.
func (s *Subscription) run() {
	defer close(s.done)
	for {
		s.mu.Lock()
		if len(s.queue) == 0 {
			ending := s.ending
			s.mu.Unlock()
			if ending {
				return
			}
			select {
			case <-s.more:
				continue
			case <-s.over:
				return
			}
		}
		p := s.queue[0]
		s.mu.Unlock()
		if _, err := p.to.Write(p.data); err != nil {
			s.abort(err)
			return
		}
		s.mu.Lock()
		if len(s.queue) > 0 { // not cut off meanwhile
			s.queue[0] = piece{}
			s.queue = s.queue[1:]
			s.size -= len(p.data)
		}
		s.mu.Unlock()
		signal(s.room)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// show passes data, which is only lent, to all clients. One after the other: a
// client's patience is the container's.
func (l *Log) show(t *Tail, data []byte) {
	l.mu.Lock()
	if len(l.clients) == 0 {
		l.mu.Unlock()
		return
	}
	clients := make([]*Subscription, 0, len(l.clients))
	for s := range l.clients {
		clients = append(clients, s)
	}
	l.mu.Unlock()
	for _, s := range clients {
		to := s.stdout
		if t.split.stream == Stderr {
			to = s.stderr
		}
		if to != nil {
			s.offer(t, piece{to, bytes.Clone(data)})
		}
	}
}

// offer queues a piece. It waits for room while the client takes something at
// least every Patience. A stream that is being drained or stopped does not
// wait: what can still come of it is no more than its fifo holds.
func (s *Subscription) offer(t *Tail, p piece) {
	var timer *time.Timer
	for {
		s.mu.Lock()
		fits := len(s.queue) == 0 || s.size+len(p.data) <= queueSize || t.draining.Load() || t.stopping.Load()
		if fits {
			select {
			case <-s.over:
			default:
				s.queue = append(s.queue, p)
				s.size += len(p.data)
			}
		}
		s.mu.Unlock()
		if fits {
			signal(s.more)
			return
		}
		if timer == nil {
			timer = time.NewTimer(s.log.opts.Patience)
			defer timer.Stop()
		} else {
			timer.Reset(s.log.opts.Patience)
		}
		select {
		case <-s.room:
		case <-s.over:
			return
		case <-t.hurried:
		case <-timer.C:
			s.log.cut()
			s.abort(ErrSlowClient)
			return
		}
	}
}

// endClients lets all clients have what is queued for them, and then go.
func (l *Log) endClients() {
	l.mu.Lock()
	clients := l.clients
	l.clients = map[*Subscription]struct{}{}
	l.mu.Unlock()
	for s := range clients {
		s.mu.Lock()
		s.ending = true
		s.mu.Unlock()
		signal(s.more)
	}
}
