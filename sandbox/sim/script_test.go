package sim

import (
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
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
	skipped     = flag.String("skip", "", "accidents (a3) and bad calls (c7) to leave out, with commas")
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
	for _, x := range strings.FieldsFunc(*skipped, comma) {
		s.skip[x] = true
	}
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
		var all []string
		for x := range s.skip {
			all = append(all, x)
		}
		slices.Sort(all)
		fmt.Fprintf(&b, " -skip=%s", strings.Join(all, ","))
	}
	return b.String()
}
