//go:build e2e

package restart

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/crid-project/crid/e2e/faults/inject"
	"github.com/crid-project/crid/e2e/story"
	"github.com/crid-project/crid/store/lifecycle/trace"
)

// What the daemon did in a hard time is taken again from its own log, step by step: the law says the same, nothing but the law changed a
// state, and no step is missing.
func TestEveryStepOfTheLawCanBeTakenAgain(t *testing.T) {
	s := alone(t)
	log := s.Daemon.Home.Log()

	p := s.Pod("traced")
	steady := p.Go(story.Sleeper("steady"))
	p.Go(story.Shell("gone", "exit 3")).Exited()
	stopped := p.Go(story.Shell("stopped", "trap 'exit 4' TERM; while :; do sleep 0.05; done"))
	stopped.Stop(5)
	stopped.Remove()
	stubborn := p.Go(story.Shell("stubborn", "trap '' TERM; while :; do sleep 0.05; done"))
	stubborn.Stop(1)
	p.Make(story.Sleeper("made"))
	oops := p.Go(story.Sleeper("oops"))
	first := oops.Pid()
	inject.Crash(s)
	runs := []int{count(t, log)}
	inject.Signal(t, first, 9)
	inject.Again(s)
	oops.Exited()
	broken := s.Pod("broken")
	victim := broken.Go(story.Sleeper("victim"))
	inject.Signal(t, victim.ShimPid(), 9)
	victim.Exited()
	steady.Stop(0)
	inject.Crash(s)
	runs = append(runs, count(t, log))
	inject.Again(s)
	for _, id := range []string{p.ID, broken.ID} {
		if err := s.StopPod(t.Context(), id); err != nil {
			t.Error(err)
		}
		if err := s.RemovePodFully(t.Context(), id); err != nil {
			t.Error(err)
		}
	}

	var check trace.Checker
	events := map[string]int{}
	for n, step := range steps(t, log) {
		if len(runs) > 0 && n == runs[0] {
			runs = runs[1:]
			check.Restarted()
		}
		events[step.Event]++
		if err := check.Take(step); err != nil {
			t.Errorf("step %d: %v", n, err)
		}
	}
	t.Logf("%d steps: %v", check.Steps, events)
	for _, e := range []string{"Made", "AskStart", "LaunchBegun", "StartDone", "AskStop", "TermDone", "Due", "SeenExited", "ReapDone", "AskRemove", "EraseDone",
		"SeenShimGone", "PodHold", "PodMade", "AskPodStop", "MembersDone", "PodFreed", "AskPodRemove", "PodErased", "SeenPodBroken"} {
		if events[e] == 0 {
			t.Errorf("%s is not in the trace", e)
		}
	}
}

// count is how many steps the log has.
func count(t *testing.T, log string) int { t.Helper(); return len(steps(t, log)) }

// steps reads the steps of the law from a daemon's log.
func steps(t *testing.T, log string) []trace.Step {
	t.Helper()
	f, err := os.Open(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []trace.Step
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if fields := logfmt(lines.Text()); fields["msg"] == trace.Message {
			out = append(out, trace.From(fields))
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// logfmt reads a line of slog's text form.
func logfmt(line string) map[string]string {
	fields := map[string]string{}
	for line != "" {
		key, rest, ok := strings.Cut(line, "=")
		if !ok {
			break
		}
		value := rest
		if strings.HasPrefix(rest, `"`) {
			quoted, err := strconv.QuotedPrefix(rest)
			if err != nil {
				break
			}
			value, _ = strconv.Unquote(quoted)
			rest = rest[len(quoted):]
		} else {
			value, rest, _ = strings.Cut(rest, " ")
			rest = " " + rest
		}
		fields[strings.TrimSpace(key)] = value
		line = strings.TrimPrefix(rest, " ")
	}
	return fields
}
