//go:build endurance

package soak

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/crid-project/crid/e2e/project"
)

// What is there is what is desired, what is told is true, and nothing is left, whatever breaks. DURATION and SEED choose how long and in which
// order; without them it is 75 seconds and a seed by the clock.
func TestSoak(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: runs containers")
	}
	root, err := project.Root()
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Duration: 75 * time.Second, Seed: uint64(time.Now().Unix()), Slots: 5, Life: 90 * time.Second, Storm: 30 * time.Second, Pace: 3 * time.Second, Out: os.Stdout}
	if s := os.Getenv("DURATION"); s != "" {
		if o.Duration, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
		o.Storm = time.Minute
	}
	if s := os.Getenv("SEED"); s != "" {
		if o.Seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	if s := os.Getenv("PACE"); s != "" {
		if o.Pace, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	o.Timeline = filepath.Join(root, ".results", fmt.Sprintf("soak-%d.log", o.Seed))
	if err := Run(t.Context(), o); err != nil {
		t.Error(err)
	}
}
