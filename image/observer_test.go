package image

import (
	"context"
	"sync"
	"testing"
	"time"
)

type tally struct {
	mu      sync.Mutex
	started int
	classes []string
	bytes   int64
	now     int
}

func (c *tally) PullStarted(string) { c.mu.Lock(); defer c.mu.Unlock(); c.started++ }
func (c *tally) PullFinished(_ string, _ time.Duration, bytes int64, class string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.classes, c.bytes = append(c.classes, class), c.bytes+bytes
}
func (c *tally) LayersInProgress(n int) { c.mu.Lock(); defer c.mu.Unlock(); c.now = n }

func TestObserverSeesSuccessesAndFailures(t *testing.T) {
	needRoot(t)
	host := serve(t)
	push(t, host+"/a:1", imageOf(t, layerOf(t, file{name: "f", body: noise(10_000)})))
	c := &tally{}
	s := openStore(t, t.TempDir(), func(cfg *Config) { cfg.Observer = c })
	_, _ = s.Pull(context.Background(), PullRequest{Ref: host + "/a:1"})
	_, _ = s.Pull(context.Background(), PullRequest{Ref: host + "/none:1"})
	s.Close()
	if c.started != 2 || len(c.classes) != 2 || c.classes[0] != "" || c.classes[1] != "not_found" || c.bytes < 10_000 || c.now != 0 {
		t.Errorf("%+v", c)
	}
}
