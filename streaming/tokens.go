package streaming

import (
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

const (
	// tokenLife is how long a URL can be used: a kubelet uses it at once.
	tokenLife = time.Minute
	// maxTokens bounds the URLs that were asked for and not used.
	maxTokens = 1000
)

// tokens hands out keys that open one request once, for a minute.
type tokens struct {
	mu    sync.Mutex
	calls map[string]pending
	order []string // by age; holds used ones too, until they are the oldest
}

type pending struct {
	call    *call
	expires time.Time
}

func newTokens() *tokens { return &tokens{calls: make(map[string]pending)} }

// issue returns a token for c: 128 random bits, fit for a URL. errdefs.ErrResourceExhausted if too many wait.
func (t *tokens) issue(c *call) (string, error) {
	token := rand.Text()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(time.Now())
	if len(t.calls) >= maxTokens {
		return "", fmt.Errorf("%d streaming URLs wait to be used; try again within a minute: %w", maxTokens, errdefs.ErrResourceExhausted)
	}
	t.calls[token] = pending{call: c, expires: time.Now().Add(tokenLife)}
	t.order = append(t.order, token)
	return token, nil
}

// redeem returns the call behind a token and forgets the token; nil if it is unknown, used or too old.
func (t *tokens) redeem(token string) *call {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(time.Now())
	p := t.calls[token]
	delete(t.calls, token)
	return p.call
}

func (t *tokens) expire(now time.Time) {
	done := 0
	for _, token := range t.order {
		if p, ok := t.calls[token]; ok && now.Before(p.expires) {
			break
		}
		delete(t.calls, token)
		done++
	}
	if done > 0 {
		t.order = append(t.order[:0], t.order[done:]...)
	}
}
