//go:build e2e

package shims

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/crid-project/crid/e2e/faults/inject"
	"github.com/crid-project/crid/e2e/story"
)

// F30: the shim gives its events up after 21 seconds. How a container ended, and when, is known after any time.
func TestF30ExitsWhileCridIsDown(t *testing.T) {
	t.Parallel()
	for _, down := range []time.Duration{10 * time.Second, 20 * time.Second, 60 * time.Second} {
		t.Run(fmt.Sprintf("F30 crid is down for %s", down), func(t *testing.T) {
			t.Parallel()
			s := alone(t)
			p := s.Pod("down")
			const line = "while [ ! -e /end ]; do sleep 0.05; done; date +%s >/proc/1/fd/1; exit 42"
			c := p.Go(story.Shell("c", line))
			last := p.Go(story.Shell("last", line))
			d := p.Go(story.Shell("d", deaf))
			pid, lastPid := c.Pid(), last.Pid()
			inject.Crash(s)
			end := func(pid int) time.Time {
				inject.Write(t, fmt.Sprintf("/proc/%d/root/end", pid), "")
				for deadline := time.Now().Add(5 * time.Second); inject.State(pid) != "" && inject.State(pid) != "Z"; time.Sleep(time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatal("the workload does not end")
					}
				}
				return time.Now()
			}
			first := end(pid)
			time.Sleep(down - 2*time.Second)
			second := end(lastPid) // a moment before crid is back
			time.Sleep(2 * time.Second)
			inject.Within(t, "the start", inject.Again(s), 10*time.Second)
			for c, ended := range map[*story.Container]time.Time{c: first, last: second} {
				st := c.WantState(exited)
				at := time.Unix(0, st.GetFinishedAt())
				if off := at.Sub(ended); st.GetExitCode() != 42 || off < -time.Second || off > time.Second {
					t.Errorf("down for %s: code %d, %s from the true end", down, st.GetExitCode(), off)
				}
				said, err := os.ReadFile(c.Log())
				if err != nil {
					t.Fatal(err)
				}
				text, err := story.Unlog(string(said), "stdout")
				if err != nil {
					t.Fatal(err)
				}
				if when, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64); err != nil || when < ended.Unix()-2 || when > ended.Unix()+1 {
					t.Errorf("its last words: %q (%v), it ended at %d", text, err, ended.Unix())
				}
			}
			d.WantState(running)
			d.Sh("true")
			inject.Clear(s, p, 20*time.Second)
		})
	}
}
