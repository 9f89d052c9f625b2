//go:build endurance

package histories

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/crid-project/crid/e2e/harness"
)

// Whatever is cancelled and killed: every answer that clients got can be explained by some order of single steps. DURATION and SEED choose how long and
// which dice.
func TestHistories(t *testing.T) {
	o := Options{Duration: 45 * time.Second, Seed: uint64(time.Now().Unix()), Islands: 3, Clients: 3, Epoch: 7 * time.Second, Out: os.Stdout}
	var err error
	if s := os.Getenv("DURATION"); s != "" {
		if o.Duration, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	if s := os.Getenv("SEED"); s != "" {
		if o.Seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	d := harness.Start(t, harness.Options{Kind: harness.Crid{Level: "info"}})
	if err := Run(t.Context(), d, o); err != nil {
		t.Error(err)
	}
}
