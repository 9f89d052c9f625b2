package sim

import (
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// dice are one source of chance. Who decides much has dice of its own: leaving a
// client or an accident out then changes nothing in what the others decide, which
// is what shrinking needs.
type dice struct {
	mu  sync.Mutex
	rng *rand.Rand
}

func newDice(seed uint64, name string) *dice {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	return &dice{rng: rand.New(rand.NewPCG(seed, 7^h.Sum64()))} //nolint:gosec // reproducible on purpose
}

// of answers new dice.
func (m *machine) of(name string) *dice { return newDice(m.seed, name) }

// by answers the dice that belong to one thing: what befalls two at the same
// instant does not hang on which of them comes first.
func (m *machine) by(key ...string) *dice {
	k := strings.ReplaceAll(strings.Join(key, " "), m.dir, "")
	m.table.Lock()
	defer m.table.Unlock()
	d := m.all[k]
	if d == nil {
		d = m.of(k)
		m.all[k] = d
	}
	return d
}

func (d *dice) chance(p float64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rng.Float64() < p
}

// between answers a duration that no other draw is likely to have had.
func (d *dice) between(low, high time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return low + time.Duration(d.rng.Int64N(int64(high-low)))
}

func (d *dice) n(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rng.IntN(n)
}
