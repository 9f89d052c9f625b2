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
)

// outcome is what became of the specs that were chosen, by name.
type outcome struct {
	passed  []string
	failed  map[string]string // with the message
	skipped map[string]string // with the reason
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
	o := &outcome{failed: map[string]string{}, skipped: map[string]string{}}
	for _, s := range suites {
		for _, spec := range s.SpecReports {
			name := strings.Join(append(spec.ContainerHierarchyTexts, spec.LeafNodeText), " ")
			if spec.LeafNodeType != "It" {
				name = "[" + spec.LeafNodeType + "] " + name
			}
			message, _, _ := strings.Cut(strings.TrimSpace(spec.Failure.Message), "\n")
			switch {
			case spec.State == "passed" && spec.LeafNodeType == "It":
				o.passed = append(o.passed, name)
			case spec.State == "passed", spec.State == "pending", spec.State == "skipped" && message == "": // not chosen
			case spec.State == "skipped":
				o.skipped[name] = message
			default: // failed, panicked, timedout, interrupted, aborted
				o.failed[name] = spec.State + ": " + message
			}
		}
	}
	if len(o.passed)+len(o.failed)+len(o.skipped) == 0 {
		return nil, errors.New("read report: no spec ran")
	}
	return o, nil
}

// print lists what did not pass; reasons are those of specs that cannot.
func (o *outcome) print(w io.Writer, reasons map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(o.failed)) {
		if reason := reasons[name]; reason != "" {
			fmt.Fprintf(w, "  cannot  %s: %s\n", name, reason)
			continue
		}
		fmt.Fprintf(w, "  FAILED  %s\n          %s\n", name, o.failed[name])
	}
	for _, name := range slices.Sorted(maps.Keys(o.skipped)) {
		fmt.Fprintf(w, "  skipped %s: %s\n", name, o.skipped[name])
	}
}
