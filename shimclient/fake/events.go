package fake

import (
	"time"

	"github.com/crid-project/crid/shimclient"
)

// LoseEvents makes events vanish from now on, until it is called with false.
func (w *World) LoseEvents(lose bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loseEvents = lose
}

// Publish puts any event, forged or repeated, into the stream.
func (w *World) Publish(e shimclient.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.publish(e)
}

func (w *World) publish(e shimclient.Event) {
	if w.loseEvents {
		return
	}
	select {
	case w.events <- e:
	default:
	}
}

// Events gives what the shims published. When it is full, events are lost.
func (w *World) Events() <-chan shimclient.Event { return w.events }

// Deaf says that nobody takes events, as while crid is down. What was taken and not
// read by then is lost; what shims publish they offer again, up to 15 s later.
func (w *World) Deaf(deaf bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deaf = deaf
	for deaf {
		select {
		case <-w.events:
		default:
			return
		}
	}
}

// offers are how long after each other a shim offers an event.
var offers = []time.Duration{1 * time.Second, 2 * time.Second, 3 * time.Second, 4 * time.Second, 5 * time.Second}

// forward offers an event for the nth time; with the world's lock held.
func (srv *server) forward(e shimclient.Event, n int) {
	if !srv.w.deaf {
		srv.w.publish(e)
		return
	}
	if n == len(offers) {
		return
	}
	time.AfterFunc(offers[n], func() {
		srv.w.mu.Lock()
		defer srv.w.mu.Unlock()
		switch {
		case srv.proc.ended: // and its events with it
		case srv.proc.stopped:
			srv.kept = append(srv.kept, func() { srv.forward(e, n+1) })
		default:
			srv.forward(e, n+1)
		}
	})
}
