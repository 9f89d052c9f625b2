//go:build endurance

package churn

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/crid-project/crid/e2e/harness"
)

// Nothing is left of pods that came and went: not on the machine (that is the harness's census), and not in the daemon's memory. N chooses how many;
// with few the slope says more about the noise than about a leak, and is only told.
func TestChurn(t *testing.T) {
	o := Options{Pods: 100, Workers: 8, Legs: 5, Out: os.Stdout}
	if s := os.Getenv("N"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		o.Pods = n
	}
	if o.Pods >= 1000 {
		o.Legs = 25
	}
	d := harness.Start(t, harness.Options{Kind: harness.Crid{Level: "info"}})
	samples, err := Run(t.Context(), d, o)
	if err != nil {
		t.Fatal(err)
	}
	heap, anonymous := Slope(samples, func(s Sample) float64 { return s.Heap }), Slope(samples, func(s Sample) float64 { return s.Anonymous })
	fmt.Printf("%d pods: %.0f bytes of live heap and %.0f bytes of anonymous memory for each\n", o.Pods, heap, anonymous)
	if o.Pods < 2000 {
		return
	}
	if heap > 1024 || anonymous > 1024 {
		t.Errorf("each pod leaves %.0f bytes of live heap and %.0f of anonymous memory, more than 1024", heap, anonymous)
	}
	first, last := samples[len(samples)/5], samples[len(samples)-1]
	if last.Threads > first.Threads+8 || last.Files > first.Files+4 || last.Routines > first.Routines+4 {
		t.Errorf("it grows: %+v, then %+v", first, last)
	}
}
