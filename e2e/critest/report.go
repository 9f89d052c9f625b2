package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// outcome is what became of the specs of one run, by name. Specs that were never to be run (benchmarks, what the focus leaves out) are
// in none of the lists.
type outcome struct {
	passed  []string
	failed  map[string]string // with the message
	skipped map[string]string // with the reason
}

func (o *outcome) add(p *outcome) {
	o.passed = append(o.passed, p.passed...)
	for k, v := range p.failed {
		o.note(&o.failed, k, v)
	}
	for k, v := range p.skipped {
		o.note(&o.skipped, k, v)
	}
}

func (o *outcome) note(m *map[string]string, key, value string) {
	if *m == nil {
		*m = map[string]string{}
	}
	if _, twice := (*m)[key]; twice {
		key += " (again)"
	}
	(*m)[key] = value
}

// readReport reads ginkgo's JSON report. A report without a single spec is an error.
func readReport(path string) (*outcome, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var suites []struct {
		SpecReports []struct {
			ContainerHierarchyTexts    []string
			LeafNodeText, LeafNodeType string
			State                      string
			Failure                    struct{ Message string }
		}
	}
	if err := json.Unmarshal(data, &suites); err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	o := &outcome{}
	for _, s := range suites {
		for _, spec := range s.SpecReports {
			name := strings.Join(append(spec.ContainerHierarchyTexts, spec.LeafNodeText), " / ")
			if name == "" || spec.LeafNodeType != "It" {
				name = "[" + spec.LeafNodeType + "] " + name
			}
			message, _, _ := strings.Cut(strings.TrimSpace(spec.Failure.Message), "\n")
			switch {
			case spec.State == "passed" && spec.LeafNodeType == "It":
				o.passed = append(o.passed, name)
			case spec.State == "passed":
			case spec.State == "pending" || spec.State == "skipped" && message == "":
			case spec.State == "skipped":
				o.note(&o.skipped, name, message)
			default: // failed, panicked, timedout, interrupted, aborted
				o.note(&o.failed, name, spec.State+": "+message)
			}
		}
	}
	if len(o.passed)+len(o.failed)+len(o.skipped) == 0 {
		return nil, errors.New("read report: no spec ran")
	}
	return o, nil
}

func (o *outcome) print(w io.Writer, took time.Duration) {
	fmt.Fprintf(w, "%d passed, %d failed, %d skipped, %.0f s\n", len(o.passed), len(o.failed), len(o.skipped), took.Seconds())
	for _, name := range slices.Sorted(maps.Keys(o.failed)) {
		fmt.Fprintf(w, "  FAILED  %s\n          %s\n", name, o.failed[name])
	}
	for _, name := range slices.Sorted(maps.Keys(o.skipped)) {
		fmt.Fprintf(w, "  skipped %s: %s\n", name, o.skipped[name])
	}
}
