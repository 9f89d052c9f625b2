//go:build e2e

package host

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/faults/watch"
	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/story"
)

// The disk of the logs is full: the container goes on, and when there is room its lines are there again.
func TestF66TheLogsDiskIsFullAndThenNot(t *testing.T) {
	t.Parallel()
	s := story.AloneIn(t, harness.Crid{}, disk((*harness.Home).PodLogs, "size=256k"))
	watch.Others(s)
	c := s.Pod("chatty").Go(story.Shell("c", "yes 0123456789012345678901234567890123456789 | head -n 50000; n=0; while :; do n=$((n+1)); echo line-$n-; echo $n >/count; sleep 0.1; done"))
	count := func() int { n, _ := strconv.Atoi(c.Sh("cat /count 2>/dev/null || echo 0")); return n }
	s.Eventually("it has written more than there is room for", 40*time.Second, func() bool { return count() > 0 })
	before := count()
	s.Eventually("it goes on", 10*time.Second, func() bool { return count() > before })
	// Room is made as a kubelet makes it: the log is moved away, deleted, and opened anew.
	if err := os.Remove(c.Log()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Runtime.ReopenContainerLog(t.Context(), &runtimeapi.ReopenContainerLogRequest{ContainerId: c.ID}); err != nil {
		t.Fatal(err)
	}
	mark := fmt.Sprintf("line-%d-", count()+3)
	s.Eventually("its lines are in the log again", 20*time.Second, func() bool {
		text, err := os.ReadFile(c.Log())
		return err == nil && strings.Contains(string(text), mark)
	})
	c.Stop(1)
}

// Where the log should be there is a link, a pipe or a folder: a rotation is refused, nothing is written there, and the container is not disturbed.
func TestF67TheLogsPathIsNoFile(t *testing.T) {
	s := story.Begin(t)
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte(victimText), 0o644); err != nil {
		t.Fatal(err)
	}
	p := s.Pod("rotated")
	for what, put := range map[string]func(string) error{
		"a link":   func(path string) error { return os.Symlink(victim, path) },
		"a pipe":   func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a folder": func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		c := p.Go(story.Shell("c", "while :; do echo line; sleep 0.05; done"))
		c.Heard("line")
		if err := os.Remove(c.Log()); err != nil {
			t.Fatal(err)
		}
		if err := put(c.Log()); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_, err := s.Runtime.ReopenContainerLog(t.Context(), &runtimeapi.ReopenContainerLogRequest{ContainerId: c.ID})
		if err == nil {
			t.Errorf("%s: the log is reopened", what)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s: %s until the answer", what, took)
		}
		c.Sh("true")
		if err := os.RemoveAll(c.Log()); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Runtime.ReopenContainerLog(t.Context(), &runtimeapi.ReopenContainerLogRequest{ContainerId: c.ID}); err != nil {
			t.Errorf("%s: afterwards: %v", what, err)
		}
		c.Heard("line")
		c.Stop(1)
		c.Remove()
	}
	if text, err := os.ReadFile(victim); err != nil || string(text) != victimText {
		t.Errorf("the file that the link pointed to: %.100q (%v)", text, err)
	}
}

// A container writes as fast as it can, more than its pipe holds. Neither a stop of crid nor a kill loses a line, tears one, writes one twice or in
// another order, whatever crid was doing at that moment with what it had read.
func TestF68ARestartUnderMuchOutput(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*story.Story) error{
		"stopped": func(s *story.Story) error { return s.Daemon.Stop() },
		"killed":  func(s *story.Story) error { return s.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			s := story.AloneIn(t, harness.Crid{}, disk((*harness.Home).State, "size=64m")) // a tmpfs, as /run is
			// Several megabytes a second: then nearly every moment is one between a read and the end of its write.
			var loud []*story.Container
			p := s.Pod("loud")
			for _, name := range []string{"a", "b", "c"} {
				loud = append(loud, p.Go(story.Shell(name, `awk 'BEGIN { while ((getline end < "/end") < 0) for (i = 0; i < 1000; i++) print ++n, "`+padding+`"; print "last", n }'`)))
			}
			for i := range watch.Times(10, 30) {
				// At full speed, or while it takes up the full pipes.
				time.Sleep(time.Duration(rand.IntN(20+180*(i%2))) * time.Millisecond)
				if err := end(s); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Duration(watch.Times(300, 1000)) * time.Millisecond)
				again(s)
			}
			for _, c := range loud {
				c.Sh("(sleep 0.2; touch /end) >/dev/null 2>&1 &") // later: the container's end is the command's, too
				c.Exited()
				counts(t, c.Log())
			}
			// What was on its way to the log is there; nothing of it is left where it was kept.
			if err := s.Daemon.Stop(); err != nil {
				t.Fatal(err)
			}
			if left, err := os.ReadDir(filepath.Join(s.Home.State(), "output")); err != nil || len(left) > 0 {
				t.Errorf("left of output that is in the log: %v (%v)", left, err)
			}
			again(s)
		})
	}
}

// padding is what each line has after its number.
var padding = strings.Repeat("0123456789", 10)

// counts checks that the lines of a log count from 1, and that the last one says how far.
func counts(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, wrong, ended, line := 0, 0, false, ""
	scan := bufio.NewScanner(f)
	for scan.Scan() && wrong < 3 {
		fields := strings.SplitN(scan.Text(), " ", 4)
		if len(fields) != 4 {
			t.Fatalf("after line %d comes half an entry: %.60q", n, scan.Text())
		}
		if line += fields[3]; fields[2] == "P" {
			continue // a stop ends a line in the middle
		}
		switch line {
		case fmt.Sprintf("%d %s", n+1, padding):
			n++
		case fmt.Sprintf("last %d", n):
			ended = true
		default:
			t.Errorf("after line %d comes %.40q", n, line)
			wrong++
			_, _ = fmt.Sscanf(line, "%d", &n)
		}
		line = ""
	}
	t.Logf("%d lines (%v)", n, scan.Err())
	if !ended {
		t.Error("the last line is missing")
	}
}
