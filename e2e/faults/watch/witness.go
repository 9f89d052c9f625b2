package watch

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/story"
)

// patience is how long a question of the witness may take: the second that is promised, twice, since tests share a small machine.
const patience = 2 * time.Second

// Witness asks, on a connection of its own, what a kubelet asks all the time, and remembers the slowest answer.
type Witness struct {
	stop   chan struct{}
	done   sync.WaitGroup
	mu     sync.Mutex
	asked  int
	worst  time.Duration
	what   string
	errors []error
}

// Others starts a witness. At the end of the test it must have had its answers in time and without an error, whatever the fault was. A test that
// ends the daemon on purpose calls End before.
func Others(s *story.Story) *Witness {
	s.T.Helper()
	cri, err := harness.Dial(s.Home.Socket())
	if err != nil {
		s.T.Fatal(err)
	}
	w := &Witness{stop: make(chan struct{})}
	w.done.Go(func() {
		defer cri.Close()
		for {
			w.round(cri)
			select {
			case <-w.stop:
				return
			case <-time.After(200 * time.Millisecond):
			}
		}
	})
	s.T.Cleanup(func() { w.End(s.T) })
	return w
}

func (w *Witness) round(cri *harness.CRI) {
	for name, call := range map[string]func(context.Context) error{
		"Version": func(ctx context.Context) error {
			_, err := cri.Runtime.Version(ctx, &runtimeapi.VersionRequest{})
			return err
		},
		"Status": func(ctx context.Context) error {
			_, err := cri.Runtime.Status(ctx, &runtimeapi.StatusRequest{})
			return err
		},
		"ListPodSandbox": func(ctx context.Context) error { _, err := cri.Pods(ctx); return err },
		"ListContainers": func(ctx context.Context) error { _, err := cri.Containers(ctx); return err },
		"ListContainerStats": func(ctx context.Context) error {
			_, err := cri.Runtime.ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{})
			return err
		},
		"ListImages": func(ctx context.Context) error {
			_, err := cri.Images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
			return err
		},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		start := time.Now()
		err := call(ctx)
		cancel()
		w.took(name, time.Since(start), err)
	}
}

func (w *Witness) took(name string, d time.Duration, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	if d > w.worst {
		w.worst, w.what = d, name
	}
	if err != nil && len(w.errors) < 5 {
		w.errors = append(w.errors, fmt.Errorf("%s: %w", name, err))
	}
}

// End ends the questions and judges the answers. It may be called twice.
func (w *Witness) End(t testing.TB) {
	t.Helper()
	select {
	case <-w.stop:
		return
	default:
	}
	close(w.stop)
	w.done.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.worst > patience {
		t.Errorf("a bystander waited %s for %s", w.worst, w.what)
	}
	for _, err := range w.errors {
		t.Errorf("a bystander is refused: %v", err)
	}
	t.Logf("bystanders asked %d times; the slowest answer, %s, took %s", w.asked, w.what, w.worst)
}

// Code is the gRPC code of an error.
func Code(err error) codes.Code { return status.Code(err) }
