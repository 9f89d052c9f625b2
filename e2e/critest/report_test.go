package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func report(t *testing.T, specs string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "report.json")
	if err := os.WriteFile(path, []byte(`[{"SpecReports":[`+specs+`]}]`), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

const (
	passed   = `{"ContainerHierarchyTexts":["a"],"LeafNodeText":"works","LeafNodeType":"It","State":"passed"}`
	failed   = `{"ContainerHierarchyTexts":["a"],"LeafNodeText":"fails","LeafNodeType":"It","State":"failed","Failure":{"Message":"why\nmore"}}`
	panicked = `{"ContainerHierarchyTexts":["a"],"LeafNodeText":"panics","LeafNodeType":"It","State":"panicked","Failure":{"Message":"oh"}}`
	suiteOut = `{"LeafNodeType":"BeforeSuite","State":"failed","Failure":{"Message":"no socket"}}`
	skipped  = `{"ContainerHierarchyTexts":["a"],"LeafNodeText":"cannot","LeafNodeType":"It","State":"skipped","Failure":{"Message":"no AppArmor"}}`
	leftOut  = `{"ContainerHierarchyTexts":["a"],"LeafNodeText":"other","LeafNodeType":"It","State":"skipped"}`
)

func TestWhatBecameOfTheSpecs(t *testing.T) {
	for name, c := range map[string]struct {
		specs                   []string
		passed, failed, skipped int
	}{
		"all is well":                       {[]string{passed, leftOut}, 1, 0, 0},
		"a failure, a panic and a skip":     {[]string{passed, failed, panicked, skipped}, 1, 2, 1},
		"the suite itself could not begin":  {[]string{suiteOut}, 0, 1, 0},
		"two failures under the same name":  {[]string{failed, failed}, 0, 2, 0},
		"what the focus leaves out is none": {[]string{leftOut, leftOut, passed}, 1, 0, 0},
	} {
		o, err := readReport(report(t, strings.Join(c.specs, ",")))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(o.passed) != c.passed || len(o.failed) != c.failed || len(o.skipped) != c.skipped {
			t.Errorf("%s: %d passed, %d failed, %d skipped", name, len(o.passed), len(o.failed), len(o.skipped))
		}
	}
}

func TestAReportInWhichNothingRanIsAnError(t *testing.T) {
	for name, specs := range map[string]string{"none": "", "all left out": leftOut, "cut off": `{"State":`} {
		if o, err := readReport(report(t, specs)); err == nil {
			t.Errorf("%s: accepted as %+v", name, o)
		}
	}
}

func TestSkipsAreNamedWithTheirReason(t *testing.T) {
	o, err := readReport(report(t, skipped))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	o.print(&b, time.Second)
	if !strings.Contains(b.String(), "skipped a / cannot: no AppArmor") {
		t.Errorf("printed: %s", b.String())
	}
}
