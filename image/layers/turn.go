package layers

import (
	"context"
	"sync"
)

// turns lets calls about the same thing (a container id, a mount key) follow
// each other. A caller that waits leaves with its context; nobody waits for
// what concerns something else.
type turns struct {
	mu   sync.Mutex
	busy map[string]chan struct{}
}

// take waits for the caller's turn and answers how to end it.
func (t *turns) take(ctx context.Context, name string) (func(), error) {
	for {
		t.mu.Lock()
		before, taken := t.busy[name]
		if !taken {
			mine := make(chan struct{})
			if t.busy == nil {
				t.busy = map[string]chan struct{}{}
			}
			t.busy[name] = mine
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				delete(t.busy, name)
				t.mu.Unlock()
				close(mine)
			}, nil
		}
		t.mu.Unlock()
		select {
		case <-before:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
