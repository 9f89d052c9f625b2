//go:build e2e

package crash

import (
	"context"
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/crid-project/crid/e2e/project"
)

// program is crid with failpoints.
const program = "crid-failpoints"

func TestMain(m *testing.M) {
	if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// build makes crid with failpoints of the sources as they are; it takes a moment if nothing has changed. Without Go it must be there.
func build() error {
	root, err := project.Root()
	if err != nil {
		return err
	}
	if _, err := exec.LookPath("go"); err != nil {
		_, err := project.Bin(program)
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "failpoints", "-ldflags", "-s -w", "-o", filepath.Join(root, "bin", program), "./cmd/crid")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", program, err, out)
	}
	return nil
}

// run is one hit: at a point of a call, in one of the four ways.
type run struct {
	rpc     string
	at      point
	variant string
}

func (r run) name() string { return r.rpc + "/" + r.at.name + "/" + r.variant }

// all answers every run there is, those that sleep long first.
func all() []run {
	var runs []run
	for _, c := range calls {
		for _, p := range c.points {
			for _, v := range variants {
				if v != fail || p.mute == "" {
					runs = append(runs, run{c.rpc, p, v})
				}
			}
		}
	}
	return runs
}

// parts is of how many parts one is run by default.
const parts = 10

// chosen answers the runs of this time: all with CRID_FAULTS=all, else the tenth of the seed, which is today's number unless CRID_FAULTS_SEED says
// otherwise.
func chosen(t *testing.T) []run {
	runs := all()
	if os.Getenv("CRID_FAULTS") == "all" {
		t.Logf("all %d runs", len(runs))
		return runs
	}
	n := seed(t)
	part := tenth(runs, n)
	t.Logf("%d of %d runs: those of CRID_FAULTS_SEED=%d", len(part), len(runs), n)
	return part
}

// seed is today's number, or CRID_FAULTS_SEED.
func seed(t *testing.T) uint64 {
	t.Helper()
	s := os.Getenv("CRID_FAULTS_SEED")
	if s == "" {
		return uint64(time.Now().Unix() / (24 * 60 * 60))
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		t.Fatalf("CRID_FAULTS_SEED: %v", err)
	}
	return n
}

// tenth answers a part of the runs in which all calls and all variants have their share. Ten seeds in a row have all runs once.
func tenth(runs []run, seed uint64) []run {
	sorted := slices.Clone(runs)
	slices.SortStableFunc(sorted, func(a, b run) int {
		x, y := weight(a), weight(b)
		switch {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	var out []run
	for i, r := range sorted {
		if uint64(i%parts) == seed%parts {
			out = append(out, r)
		}
	}
	return out
}

// weight mixes the runs, always in the same way.
func weight(r run) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(r.name()))
	return h.Sum64()
}

func TestTenSeedsInARowHaveAllRunsOnce(t *testing.T) {
	runs, seen := all(), map[string]int{}
	for seed := range uint64(parts) {
		part := tenth(runs, 20_000+seed)
		ways := map[string]int{}
		for _, r := range part {
			seen[r.name()]++
			ways[r.variant]++
		}
		if len(part) < len(runs)/parts || len(ways) != len(variants) {
			t.Errorf("seed %d has %d runs, %v", seed, len(part), ways)
		}
	}
	if len(seen) != len(runs) {
		t.Errorf("%d of %d runs in ten seeds", len(seen), len(runs))
	}
	for name, n := range seen {
		if n != 1 {
			t.Errorf("%s comes %d times", name, n)
		}
	}
}

// Those that wait for a shim to forget wait beside each other and beside those that work.
const (
	working = 3
	waiting = 12
)

func TestCrashPoints(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: runs containers")
	}
	quick, slow := make(chan run, 1000), make(chan run, 1000)
	for _, r := range chosen(t) {
		if r.variant == killFor {
			slow <- r
		} else {
			quick <- r
		}
	}
	close(quick)
	close(slow)
	var wg sync.WaitGroup
	lane := func(runs chan run) {
		wg.Go(func() {
			var n *node
			defer func() { n.end(t) }()
			for r := range runs {
				t.Run(r.name(), func(t *testing.T) {
					n = n.ready(t, withFailpoints)
					n.hit(t, r)
				})
			}
		})
	}
	for range min(waiting, len(slow)) {
		lane(slow)
	}
	for range min(working, len(quick)) {
		lane(quick)
	}
	wg.Wait()
}
