package stats

import (
	"sync"
	"time"
)

const (
	// shortest is the least time over which a rate means something. Callers
	// that come more often get the rate of the last window.
	shortest = 200 * time.Millisecond
	// layerAge is how old a measure of a writable layer may be, and
	// layerShare how much of the time may go into measuring one.
	layerAge   = 10 * time.Second
	layerShare = 50
)

// memory is what is remembered of containers and pods between two calls:
// some hundred bytes each, dropped when they are removed.
type memory struct {
	mu   sync.Mutex
	kept map[string]*past
}

type past struct {
	at    int64  // when cpu was read, Unix nanoseconds
	cpu   uint64 // nanoseconds used
	rate  uint64 // nanocores of the last window
	rated bool

	layer   Layer
	layerAt time.Time
	until   time.Time // the layer need not be measured again before
}

func (m *memory) of(id string) *past {
	p := m.kept[id]
	if p == nil {
		p = &past{}
		m.kept[id] = p
	}
	return p
}

// Rate answers the mean use in nanocores since the last call for id, which
// used cpu nanoseconds at the time at (Unix nanoseconds). False: this is the
// first call, or the counter began anew.
func (m *memory) Rate(id string, at int64, cpu uint64) (uint64, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.of(id)
	passed := at - p.at
	switch {
	case p.at == 0 || cpu < p.cpu:
		p.at, p.cpu, p.rated = at, cpu, false
	case passed < int64(shortest):
		// Too soon, or the clock was set back: a negative time would keep the
		// old window open for ever.
		if passed < 0 {
			p.at, p.cpu = at, cpu
		}
	default:
		p.rate, p.rated = uint64(float64(cpu-p.cpu)/float64(passed)*float64(time.Second)), true
		p.at, p.cpu = at, cpu
	}
	return p.rate, p.rated
}

// Layer answers a measure of id's writable layer that is new enough.
func (m *memory) Layer(id string, now time.Time) (Layer, time.Time, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.kept[id]
	if p == nil || p.layerAt.IsZero() || now.After(p.until) {
		return Layer{}, time.Time{}, false
	}
	return p.layer, p.layerAt, true
}

// SetLayer remembers a measure that began at the time began and took took.
func (m *memory) SetLayer(id string, l Layer, began time.Time, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.of(id)
	p.layer, p.layerAt = l, began
	p.until = began.Add(max(layerAge, took*layerShare))
}

// Forget drops what is remembered of id.
func (m *memory) Forget(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.kept, id)
}

// Keep drops what is remembered of all but ids, if there is much more.
func (m *memory) Keep(ids func(yield func(string))) {
	known := map[string]struct{}{}
	ids(func(id string) { known[id] = struct{}{} })
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range m.kept {
		if _, ok := known[id]; !ok {
			delete(m.kept, id)
		}
	}
}

func (m *memory) size() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.kept)
}
