package stdio

import (
	"context"
	"os"
	"sync"

	"github.com/crid-project/crid/shimclient"
)

// instantShim writes a line and is done: what remains is our own cost.
type instantShim struct{ specs sync.Map }

func (s *instantShim) Exec(_ context.Context, spec shimclient.ExecSpec) error {
	s.specs.Store(spec.ExecID, spec)
	return nil
}

func (s *instantShim) StartExec(_ context.Context, _, execID string) (int, error) {
	v, _ := s.specs.Load(execID)
	for _, path := range []string{v.(shimclient.ExecSpec).Stdout, v.(shimclient.ExecSpec).Stderr} {
		w, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return 0, err
		}
		_, _ = w.WriteString("hello\n")
		w.Close()
	}
	return 1, nil
}

func (s *instantShim) WaitExec(context.Context, string, string) (shimclient.Exit, error) {
	return shimclient.Exit{}, nil
}
func (s *instantShim) KillExec(context.Context, string, string, uint32) error { return nil }
func (s *instantShim) DeleteExec(_ context.Context, _, execID string) (shimclient.Exit, error) {
	s.specs.Delete(execID)
	return shimclient.Exit{}, nil
}
func (s *instantShim) ResizePty(context.Context, string, string, uint32, uint32) error { return nil }
func (s *instantShim) CloseStdin(context.Context, string, string) error                { return nil }
