package sim

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// Shrinking: of a life in which an invariant breaks, all is left out that it
// breaks without: time, clients, containers, kinds of faults, single accidents,
// single bad calls. What is left is played again by the flags of its script.

// shrinkFor bounds the shrinking of one seed.
const shrinkFor = 2 * time.Minute

// TestShrink makes the life of a failing seed small: -run 'TestShrink$' -seed=N.
func TestShrink(t *testing.T) {
	if os.Getenv("CRID_SIM_SHRINK") == "" {
		t.Skip("for a seed that fails: set CRID_SIM_SHRINK=1, and -seed=N")
	}
	s := &shrinker{t: t, seed: *oneSeed, best: given(), end: time.Now().Add(shrinkFor)}
	first := play(t, s.seed, s.best)
	if len(first.failed) == 0 {
		t.Fatalf("seed %d holds", s.seed)
	}
	s.label = label(first.failed[0])
	s.shrink(first)
	fmt.Printf("SHRUNK -seed=%d%s\n", s.seed, s.best.flags())
	fmt.Printf("SHRUNK %d lines of %d, %d lives tried: %s\n", s.lines, len(first.lines), s.tried, s.broken)
}

// label is the name of the invariant that a line says is broken.
func label(failed string) string {
	name, _, _ := strings.Cut(failed, ":")
	return name
}

type shrinker struct {
	t     *testing.T
	seed  uint64
	label string
	best  script
	end   time.Time

	lines, tried int
	broken       string
}

// smaller tries a smaller script and takes it if the invariant still breaks.
func (s *shrinker) smaller(sc script) bool {
	if time.Now().After(s.end) {
		return false
	}
	s.tried++
	res := play(s.t, s.seed, sc)
	for _, f := range res.failed {
		if label(f) == s.label {
			s.best, s.lines, s.broken = sc, len(res.lines), f
			return true
		}
	}
	return false
}

func (s *shrinker) shrink(res result) {
	s.lines, s.broken = len(res.lines), res.failed[0]
	for before := -1; before != s.lines && time.Now().Before(s.end); {
		before = s.lines
		s.time(res)
		s.clients(res)
		s.kinds(res)
		s.singles("a", res.accidents)
		s.singles("c", res.badCalls)
	}
}

// time has calm come sooner.
func (s *shrinker) time(res result) {
	at := s.best.until
	if at == 0 {
		at = res.lasts
	}
	for part := 2; part <= 16; part *= 2 {
		sc := s.best
		sc.until = (at - at/time.Duration(part)).Round(time.Millisecond)
		if sc.until > 0 && s.smaller(sc) {
			at, part = sc.until, 1
		}
	}
}

func (s *shrinker) clients(res result) {
	all := s.best.clients
	if all == nil {
		for i := range res.clients {
			all = append(all, i)
		}
	}
	for _, c := range all {
		sc := s.best
		sc.clients = slices.DeleteFunc(slices.Clone(all), func(x int) bool { return x == c })
		if len(sc.clients) > 0 && s.smaller(sc) {
			all = sc.clients
		}
	}
	for n := 1; n < 3 && (s.best.members == 0 || n < s.best.members); n++ {
		sc := s.best
		sc.members = n
		if s.smaller(sc) {
			break
		}
	}
	if sc := s.best; sc.rounds == 0 {
		sc.rounds = 1
		s.smaller(sc)
	}
}

func (s *shrinker) kinds(res result) {
	all := s.best.faults
	if all == nil {
		all = res.kinds
	}
	for _, k := range all {
		sc := s.best
		sc.faults = slices.DeleteFunc(slices.Clone(all), func(x string) bool { return x == k })
		if s.smaller(sc) {
			all = sc.faults
		}
	}
}

// singles leaves out ever smaller groups of numbered things.
func (s *shrinker) singles(what string, n int) {
	var left []string
	for i := 1; i <= n; i++ {
		if x := fmt.Sprint(what, i); !s.best.skip[x] {
			left = append(left, x)
		}
	}
	for size := len(left); size > 0; size /= 2 {
		for group := range slices.Chunk(slices.Clone(left), size) {
			sc := s.best
			sc.skip = maps.Clone(s.best.skip)
			for _, x := range group {
				sc.skip[x] = true
			}
			if s.smaller(sc) {
				left = slices.DeleteFunc(left, func(x string) bool { return slices.Contains(group, x) })
			}
		}
	}
}

// shrunk has a process of its own make the seed small, and answers how to play
// what is left; a seed that ends its process cannot be made smaller.
func shrunk(t *testing.T, seed string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestShrink$", "-seed="+seed, "-faults="+*onlyFaults) //nolint:gosec // ourselves
	cmd.Env = append(os.Environ(), "CRID_SIM_SHRINK=1", "GOMAXPROCS=1")
	out, err := cmd.Output()
	play, what := " -seed="+seed, ""
	if err == nil {
		for line := range strings.Lines(string(out)) {
			f, ok := strings.CutPrefix(strings.TrimSpace(line), "SHRUNK ")
			switch {
			case ok && strings.HasPrefix(f, "-"):
				play = " " + f
			case ok:
				what = "\n\t" + f
			}
		}
	}
	return what + "\n\tgo test ./sandbox/sim -run 'TestSeed$' -v" + play
}
