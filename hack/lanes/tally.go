package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

// tally counts tests. Of a test with subtests only these count, or one failure would be two.
type tally struct {
	passed, failed, skipped int
	failures                []string
	second                  []string            // failed at first, passed in a second run
	why                     map[string][]string // reason: tests skipped for it
}

func (t *tally) counts() [3]int { return [3]int{t.passed, t.failed, t.skipped} }

func (t *tally) skip(test, reason string) {
	if t.why == nil {
		t.why = map[string][]string{}
	}
	reason = strings.TrimSpace(reason)
	t.why[reason] = append(t.why[reason], test)
	t.skipped++
}

// reasons lists what was skipped, by reason.
func (t *tally) reasons(w io.Writer) {
	if len(t.why) == 0 {
		return
	}
	fmt.Fprintln(w, "\nskipped:")
	for _, reason := range slices.Sorted(maps.Keys(t.why)) {
		tests := t.why[reason]
		fmt.Fprintf(w, "  %s: %d\n", reason, len(tests))
		for _, name := range tests {
			fmt.Fprintf(w, "      %s\n", name)
		}
	}
}

// event is a line of `go test -json`.
type event struct {
	Action, Package, Test, Output, FailedBuild, ImportPath string
	Elapsed                                                float64
}

// follow reads the events of go test to their end, shows packages, and all output of what failed.
func (t *tally) follow(in io.Reader, out io.Writer, verbose bool) error {
	output := map[string]*strings.Builder{} // of tests under way
	parent := map[string]bool{}
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 64<<10), 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintln(out, lines.Text()) // not from the tests themselves
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "run":
			if at := strings.LastIndexByte(e.Test, '/'); at > 0 {
				for at > 0 {
					parent[e.Package+" "+e.Test[:at]] = true
					at = strings.LastIndexByte(e.Test[:at], '/')
				}
			}
		case "output":
			if output[key] == nil {
				output[key] = &strings.Builder{}
			}
			if output[key].Len() < 256<<10 {
				output[key].WriteString(e.Output)
			}
		case "build-output":
			fmt.Fprint(out, e.Output)
		case "pass", "fail", "skip":
			text := ""
			if output[key] != nil {
				text = output[key].String()
			}
			delete(output, key)
			if e.Test == "" {
				t.endPackage(out, e, text)
			} else {
				t.endTest(out, e, text, parent[key], verbose)
			}
		}
	}
	return lines.Err()
}

func (t *tally) endPackage(out io.Writer, e event, text string) {
	name := strings.TrimPrefix(e.Package, "github.com/crid-project/crid/")
	switch e.Action {
	case "pass":
		if !strings.Contains(text, "[no test files]") && !strings.Contains(text, "no tests to run") {
			fmt.Fprintf(out, "ok    %-32s %6.1f s\n", name, e.Elapsed)
		}
	case "fail":
		fmt.Fprintf(out, "FAIL  %-32s %6.1f s\n", name, e.Elapsed)
		if !slices.ContainsFunc(t.failures, func(f string) bool { return strings.HasPrefix(f, name+" ") }) {
			// no test of it failed: it did not build, panicked or ran out of time
			t.failed++
			t.failures = append(t.failures, name+" (the package)")
			fmt.Fprint(out, text)
		}
	}
}

func (t *tally) endTest(out io.Writer, e event, text string, parent, verbose bool) {
	name := strings.TrimPrefix(e.Package, "github.com/crid-project/crid/") + " " + e.Test
	switch {
	case e.Action == "fail":
		if !parent || !slices.ContainsFunc(t.failures, func(f string) bool { return strings.HasPrefix(f, name+"/") }) {
			t.failed++
			t.failures = append(t.failures, name)
		}
		fmt.Fprint(out, text)
	case parent:
	case e.Action == "pass":
		t.passed++
	case e.Action == "skip":
		t.skip(name, reason(text))
	}
	if verbose && e.Action != "fail" {
		fmt.Fprintf(out, "      %-4s %s %.2f s\n", e.Action, name, e.Elapsed)
	}
}

// reason is what a test said when it was skipped: "    file_test.go:12: needs root".
func reason(text string) string {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "---") || strings.HasPrefix(line, "===") {
			continue
		}
		if _, said, ok := strings.Cut(line, ".go:"); ok {
			if _, said, ok = strings.Cut(said, ": "); ok {
				return said
			}
		}
	}
	return "no reason given"
}

// lastLine passes output on and keeps it.
type lastLine struct{ all bytes.Buffer }

func (l *lastLine) Write(p []byte) (int, error) {
	l.all.Write(p)
	return os.Stdout.Write(p)
}

func (l *lastLine) line() string {
	text := strings.TrimRight(l.all.String(), "\n")
	return text[strings.LastIndexByte(text, '\n')+1:]
}
