package histories

import (
	"math"
	"testing"

	"github.com/anishathalye/porcupine"
)

// one is a history of calls that follow each other, but where at says otherwise.
type one struct {
	in         input
	out        output
	call, gone int64 // 0: after the one before; gone -1: never answered
}

func ok(id string) output { return output{outcome: OK, id: id, code: noCode} }
func saw(id string, p phase, code int32) output {
	return output{outcome: OK, id: id, phase: p, code: code}
}

var (
	nobody  = output{outcome: Nobody}
	refused = output{outcome: Failed}
	missing = output{outcome: Missing}
	create  = input{verb: Create}
	start   = input{verb: Start, id: "a"}
	stop    = input{verb: Stop, id: "a"}
	remove  = input{verb: Remove, id: "a"}
	look    = input{verb: Status, id: "a"}
	list    = input{verb: Read}
	run     = input{verb: Create, pod: true}
)

func explained(history []one) bool {
	var ops []porcupine.Operation
	for n, h := range history {
		op := porcupine.Operation{ClientId: n, Input: h.in, Output: h.out, Call: int64(n) * 10, Return: int64(n)*10 + 5}
		if h.call > 0 {
			op.Call = h.call
		}
		if h.gone > 0 {
			op.Return = h.gone
		}
		if h.out.outcome == Nobody {
			op.Return = math.MaxInt64
		}
		ops = append(ops, op)
	}
	return porcupine.CheckOperations(model(), ops)
}

// Each of these is a zombie, a ghost or a double. A model that explains one of them proves nothing.
func TestWhatCannotBe(t *testing.T) {
	for name, history := range map[string][]one{
		"it runs again":                   {{in: create, out: ok("a")}, {in: start, out: ok("")}, {in: list, out: saw("a", Exited, noCode)}, {in: list, out: saw("a", Running, noCode)}},
		"it runs after its stop":          {{in: create, out: ok("a")}, {in: start, out: ok("")}, {in: stop, out: ok("")}, {in: look, out: saw("a", Running, noCode)}},
		"it was never started":            {{in: create, out: ok("a")}, {in: look, out: saw("a", Running, noCode)}},
		"its start is forgotten":          {{in: create, out: ok("a")}, {in: start, out: ok("")}, {in: list, out: saw("a", Created, noCode)}},
		"its creation is forgotten":       {{in: create, out: ok("a")}, {in: list, out: missing}},
		"it is there after its removal":   {{in: create, out: ok("a")}, {in: remove, out: ok("")}, {in: list, out: saw("a", Created, noCode)}},
		"its removal is undone":           {{in: create, out: ok("a")}, {in: remove, out: nobody}, {in: list, out: missing}, {in: list, out: saw("a", Created, noCode)}},
		"two of one name":                 {{in: create, out: ok("a")}, {in: create, out: ok("b")}},
		"the same again, started already": {{in: create, out: ok("a")}, {in: start, out: ok("")}, {in: create, out: ok("a")}},
		"its code changes":                {{in: create, out: ok("a")}, {in: start, out: ok("")}, {in: look, out: saw("a", Exited, 3)}, {in: look, out: saw("a", Exited, 137)}},
		"an end before a start":           {{in: create, out: ok("a")}, {in: list, out: saw("a", Exited, noCode)}},
		"started after its end":           {{in: create, out: ok("a")}, {in: start, out: ok("")}, {in: stop, out: ok("")}, {in: start, out: ok("")}},
		"it comes from nowhere":           {{in: list, out: saw("a", Running, noCode)}},
		"a failed creation is there":      {{in: create, out: refused}, {in: list, out: saw("a", Created, noCode)}},
		"its pod is gone and it is not":   {{in: create, out: ok("a")}, {in: input{verb: RemovePod}, out: ok("")}, {in: list, out: saw("a", Created, noCode)}},
		"its pod is stopped, it is not":   {{in: create, out: ok("a")}, {in: start, out: ok("")}, {in: input{verb: StopPod}, out: ok("")}, {in: list, out: saw("a", Running, noCode)}},
		"a pod is ready again":            {{in: run, out: ok("a")}, {in: stop, out: ok("")}, {in: list, out: saw("a", Running, noCode)}},
		"a pod of two ids":                {{in: run, out: nobody}, {in: list, out: saw("a", Running, noCode)}, {in: list, out: saw("b", Running, noCode)}},
		"one call makes two pods":         {{in: run, out: nobody}, {in: list, out: saw("a", Running, noCode)}, {in: remove, out: ok("")}, {in: list, out: saw("b", Running, noCode)}},
	} {
		if explained(history) {
			t.Errorf("%s: explained", name)
		}
	}
}

// And these happen on a good day, or under faults.
func TestWhatCanBe(t *testing.T) {
	for name, history := range map[string][]one{
		"a life":                              {{in: create, out: ok("a")}, {in: start, out: ok("")}, {in: list, out: saw("a", Running, noCode)}, {in: stop, out: ok("")}, {in: look, out: saw("a", Exited, 0)}, {in: remove, out: ok("")}, {in: list, out: missing}, {in: create, out: ok("b")}},
		"a retry joins":                       {{in: create, out: nobody}, {in: create, out: ok("a")}, {in: start, out: nobody}, {in: start, out: ok("")}},
		"it ends by itself":                   {{in: create, out: ok("a")}, {in: start, out: ok("")}, {in: look, out: saw("a", Exited, 5)}, {in: start, out: refused}},
		"a late start":                        {{in: create, out: ok("a")}, {in: start, out: nobody}, {in: list, out: saw("a", Created, noCode)}, {in: list, out: saw("a", Running, noCode)}},
		"a start fails":                       {{in: create, out: ok("a")}, {in: start, out: refused}, {in: look, out: saw("a", Exited, 128)}},
		"a late removal":                      {{in: create, out: ok("a")}, {in: remove, out: nobody}, {in: list, out: saw("a", Created, noCode)}, {in: list, out: missing}},
		"two at a time":                       {{in: create, out: ok("a")}, {in: start, out: ok(""), call: 20, gone: 60}, {in: stop, out: ok(""), call: 21, gone: 30}, {in: list, out: saw("a", Running, noCode), call: 40, gone: 45}},
		"nobody knows of a creation for long": {{in: create, out: nobody}, {in: list, out: missing}, {in: list, out: saw("a", Created, noCode)}},
		"the end of a pod":                    {{in: create, out: ok("a")}, {in: start, out: ok("")}, {in: input{verb: RemovePod}, out: nobody}, {in: list, out: saw("a", Exited, noCode)}, {in: list, out: missing}},
		"an old id":                           {{in: create, out: ok("a")}, {in: remove, out: ok("")}, {in: create, out: ok("b")}, {in: look, out: missing}, {in: stop, out: ok("")}, {in: list, out: saw("b", Created, noCode)}},
	} {
		if !explained(history) {
			t.Errorf("%s: not explained", name)
		}
	}
}
