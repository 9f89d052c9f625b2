package histories

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// recorder keeps histories by object.
type recorder struct {
	mu    sync.Mutex
	start time.Time
	of    map[string][]porcupine.Operation
}

func newRecorder() *recorder {
	return &recorder{start: time.Now(), of: map[string][]porcupine.Operation{}}
}

func (r *recorder) now() int64 { return int64(time.Since(r.start)) }

// add records a call to an object that began at a time and has ended now.
func (r *recorder) add(client int, object string, began int64, in input, out output) {
	ended := r.now()
	if out.outcome == Nobody {
		if in.verb == Status || in.verb == Read {
			return // it says nothing
		}
		ended = math.MaxInt64 // it may happen at any time, or never
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.of[object] = append(r.of[object], porcupine.Operation{ClientId: client, Input: in, Output: out, Call: began, Return: ended})
}

// objects are all that were recorded.
func (r *recorder) objects() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.of))
}

// verdict of one object's history.
type verdict struct {
	object  string
	calls   int
	unknown int
	result  porcupine.CheckResult
	text    string // the history, if it cannot be explained
}

// check holds one object's history against the model.
func (r *recorder) check(object string, limit time.Duration) verdict {
	r.mu.Lock()
	history := slices.Clone(r.of[object])
	r.mu.Unlock()
	v := verdict{object: object, calls: len(history)}
	for _, op := range history {
		if op.Return == math.MaxInt64 {
			v.unknown++
		}
	}
	if v.result = porcupine.CheckOperationsTimeout(model(), history, limit); v.result != porcupine.Ok {
		v.text = describe(history)
	}
	return v
}

// describe tells a history in the order in which calls began.
func describe(history []porcupine.Operation) string {
	slices.SortFunc(history, func(a, b porcupine.Operation) int { return int(min(max(a.Call-b.Call, -1), 1)) })
	var b strings.Builder
	for _, op := range history {
		end := "..."
		if op.Return != math.MaxInt64 {
			end = fmt.Sprintf("%9.3f", float64(op.Return)/1e9)
		}
		fmt.Fprintf(&b, "%9.3f - %9s  client %d  %v -> %v\n", float64(op.Call)/1e9, end, op.ClientId, op.Input, op.Output)
	}
	return b.String()
}

func (i input) String() string { return strings.TrimSpace(fmt.Sprintf("%s %.8s", i.verb, i.id)) }

func (o output) String() string {
	switch {
	case o.phase != Gone:
		return fmt.Sprintf("%.8s is %s, code %d", o.id, o.phase, o.code)
	case o.id != "":
		return fmt.Sprintf("%s, %.8s", o.outcome, o.id)
	}
	return string(o.outcome)
}
