package cni

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

// How long GC waits for a moment in which nothing is being attached, and how
// long its plugins may keep new pods waiting then.
const (
	quietPatience = 5 * time.Second
	gcTimeout     = 10 * time.Second
)

// gate keeps GC and ADD apart: a lease that is being made would look to GC's
// plugins like one that belongs to nobody. It also knows what this process has
// attached, which may be more than what GC's caller knew when it made its list.
type gate struct {
	mu   sync.Mutex
	adds int
	shut chan struct{} // not nil while GC's plugins run
	live map[string]struct{}
}

// begin counts an ADD in; end counts it out.
func (g *gate) begin(ctx context.Context, id string) error {
	for {
		g.mu.Lock()
		shut := g.shut
		if shut == nil {
			g.adds++
			if g.live == nil {
				g.live = map[string]struct{}{}
			}
			g.live[id] = struct{}{}
			g.mu.Unlock()
			return nil
		}
		g.mu.Unlock()
		select {
		case <-shut:
		case <-ctx.Done():
			return fmt.Errorf("wait for the network's garbage collection: %w", ctx.Err())
		}
	}
}

func (g *gate) end() {
	g.mu.Lock()
	g.adds--
	g.mu.Unlock()
}

// released forgets an attachment that was undone.
func (g *gate) released(id string) {
	g.mu.Lock()
	delete(g.live, id)
	g.mu.Unlock()
}

func (g *gate) attached(id string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.live[id]
	return ok
}

// close waits for a quiet moment and keeps ADDs out until open is called with
// what is attached. ADDs are not held up by its waiting.
func (g *gate) close(ctx context.Context) (live []string, open func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, quietPatience)
	defer cancel()
	for {
		g.mu.Lock()
		if g.adds == 0 && g.shut == nil {
			shut := make(chan struct{})
			g.shut = shut
			for id := range g.live {
				live = append(live, id)
			}
			g.mu.Unlock()
			return live, func() {
				g.mu.Lock()
				g.shut = nil
				g.mu.Unlock()
				close(shut)
			}, nil
		}
		g.mu.Unlock()
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("pods are being attached all the time, try again later: %w", errdefs.ErrUnavailable)
		}
	}
}
