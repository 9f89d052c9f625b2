package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func report(t *testing.T, specs ...string) *outcome {
	t.Helper()
	path := filepath.Join(t.TempDir(), "report.json")
	if err := os.WriteFile(path, []byte(`[{"SpecReports":[`+strings.Join(specs, ",")+`]}]`), 0o644); err != nil {
		t.Fatal(err)
	}
	o, err := readReport(path)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

const (
	passed   = `{"ContainerHierarchyTexts":["Pods"],"LeafNodeText":"work","LeafNodeType":"It","State":"passed"}`
	failed   = `{"ContainerHierarchyTexts":["Pods"],"LeafNodeText":"fail","LeafNodeType":"It","State":"failed","Failure":{"Message":"why\nmore"}}`
	dummy    = `{"ContainerHierarchyTexts":["PrivilegedPod"],"LeafNodeText":"should dance","LeafNodeType":"It","State":"failed","Failure":{"Message":"no"}}`
	skipped  = `{"ContainerHierarchyTexts":["Pods"],"LeafNodeText":"cannot","LeafNodeType":"It","State":"skipped","Failure":{"Message":"no AppArmor"}}`
	leftOut  = `{"ContainerHierarchyTexts":["Pods"],"LeafNodeText":"other","LeafNodeType":"It","State":"skipped"}`
	noKublet = `{"LeafNodeType":"SynchronizedBeforeSuite","State":"failed","Failure":{"Message":"node is not ready"}}`
)

func TestSpecsAreCounted(t *testing.T) {
	o := report(t, passed, failed, skipped, leftOut)
	if len(o.passed) != 1 || len(o.failed) != 1 || len(o.skipped) != 1 {
		t.Errorf("counted %+v", o)
	}
	if o.failed["Pods fail"] != "failed: why" {
		t.Errorf("failures %v", o.failed)
	}
}

func TestASuiteThatCouldNotBeginHasFailed(t *testing.T) {
	if o := report(t, noKublet, leftOut); len(o.failed) != 1 {
		t.Errorf("counted %+v", o)
	}
}

func TestAReportInWhichNothingRanIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.json")
	if err := os.WriteFile(path, []byte(`[{"SpecReports":[`+leftOut+`]}]`), 0o644); err != nil {
		t.Fatal(err)
	}
	if o, err := readReport(path); err == nil {
		t.Errorf("accepted as %+v", o)
	}
}

// A machine that lacks what a spec needs excuses that spec's failure and no other, and only while it lacks it.
func TestOnlyWhatCannotPassIsExcused(t *testing.T) {
	for name, c := range map[string]struct {
		specs    []string
		missing  bool
		excused  int
		mustFail bool
	}{
		"it cannot pass":                 {[]string{passed, dummy}, true, 1, false},
		"it could pass":                  {[]string{passed, dummy}, false, 0, true},
		"another one fails, too":         {[]string{dummy, failed}, true, 1, true},
		"what fails is not on the list":  {[]string{passed, failed}, true, 0, true},
		"nothing fails":                  {[]string{passed, skipped}, true, 0, false},
		"the suite itself did not begin": {[]string{noKublet}, true, 0, true},
	} {
		list := []cannot{{"PrivilegedPod should dance", "no floor", func() bool { return c.missing }}}
		o := report(t, c.specs...)
		reasons, err := o.judge(list)
		if len(reasons) != c.excused || (err != nil) != c.mustFail {
			t.Errorf("%s: excused %v, error %v", name, reasons, err)
		}
		var b strings.Builder
		o.print(&b, reasons)
		if strings.Contains(b.String(), "cannot  PrivilegedPod should dance: no floor") != (c.excused == 1) {
			t.Errorf("%s: printed %q", name, b.String())
		}
	}
}
