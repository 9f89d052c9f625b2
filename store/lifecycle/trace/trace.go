package trace

import (
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/crid-project/crid/store/lifecycle"
)

// Message is the message of the log line that holds a step, at level debug.
const Message = "step of the law"

// Step is one step of the law, with all that is needed to take it again.
type Step struct {
	// Kind is "container" or "pod"; ID is whose step it is.
	Kind, ID string
	// Event is the event's name, Input its fields as JSON.
	Event, Input string
	// Old and Now are the states before and after, as JSON.
	Old, Now string
	// Owes is the work that is owed after it.
	Owes string
}

// Of writes a container's step down.
func Of(id string, e lifecycle.Event, old, now lifecycle.Container) Step {
	return step("container", id, e, old, now, now.Owes())
}

// OfPod writes a pod's step down.
func OfPod(id string, e lifecycle.PodEvent, old, now lifecycle.Pod) Step {
	return step("pod", id, e, old, now, now.Owes())
}

func step(kind, id string, e, old, now any, owes lifecycle.Work) Step {
	return Step{Kind: kind, ID: id, Event: reflect.TypeOf(e).Name(), Input: encode(e), Old: encode(old), Now: encode(now), Owes: owes.String()}
}

// encode writes a plain value, which cannot fail.
func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf("%q", err.Error())
	}
	return string(b)
}

// Attrs are the fields of a log line, as slog takes them.
func (s Step) Attrs() []any {
	return []any{"kind", s.Kind, "id", s.ID, "event", s.Event, "input", s.Input, "old", s.Old, "now", s.Now, "owes", s.Owes}
}

// From reads the fields of a log line.
func From(fields map[string]string) Step {
	return Step{Kind: fields["kind"], ID: fields["id"], Event: fields["event"], Input: fields["input"], Old: fields["old"],
		Now: fields["now"], Owes: fields["owes"]}
}
