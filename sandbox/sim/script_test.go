package sim

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// script is what of a seed's life is played: all of it, or what shrinking left.
type script struct {
	faults  []string      // kinds; nil: all
	clients []int         // by number; nil: all
	members int           // the most containers at a time; 0: as it comes
	rounds  int           // the most pods one after the other; 0: as it comes
	until   time.Duration // when calm comes at the latest; 0: as it comes
	skip    map[string]bool
}

var (
	onlyFaults  = flag.String("faults", "", "kinds of faults to have, with commas; empty: all, none: -")
	onlyClients = flag.String("clients", "", "numbers of clients to have, with commas; empty: all")
	mostMembers = flag.Int("members", 0, "containers that a client has at most; 0: as the seed says")
	mostRounds  = flag.Int("rounds", 0, "pods that a client runs at most; 0: as the seed says")
	calmAt      = flag.Duration("until", 0, "when faults end at the latest; 0: when the seed says")
	skipped     = flag.String("skip", "", "accidents (a3, a5-9) and bad calls (c7) to leave out, with commas")
)

// given is the script of the command line.
func given() script {
	s := script{members: *mostMembers, rounds: *mostRounds, until: *calmAt, skip: map[string]bool{}}
	if *onlyFaults != "" {
		s.faults = strings.Split(*onlyFaults, ",")
	}
	for _, c := range strings.FieldsFunc(*onlyClients, comma) {
		if n, err := strconv.Atoi(c); err == nil {
			s.clients = append(s.clients, n)
		}
	}
	s.skip = unpack(*skipped)
	return s
}

func comma(r rune) bool { return r == ',' }

func (s script) has(kind string) bool { return s.faults == nil || slices.Contains(s.faults, kind) }

func (s script) plays(client int) bool { return s.clients == nil || slices.Contains(s.clients, client) }

func (s script) skips(what string, n int) bool { return s.skip[what+strconv.Itoa(n)] }

// most bounds what a seed says.
func most(n, bound int) int {
	if bound > 0 {
		return min(n, bound)
	}
	return n
}

// flags are those that play it again.
func (s script) flags() string {
	var b strings.Builder
	if s.faults != nil {
		kinds := strings.Join(s.faults, ",")
		if kinds == "" {
			kinds = "-"
		}
		fmt.Fprintf(&b, " -faults=%s", kinds)
	}
	if s.clients != nil {
		fmt.Fprintf(&b, " -clients=%s", strings.Trim(strings.Join(strings.Fields(fmt.Sprint(s.clients)), ","), "[]"))
	}
	if s.members > 0 {
		fmt.Fprintf(&b, " -members=%d", s.members)
	}
	if s.rounds > 0 {
		fmt.Fprintf(&b, " -rounds=%d", s.rounds)
	}
	if s.until > 0 {
		fmt.Fprintf(&b, " -until=%v", s.until)
	}
	if len(s.skip) > 0 {
		fmt.Fprintf(&b, " -skip=%s", pack(s.skip))
	}
	return b.String()
}

// pack writes what is skipped: "a3,a7-12,c4".
func pack(skip map[string]bool) string {
	by := map[string][]int{}
	for x := range skip {
		if n, err := strconv.Atoi(x[1:]); err == nil {
			by[x[:1]] = append(by[x[:1]], n)
		}
	}
	var out []string
	for _, what := range slices.Sorted(maps.Keys(by)) {
		all := by[what]
		slices.Sort(all)
		for i := 0; i < len(all); i++ {
			first := all[i]
			for i+1 < len(all) && all[i+1] == all[i]+1 {
				i++
			}
			one := what + strconv.Itoa(first)
			if all[i] > first {
				one += "-" + strconv.Itoa(all[i])
			}
			out = append(out, one)
		}
	}
	return strings.Join(out, ",")
}

// unpack reads what pack wrote.
func unpack(s string) map[string]bool {
	skip := map[string]bool{}
	for _, x := range strings.FieldsFunc(s, comma) {
		from, to, group := strings.Cut(x[1:], "-")
		if !group {
			to = from
		}
		first, err1 := strconv.Atoi(from)
		last, err2 := strconv.Atoi(to)
		if err1 != nil || err2 != nil {
			continue
		}
		for n := first; n <= last; n++ {
			skip[x[:1]+strconv.Itoa(n)] = true
		}
	}
	return skip
}

// What a failing seed is shrunk to is told by flags: they have to mean the same.
func TestWhatIsSkippedCanBeWrittenAndRead(t *testing.T) {
	for _, s := range []string{"", "a1", "a1-3", "a1-3,a5,c2,c9-10"} {
		if got := pack(unpack(s)); got != s {
			t.Errorf("%q is read and written as %q", s, got)
		}
	}
	if skip := unpack("a2-4,c1"); len(skip) != 4 || !skip["a3"] || skip["c2"] {
		t.Errorf("read as %v", skip)
	}
}

// A seed is no use if it tells another story each time. A few do, where two
// things that take no time come at the same instant: files are real ones, and the
// Go scheduler does as it likes while one is written.
func TestASeedTellsTheSameStoryTwice(t *testing.T) {
	const seeds, few = 40, 20 // on a machine that is busy it is more
	var differ []uint64
	for seed := uint64(1); seed <= seeds; seed++ {
		if a, b := play(t, seed, script{}), play(t, seed, script{}); a.sum != b.sum {
			differ = append(differ, seed)
		}
	}
	t.Logf("seeds that differ: %v", differ)
	if len(differ) > few {
		t.Errorf("%d seeds of %d differ: %v", len(differ), seeds, differ)
	}
}
