package main

import (
	"io"
	"strings"
	"testing"
)

// events builds a stream as go test -json writes it.
func events(lines ...string) io.Reader { return strings.NewReader(strings.Join(lines, "\n") + "\n") }

func TestOneFailedSubtestIsOneFailure(t *testing.T) {
	var c tally
	var out strings.Builder
	err := c.follow(events(
		`{"Action":"run","Package":"p","Test":"TestA"}`,
		`{"Action":"run","Package":"p","Test":"TestA/one"}`,
		`{"Action":"output","Package":"p","Test":"TestA/one","Output":"    a_test.go:3: it broke\n"}`,
		`{"Action":"fail","Package":"p","Test":"TestA/one"}`,
		`{"Action":"run","Package":"p","Test":"TestA/two"}`,
		`{"Action":"pass","Package":"p","Test":"TestA/two"}`,
		`{"Action":"fail","Package":"p","Test":"TestA"}`,
		`{"Action":"fail","Package":"p"}`), &out, false)
	if err != nil {
		t.Fatal(err)
	}
	if c.counts() != [3]int{1, 1, 0} {
		t.Errorf("passed, failed, skipped = %v", c.counts())
	}
	if !strings.Contains(out.String(), "it broke") {
		t.Errorf("what the failed test said is lost: %q", out.String())
	}
}

func TestAPackageThatDoesNotBuildIsAFailure(t *testing.T) {
	var c tally
	var out strings.Builder
	if err := c.follow(events(
		`{"ImportPath":"p","Action":"build-output","Output":"p.go:1: nonsense\n"}`,
		`{"Action":"output","Package":"p","Output":"FAIL p [build failed]\n"}`,
		`{"Action":"fail","Package":"p","FailedBuild":"p"}`), &out, false); err != nil {
		t.Fatal(err)
	}
	if c.failed != 1 || !strings.Contains(out.String(), "nonsense") {
		t.Errorf("failed = %d, output %q", c.failed, out.String())
	}
}

func TestSkipsAreCountedByReason(t *testing.T) {
	var c tally
	if err := c.follow(events(
		`{"Action":"run","Package":"p","Test":"TestA"}`,
		`{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}`,
		`{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:9: needs root: makes cgroups\n"}`,
		`{"Action":"skip","Package":"p","Test":"TestA"}`), io.Discard, false); err != nil {
		t.Fatal(err)
	}
	if c.skipped != 1 || len(c.why["needs root: makes cgroups"]) != 1 {
		t.Errorf("skipped = %d, reasons %v", c.skipped, c.why)
	}
}
