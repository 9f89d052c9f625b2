package cni

import (
	"bytes"
	"sync"
)

// bounded keeps the first limit bytes written to it. What comes after is
// swallowed; over, if there is one, is closed then.
type bounded struct {
	limit int
	over  chan struct{}

	mu     sync.Mutex
	buf    bytes.Buffer
	beyond bool
}

// Write never fails, so that a plugin is not killed by its own diagnostics.
func (b *bounded) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	room := b.limit - b.buf.Len()
	b.buf.Write(p[:min(len(p), room)])
	if len(p) > room && !b.beyond {
		b.beyond = true
		if b.over != nil {
			close(b.over)
		}
	}
	return len(p), nil
}

func (b *bounded) exceeded() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.beyond
}

// Bytes is a copy: a writer may still be at work.
func (b *bounded) Bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.buf.Bytes())
}

func (b *bounded) String() string { return string(b.Bytes()) }
