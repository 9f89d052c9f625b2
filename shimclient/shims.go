package shimclient

import (
	"context"
	"time"
)

// Shims is what a Host does, for those who want to be tested with package fake
// in its place. The methods are those of Host, which documents them; a Tasks
// that comes with ErrUnreachable is not nil, any other error's is.
type Shims interface {
	Predict(Launch) Ref
	Launch(context.Context, Launch) (Tasks, error)
	Adopt(context.Context, Ref) (Tasks, error)
	FindUnrecorded(ctx context.Context, predicted Ref) (Tasks, error)
	Kill(context.Context, Ref) error
	DeleteTask(ctx context.Context, rt Runtime, bundle, id string) error
	KillStuckCommands(ctx context.Context, ref Ref, id string, age time.Duration) (int, error)
	Events() <-chan Event
}

// Shims returns the host under its interface.
func (h *Host) Shims() Shims { return hostShims{h} }

type hostShims struct{ *Host }

func (h hostShims) Launch(ctx context.Context, l Launch) (Tasks, error) {
	return orNil(h.Host.Launch(ctx, l))
}

func (h hostShims) Adopt(ctx context.Context, ref Ref) (Tasks, error) {
	return orNil(h.Host.Adopt(ctx, ref))
}

func (h hostShims) FindUnrecorded(ctx context.Context, predicted Ref) (Tasks, error) {
	return orNil(h.Host.FindUnrecorded(ctx, predicted))
}

// orNil keeps a nil Shim from becoming an interface that is not nil.
func orNil(s *Shim, err error) (Tasks, error) {
	if s == nil {
		return nil, err
	}
	return s, err
}
