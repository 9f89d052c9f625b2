//go:build e2e

package core

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/story"
)

var logLine = regexp.MustCompile(`^(\S+) (stdout|stderr) ([PF]) (.*)\n$`)

func readLog(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Lines longer than a log line may be come in parts that the kubelet joins; a last line without an end comes whole.
func TestLinesAreCutAndMarked(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("parts")
	c := p.Go(story.Shell("c", "head -c 50000 /dev/zero | tr '\\0' a; echo; echo short; printf 'tab\\there\\r\\n'; echo; printf 'no end'; printf 'warn' >&2"))
	c.Exited()
	last := time.Time{}
	parts := 0
	for line := range strings.Lines(readLog(t, c.Log())) {
		m := logLine.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("not of the format: %.80q", line)
		}
		at, err := time.Parse(time.RFC3339Nano, m[1])
		if err != nil {
			t.Errorf("not a time: %q", m[1])
		}
		if m[2] == "stdout" {
			if at.Before(last) {
				t.Errorf("time goes back: %s after %s", at, last)
			}
			last = at
		}
		if m[3] == "P" {
			parts++
			if len(m[4]) > 16<<10 {
				t.Errorf("a part of %d bytes", len(m[4]))
			}
		}
	}
	if parts < 3 {
		t.Errorf("50000 bytes in %d parts and a rest", parts)
	}
	if got, want := c.Said("stdout"), strings.Repeat("a", 50000)+"\nshort\ntab\there\r\n\nno end"; strings.TrimSuffix(got, "\n") != want {
		t.Errorf("%d bytes, not %d; the end is %q", len(got), len(want), got[max(0, len(got)-40):])
	}
	if got := strings.TrimSuffix(c.Said("stderr"), "\n"); got != "warn" {
		t.Errorf("standard error is %q", got)
	}
}

// Rotation under load: no line is lost, none comes twice, none is torn.
func TestRotationUnderLoad(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("rotate")
	const lines = 60000
	c := p.Go(story.Shell("c", fmt.Sprintf("seq 1 %d; echo done", lines)))
	var files []string
	for n := range 8 {
		old := fmt.Sprintf("%s.%d", c.Log(), n)
		if err := os.Rename(c.Log(), old); err != nil {
			t.Fatal(err)
		}
		files = append(files, old)
		if _, err := s.Runtime.ReopenContainerLog(t.Context(), &runtimeapi.ReopenContainerLogRequest{ContainerId: c.ID}); err != nil {
			if c.Status().GetState() == exited {
				break // it was quicker than we
			}
			t.Fatalf("rotation %d: %v", n, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	c.Exited()
	if _, err := os.Stat(c.Log()); err == nil {
		files = append(files, c.Log())
	}
	var all strings.Builder
	for _, f := range files {
		all.WriteString(readLog(t, f))
	}
	text, err := story.Unlog(all.String(), "stdout")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(text) {
		n++
		if n <= lines && line != fmt.Sprintf("%d\n", n) || n == lines+1 && line != "done\n" || n > lines+1 {
			t.Fatalf("line %d of all files is %q", n, line)
		}
	}
	if n != lines+1 {
		t.Errorf("%d lines in %d files, not %d", n, len(files), lines+1)
	}
}

func TestATerminalsLog(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("tty")
	config := story.Shell("c", "tty; echo out; echo err >&2; echo $TERM")
	config.Tty = true
	c := p.Go(config)
	c.Exited()
	if got := c.Said("stdout"); !strings.Contains(got, "/dev/pts/0") || !strings.Contains(got, "out") || !strings.Contains(got, "err") || !strings.Contains(got, "xterm") {
		t.Errorf("a terminal has one stream: %q", got)
	}
	if got := c.Said("stderr"); got != "" {
		t.Errorf("and this is on the other: %q", got)
	}
}

// The last words are in the file when the end is told, every time: the kubelet reads the log at once, and never again.
func TestLastWordsAreInTheLog(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("last")
	for n := range 10 {
		c := p.Go(story.Shell(fmt.Sprintf("c%d", n), "seq 1 2000; echo last words; kill -9 $$"))
		c.Exited()
		if text := c.Said("stdout"); !strings.HasSuffix(text, "2000\nlast words\n") {
			t.Fatalf("round %d: %d bytes, which end with %q", n, len(text), text[max(0, len(text)-30):])
		}
	}
}

func TestAContainerWithoutALog(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("silent")
	config := story.Shell("c", "seq 1 100000; exit 4")
	config.LogPath = ""
	if st := p.Go(config).Exited(); st.GetExitCode() != 4 || st.GetLogPath() != "" {
		t.Errorf("code %d, log %q", st.GetExitCode(), st.GetLogPath())
	}
}

// A log path that leads out of the pod's folder is refused: the name is the pod owner's, the file would be root's.
func TestALogStaysInItsFolder(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("escape")
	for _, path := range []string{"../escaped.log", "/etc/escaped.log", "a/../../escaped.log"} {
		config := story.Sleeper("c")
		config.LogPath = path
		if id, err := s.Create(t.Context(), p.ID, config, p.Config); err == nil {
			st, _ := s.Status(t.Context(), id)
			if inside := filepath.Clean(st.GetLogPath()); !strings.HasPrefix(inside, p.Config.GetLogDirectory()+"/") {
				t.Errorf("log path %q makes %s", path, inside)
			}
			if err := s.RemoveContainer(t.Context(), id); err != nil {
				t.Error(err)
			}
		}
	}
	// a link that somebody put there is not followed
	target := filepath.Join(t.TempDir(), "target")
	if err := os.WriteFile(target, []byte("precious\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(p.Config.GetLogDirectory(), 0o755); err != nil {
		t.Fatal(err)
	}
	config := story.Shell("linked", "echo overwritten")
	if err := os.Symlink(target, filepath.Join(p.Config.GetLogDirectory(), config.GetLogPath())); err != nil {
		t.Fatal(err)
	}
	if id, err := s.Run(t.Context(), p.ID, config, p.Config); err == nil {
		if _, err := s.WaitState(t.Context(), id, exited, 10*time.Second); err != nil {
			t.Error(err)
		}
	}
	if got := readLog(t, target); got != "precious\n" {
		t.Errorf("written through a link: %q", got)
	}
}
