package histories

import (
	"fmt"

	"github.com/anishathalye/porcupine"
)

// verb is what a client asked for.
type verb string

// The verbs. A list is a Read of every object that its client knows of.
const (
	Create    verb = "create" // of a container, or RunPodSandbox
	Start     verb = "start"
	Stop      verb = "stop"
	Remove    verb = "remove"
	Status    verb = "status"
	Read      verb = "read"
	StopPod   verb = "stop pod"   // as its containers see it
	RemovePod verb = "remove pod" // as its containers see it
)

// input is one call.
type input struct {
	verb verb
	id   string // of the object, where the call names one
	pod  bool   // the object is a pod
}

// outcome is how a call ended.
type outcome string

// The outcomes.
const (
	OK      outcome = "ok"
	Failed  outcome = "failed"    // and the answer is an error that says that it did not happen
	Missing outcome = "not found" // of a read: it is not there
	Nobody  outcome = "unknown"   // nobody knows: no answer, or one that says that it goes on
)

// output is the answer.
type output struct {
	outcome outcome
	id      string // of what was created or read
	phase   phase  // that was read
	code    int32  // that was read, if exited; noCode from a list
}

// phase of an object. A pod that is ready is running, one that is not has exited.
type phase string

// The phases.
const (
	Gone    phase = ""
	Created phase = "created"
	Running phase = "running"
	Exited  phase = "exited"
)

// noCode is an exit code that nobody has read yet.
const noCode = -1

// state of one name. An id of "?" is that of a creation without an answer.
type state struct {
	id    string
	phase phase
	code  int32
}

func (s state) String() string {
	return fmt.Sprintf("%s(%.8s, %d)", s.phase, s.id, s.code)
}

// model is what Porcupine holds histories of one object against.
func model() porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{state{code: noCode}} },
		Step: func(s, in, out any) []any {
			from, ok1 := s.(state)
			call, ok2 := in.(input)
			answer, ok3 := out.(output)
			if !ok1 || !ok2 || !ok3 {
				return nil
			}
			var next []any
			for _, to := range step(from, call, answer) {
				next = append(next, to)
			}
			return next
		},
		DescribeOperation: func(in, out any) string { return fmt.Sprint(in, " -> ", out) },
		DescribeState:     func(s any) string { return fmt.Sprint(s) },
	}
	return m.ToModel()
}

// step gives all states that may follow; none: the answer cannot be.
func step(s state, in input, out output) []state {
	switch out.outcome {
	case Failed:
		return failed(s, in)
	case OK:
	case Nobody:
		return append(done(s, in, output{outcome: OK, id: "?"}), s)
	case Missing:
		if s.phase == Gone || in.verb == Status && s.id != in.id {
			return []state{s}
		}
		return nil
	}
	if in.verb == Read || in.verb == Status {
		return read(s, out)
	}
	return done(s, in, out)
}

// failed is what a call may have done that was answered with an error: a start that fails is an end.
func failed(s state, in input) []state {
	if in.verb == Start && s.is(in.id) && s.phase == Created {
		return []state{s, {id: in.id, phase: Exited, code: noCode}}
	}
	return []state{s}
}

// is tells whether the object can have this id.
func (s state) is(id string) bool { return s.phase != Gone && (s.id == id || s.id == "?") }

// done is what a call does that succeeds.
func done(s state, in input, out output) []state {
	switch in.verb {
	case Create:
		return created(s, in, out)
	case Start:
		if s.is(in.id) && (s.phase == Created || s.phase == Running) {
			return []state{{id: in.id, phase: Running, code: noCode}}
		}
		if out.id == "?" { // it was not the one that was there, or it was too late
			return []state{s}
		}
		return nil
	case Stop, StopPod:
		if (in.verb == StopPod || s.is(in.id)) && s.phase == Running {
			s.phase, s.code = Exited, noCode
		}
		return []state{s}
	case Remove, RemovePod:
		if in.verb == RemovePod || s.is(in.id) {
			return []state{{code: noCode}}
		}
		return []state{s}
	case Status, Read:
	}
	return []state{s}
}

func created(s state, in input, out output) []state {
	first := Created
	if in.pod {
		first = Running
	}
	switch {
	case s.phase == Gone:
		return []state{{id: out.id, phase: first, code: noCode}}
	case out.id == "?":
		return []state{s} // it joined, or was refused
	case s.phase == first && s.is(out.id):
		s.id = out.id // the same call again finds what the first one made
		return []state{s}
	}
	return nil
}

// read is a look. What runs may end by itself at any time, so an end is seen when it is seen.
func read(s state, out output) []state {
	if !s.is(out.id) {
		return nil
	}
	s.id = out.id
	switch {
	case s.phase == Running && out.phase == Exited:
		s.phase, s.code = Exited, out.code
		return []state{s}
	case s.phase != out.phase:
		return nil
	case s.phase == Exited && out.code != noCode:
		if s.code != noCode && s.code != out.code {
			return nil
		}
		s.code = out.code
	}
	return []state{s}
}
