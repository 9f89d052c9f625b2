//go:build e2e

package net

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/crid-project/crid/e2e/faults/watch"
	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/story"
)

// pins are the pods' network namespaces that are pinned in a home.
func pins(c harness.Census) (n int) {
	for k, v := range c {
		if strings.HasPrefix(k, "mount ") && strings.HasSuffix(k, "/net") {
			n += v
		}
	}
	return n
}

// leases are the addresses that are given away.
func leases(c harness.Census) (n int) {
	for k, v := range c {
		if strings.HasPrefix(k, "address lease ") {
			n += v
		}
	}
	return n
}

// stops asks for a stop that must fail, with words, within the plugin's time.
func (b *bench) stopFails(id, words string) {
	b.T.Helper()
	ctx, cancel := context.WithTimeout(b.T.Context(), 2*limit+10*time.Second)
	defer cancel()
	if err := b.StopPod(ctx, id); err == nil || !strings.Contains(err.Error(), words) {
		b.T.Errorf("a stop whose DEL fails is told as: %v", err)
	}
}

// A DEL that fails several times, then works: each stop says so, the namespace stays until it worked, and the address is freed once.
func TestF80ADelThatFailsThenWorks(t *testing.T) {
	t.Parallel()
	b := begin(t)
	before := b.Census(t.Context())
	watch.Others(b.Story)
	p := b.Pod("owed")
	c := p.Go(story.Sleeper("c"))
	b.fault("DEL", "error:still in use")
	for range watch.Times(2, 3) {
		b.stopFails(p.ID, "still in use")
		if now := b.Census(t.Context()); pins(now) != pins(before)+1 {
			t.Errorf("%d namespaces are pinned, not %d: it went before its network was freed", pins(now), pins(before)+1)
		}
	}
	if st := c.Status(); st.GetState().String() != "CONTAINER_EXITED" {
		t.Errorf("the container is %s", st.GetState())
	}
	b.well()
	b.Eventually("the stop works", 20*time.Second, func() bool { return b.StopPod(t.Context(), p.ID) == nil })
	if err := b.RemovePod(t.Context(), p.ID); err != nil {
		t.Error(err)
	}
	b.clean("a DEL that fails", before)
	calls, err := os.ReadFile(b.dir + "/calls")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(calls), "DEL "+p.ID+" gone") {
		t.Error("DEL was called without the namespace")
	}
}

// A DEL that hangs is ended in time, and is owed like one that fails.
func TestF80ADelThatHangs(t *testing.T) {
	t.Parallel()
	b := begin(t)
	before := b.Census(t.Context())
	watch.Others(b.Story)
	p := b.Pod("hung")
	b.fault("DEL", "hang")
	b.stopFails(p.ID, "")
	if n := b.held(); n > 1 { // the desk tries again at once, so one may be under way
		t.Errorf("%d children of plugins", n)
	}
	b.well()
	b.Eventually("the stop works", 30*time.Second, func() bool { return b.StopPod(t.Context(), p.ID) == nil })
	if err := b.RemovePod(t.Context(), p.ID); err != nil {
		t.Error(err)
	}
	b.clean("a DEL that hangs", before)
}

// The configuration goes, and comes back as another network, while pods are up: they are deleted by what they were added with, also after a
// crash in between.
func TestF81TheConfigurationIsReplacedBetweenAddAndDel(t *testing.T) {
	b := begin(t)
	before := b.Census(t.Context())
	list, err := os.ReadFile(confPath(b.Home))
	if err != nil {
		t.Fatal(err)
	}
	restore := func() {
		if err := os.WriteFile(confPath(b.Home), list, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		what   string
		change func() error
		crash  bool
	}{
		{"removed", func() error { return os.Remove(confPath(b.Home)) }, false},
		{"replaced", func() error {
			return os.WriteFile(confPath(b.Home), []byte(`{"cniVersion":"1.0.0","name":"other","plugins":[{"type":"loopback"}]}`), 0o600)
		}, false},
		{"torn, and a crash", func() error { return os.WriteFile(confPath(b.Home), list[:len(list)/2], 0o600) }, true},
	} {
		var id string
		b.Eventually(c.what+": a pod runs", 10*time.Second, func() bool { // the change is taken up soon
			id, err = b.RunPod(t.Context(), b.Home.Pod("config"), "")
			return err == nil
		})
		if err := c.change(); err != nil {
			t.Fatal(err)
		}
		if c.crash {
			crashAndStart(b)
		}
		dels := b.saw("DEL", id)
		if err := b.RemovePodFully(t.Context(), id); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if b.saw("DEL", id) != dels+1 {
			t.Errorf("%s: %d DELs of the old network's plugin", c.what, b.saw("DEL", id)-dels)
		}
		b.clean(c.what, before)
		restore()
	}
}

func crashAndStart(b *bench) {
	b.T.Helper()
	if err := b.Kill(); err != nil {
		b.T.Fatal(err)
	}
	if err := b.Daemon.Start(b.T.Context()); err != nil {
		b.T.Fatal(err)
	}
}
