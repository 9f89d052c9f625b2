package soak

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// timeline is what happened, in order: a file, and its end in memory.
type timeline struct {
	mu         sync.Mutex
	start      time.Time
	file       *os.File
	screen     io.Writer
	last       []string
	violations []string
	counts     map[string]int
	longest    map[string]time.Duration
}

func newTimeline(path string, screen io.Writer) (*timeline, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &timeline{start: time.Now(), file: f, screen: screen, counts: map[string]int{}, longest: map[string]time.Duration{}}, nil
}

func (t *timeline) close() { t.file.Close() }

// say notes something.
func (t *timeline) say(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.note(format, args...)
}

func (t *timeline) note(format string, args ...any) string {
	line := fmt.Sprintf("%9.3f ", time.Since(t.start).Seconds()) + strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "\n          ")
	fmt.Fprintln(t.file, line)
	if t.last = append(t.last, line); len(t.last) > 400 {
		t.last = slices.Delete(t.last, 0, 200)
	}
	return line
}

// show notes something and prints it, too.
func (t *timeline) show(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintln(t.screen, t.note(format, args...))
}

// broken notes that a law was broken. A hundred of one run are enough.
func (t *timeline) broken(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.violations) >= 100 {
		return
	}
	line := t.note("BROKEN: "+format, args...)
	fmt.Fprintln(t.screen, line)
	t.violations = append(t.violations, line)
}

// count counts something by its name.
func (t *timeline) count(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts[what]++
}

// took keeps the longest time of something.
func (t *timeline) took(what string, d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.longest[what] = max(t.longest[what], d)
}

func (t *timeline) tally(prefix string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []string
	for what, n := range t.counts {
		if name, ok := strings.CutPrefix(what, prefix); ok {
			out = append(out, strings.TrimSpace(fmt.Sprintf("%s %d", name, n)))
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func (t *timeline) end() (violations, last []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.violations), slices.Clone(t.last[max(0, len(t.last)-120):])
}

// times are the longest times of what was measured.
func (t *timeline) times() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []string
	for what, d := range t.longest {
		out = append(out, fmt.Sprintf("%s %s", what, d.Round(time.Millisecond)))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}
