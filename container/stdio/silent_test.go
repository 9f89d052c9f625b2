package stdio

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"github.com/crid-project/crid/shimclient"
)

// silentShim gives no answer until a moment; what was asked of it before then never takes effect, except for a start, which
// does at that moment. No pipes are opened.
type silentShim struct {
	until time.Time
	late  bool // a start, too, is answered only then

	mu            sync.Mutex
	made, runs    bool
	started, gone bool
}

func (s *silentShim) answers(ctx context.Context) error {
	if !time.Now().Before(s.until) {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (s *silentShim) Exec(context.Context, shimclient.ExecSpec) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made = true
	return nil
}

func (s *silentShim) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.made && !s.gone {
		s.started, s.runs = true, true
	}
}

func (s *silentShim) StartExec(ctx context.Context, _, _ string) (int, error) {
	if !s.late {
		s.begin()
		return 7, nil
	}
	time.AfterFunc(time.Until(s.until), s.begin)
	<-ctx.Done()
	return 0, ctx.Err()
}

func (s *silentShim) WaitExec(ctx context.Context, _, _ string) (shimclient.Exit, error) {
	for {
		s.mu.Lock()
		over := s.started && !s.runs
		s.mu.Unlock()
		if over {
			return shimclient.Exit{Code: 137}, nil
		}
		select {
		case <-ctx.Done():
			return shimclient.Exit{}, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (s *silentShim) KillExec(ctx context.Context, _, _ string, _ uint32) error {
	s.mu.Lock()
	known := s.started
	s.mu.Unlock()
	if !known {
		return errdefs.ErrNotFound // of a process that is not there yet a shim says the same as of one that has ended
	}
	if err := s.answers(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs = false
	return nil
}

func (s *silentShim) DeleteExec(ctx context.Context, _, _ string) (shimclient.Exit, error) {
	if err := s.answers(ctx); err != nil {
		return shimclient.Exit{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.runs {
		return shimclient.Exit{}, errdefs.ErrFailedPrecondition
	}
	s.gone = true
	return shimclient.Exit{}, nil
}

func (s *silentShim) ResizePty(context.Context, string, string, uint32, uint32) error { return nil }
func (s *silentShim) CloseStdin(context.Context, string, string) error                { return nil }

// An exec timed out while its shim answered nothing. After one kill and one delete without an answer it was given up, and its
// process ran on for as long as the container.
func TestAnExecOfASilentShimIsEndedWhenItAnswersAgain(t *testing.T) {
	for _, c := range []struct {
		name   string
		silent time.Duration
		late   bool // its start takes effect only when the shim answers again
		left   bool // longer than Exec itself goes on trying
	}{
		{"for a minute", time.Minute, false, false},
		{"for a minute, and has not started it yet", time.Minute, true, false},
		{"for an hour", time.Hour, false, true},
		{"for an hour, and has not started it yet", time.Hour, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, dir := &silentShim{until: time.Now().Add(c.silent), late: c.late}, t.TempDir()
				left := make(chan string, 1)
				_, err := Exec(t.Context(), s, "c1", sh("sleep 1000"), dir, ExecRequest{Timeout: time.Second, Left: func(id string) { left <- id }})
				if err == nil {
					t.Fatal("it ended by itself")
				}
				time.Sleep(c.silent + 10*time.Minute)
				synctest.Wait()
				select {
				case id := <-left:
					if !c.left {
						t.Error("it was left")
					}
					names, _ := Left(dir)
					if len(names) != 1 || names[0] != id {
						t.Fatalf("there are %v, to be seen to is %s", names, id)
					}
					EndLeft(s, "c1", id, dir, func(string) { t.Error("it was left once more") })
					time.Sleep(time.Minute)
					synctest.Wait()
				default:
					if c.left {
						t.Error("nobody was told that it is left")
					}
				}
				if s.runs || !s.gone {
					t.Errorf("its process runs: %v; the shim has forgotten it: %v", s.runs, s.gone)
				}
				if names, _ := Left(dir); len(names) > 0 {
					t.Errorf("still there: %v", names)
				}
			})
		})
	}
}
