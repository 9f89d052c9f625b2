//go:build e2e

package net

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/crid-project/crid/e2e/faults/watch"
)

// held are the children of hanging plugins of this bench that live.
func (b *bench) held() int {
	b.T.Helper()
	out, err := exec.Command("pgrep", "-f", "--", holdArg+" "+b.dir).Output()
	if err != nil && exitCode(err) != 1 { // 1: none
		b.T.Fatal(err)
	}
	return len(strings.Fields(string(out)))
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

// An ADD that hangs, and has a child which keeps its output open, is ended with all that it started; the pod is undone, by DEL too.
func TestF77AnAddThatHangs(t *testing.T) {
	t.Parallel()
	b := begin(t)
	before := b.Census(t.Context())
	watch.Others(b.Story)
	b.fault("ADD", "hang")
	words := b.refused("an ADD that hangs", "hang")
	if !strings.Contains(words, ours) || !strings.Contains(words, "in time") {
		t.Errorf("the error names neither plugin nor reason: %s", words)
	}
	if !strings.Contains(words, codes.Unavailable.String()) {
		t.Errorf("a plugin's deadline is told as the caller's: %s", words)
	}
	if n := b.held(); n != 0 {
		t.Errorf("%d children of the plugin are left", n)
	}
	if b.saw("DEL", "") < b.saw("ADD", "") {
		t.Error("DEL was not called after the ADD that hung")
	}
	b.clean("an ADD that hangs", before)
	b.well()
	b.reuse("an ADD that hangs", "hang")
}

// A caller who gives up does not end what was begun half way; his retry, with the plugin well again, gets a pod.
func TestF77AnAddThatHangsForACallerWhoLeaves(t *testing.T) {
	t.Parallel()
	b := begin(t)
	before := b.Census(t.Context())
	b.fault("ADD", "hang")
	config := b.Home.Pod("impatient")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	_, err := b.RunPod(ctx, config, "")
	cancel()
	b.WantCode("a caller who leaves", err, codes.DeadlineExceeded)
	b.well()
	// It joins the making that still hangs, whose failure it is told; the next one works.
	var id string
	b.Eventually("a pod of that name", 2*limit+15*time.Second, func() bool {
		id, err = b.RunPod(t.Context(), config, "")
		return err == nil
	})
	if err := b.RemovePodFully(t.Context(), id); err != nil {
		t.Error(err)
	}
	b.clean("a caller who leaves", before)
}

// Whatever an ADD answers that is no result: an error in words, DEL called, nothing left, and the name free.
func TestF78AnswersThatAreNoResults(t *testing.T) {
	t.Parallel()
	b := begin(t)
	watch.Others(b.Story)
	before := b.Census(t.Context())
	hows := []string{"error:no more wires", "silent", "crash", "flood", "no address"}
	for how := range answers {
		if how != "no address" && how != "IPv6 only" {
			hows = append(hows, how)
		}
	}
	for _, how := range hows {
		adds, dels := b.saw("ADD", ""), b.saw("DEL", "")
		b.fault("ADD", how)
		words := b.refused(how, "answer")
		if _, rest, ok := strings.Cut(how, ":"); ok && !strings.Contains(words, rest) {
			t.Errorf("%s: the plugin's words are lost: %s", how, words)
		}
		if !strings.Contains(words, ours) && how != "no address" {
			t.Errorf("%s: the error does not name the plugin: %s", how, words)
		}
		if b.saw("ADD", "") != adds+1 || b.saw("DEL", "") <= dels {
			t.Errorf("%s: %d ADDs and %d DELs", how, b.saw("ADD", "")-adds, b.saw("DEL", "")-dels)
		}
		b.clean(how, before)
		b.well()
		b.reuse(how, "answer")
	}
}

// A network of IPv6 only is a network.
func TestF78IPv6Only(t *testing.T) {
	b := begin(t)
	b.fault("ADD", "IPv6 only")
	p := b.Pod("six")
	if ip := p.Status().GetNetwork().GetIp(); ip != "fd00:249::9" {
		t.Errorf("the pod's address is %q", ip)
	}
}

// The second plugin of a chain is not installed: the first one's work is undone.
func TestF79AChainWithAPluginThatIsNotThere(t *testing.T) {
	b := begin(t)
	before := b.Census(t.Context())
	adds, dels := b.saw("ADD", ""), b.saw("DEL", "")
	if err := b.chain(map[string]any{"type": "no-such-plugin"})(b.Home); err != nil {
		t.Fatal(err)
	}
	b.Eventually("the network is not ready", 10*time.Second, func() bool { return !ready(b) })
	words := b.refused("a chain with a plugin missing", "missing")
	if !strings.Contains(words, "no-such-plugin") {
		t.Errorf("the plugin is not named: %s", words)
	}
	if a, d := b.saw("ADD", "")-adds, b.saw("DEL", "")-dels; d < a {
		t.Errorf("%d ADDs and %d DELs of the plugin before it", a, d)
	}
	b.clean("a chain with a plugin missing", before)
	if err := edit(b.Home, func(conf map[string]any) {
		plugins, _ := conf["plugins"].([]any)
		conf["plugins"] = plugins[:len(plugins)-1]
	}); err != nil {
		t.Fatal(err)
	}
	b.Eventually("the network is ready", 10*time.Second, func() bool { return ready(b) })
	b.reuse("a chain with a plugin missing", "missing")
}

// The only plugin of a network vanishes while a pod is up: the stop says which, and works when it is back.
func TestF79APluginVanishesBeforeDel(t *testing.T) {
	t.Parallel()
	b := begin(t)
	p := b.Pod("vanished")
	program := filepath.Join(b.dir, "bin", ours)
	if err := os.Rename(program, program+".away"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := b.StopPod(ctx, p.ID); err == nil || !strings.Contains(err.Error(), ours) {
		t.Errorf("the stop says: %v", err)
	}
	if err := os.Rename(program+".away", program); err != nil {
		t.Fatal(err)
	}
	b.Eventually("the stop works", 20*time.Second, func() bool { return b.StopPod(t.Context(), p.ID) == nil })
}
