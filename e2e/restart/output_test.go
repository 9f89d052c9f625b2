//go:build e2e

package restart

import (
	"strings"
	"testing"
	"time"

	"github.com/crid-project/crid/e2e/faults/inject"
	"github.com/crid-project/crid/e2e/story"
)

// Containers end while nobody reads: their shim has closed the pipes when crid comes back. Whatever they wrote is in the log when
// the first list says that they ended.
func TestTheLastWordsOfTheUnattended(t *testing.T) {
	s := alone(t)
	p := s.Pod("words")
	long := p.Go(story.Shell("long", "sleep 1; for i in $(seq 1000); do echo $i; done; seq 1000 >&2; echo bye; exit 42"))
	torn := p.Go(story.Shell("torn", "sleep 1; printf 'no end of line'; exit 43"))
	console := story.Shell("console", "sleep 1; echo bye; exit 44")
	console.Tty = true
	tty := p.Go(console)
	// More than a pipe holds: it waits for a reader, and ends when crid is back.
	most := p.Go(story.Shell("most", "sleep 1; seq 100000; echo bye; exit 45"))
	inject.Crash(s)
	time.Sleep(2500 * time.Millisecond)
	inject.Again(s)

	got := inject.States(s)
	for _, c := range []struct {
		*story.Container
		name string
		code int32
	}{{long, "long", 42}, {torn, "torn", 43}, {tty, "console", 44}} {
		if got[c.name] != exited {
			t.Errorf("the first list says %s is %s", c.name, got[c.name])
		}
		if st := c.Status(); st.GetExitCode() != c.code {
			t.Errorf("%s ended with %d", c.name, st.GetExitCode())
		}
	}
	counted(t, long.Said("stdout"))
	if n := strings.Count(long.Said("stdout"), "\n"); n != 1001 {
		t.Errorf("long: %d lines", n)
	}
	if n := strings.Count(long.Said("stderr"), "\n"); n != 1000 {
		t.Errorf("long: %d lines of errors", n)
	}
	if text := torn.Said("stdout"); text != "no end of line" {
		t.Errorf("torn: %q", text)
	}
	if text := strings.TrimSpace(tty.Said("stdout")); text != "bye" {
		t.Errorf("console: %q", text)
	}
	if st := most.Exited(); st.GetExitCode() != 45 {
		t.Errorf("most ended with %d", st.GetExitCode())
	}
	counted(t, most.Said("stdout"))
	if n := strings.Count(most.Said("stdout"), "\n"); n != 100001 {
		t.Errorf("most: %d lines", n)
	}
}
