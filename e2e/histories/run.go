package histories

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/e2e/harness"
)

// Options of a run.
type Options struct {
	Duration time.Duration
	Seed     uint64
	Islands  int // at a time
	Clients  int // of each
	Epoch    time.Duration
	Out      io.Writer
}

// checkLimit is how long the search for an explanation of one history may take.
const checkLimit = 20 * time.Second

// Run lets clients loose on a daemon, and holds what they recorded against the model. Epoch by epoch everything is made and removed, so that no
// history grows too long to be searched.
func Run(ctx context.Context, d *harness.Daemon, o Options) error {
	cri, err := harness.Dial(d.Home.Socket())
	if err != nil {
		return err
	}
	defer cri.Close()
	rng := rand.New(rand.NewPCG(o.Seed, 7))
	total, end := summary{}, time.Now().Add(o.Duration)
	var errs []error
	for n := 0; time.Now().Before(end) && ctx.Err() == nil && len(errs) < 5; n++ {
		r := newRecorder()
		if err := epoch(ctx, d, cri, r, rng, o, n); err != nil {
			errs = append(errs, err)
		}
		for _, object := range r.objects() {
			if err := total.add(r.check(object, checkLimit)); err != nil {
				errs = append(errs, err)
			}
		}
		fmt.Fprintf(o.Out, "epoch %d: %s\n", n, total)
	}
	if len(errs) > 0 {
		return fmt.Errorf("seed %d: %w", o.Seed, errors.Join(errs...))
	}
	if total.undecided*20 > total.objects {
		return fmt.Errorf("seed %d: too many histories could not be decided: %s", o.Seed, total)
	}
	return nil
}

// summary counts verdicts.
type summary struct{ objects, calls, unknown, undecided, longest int }

func (s summary) String() string {
	return fmt.Sprintf("%d objects, %d calls to them, %d of these without an outcome, longest history %d, undecided %d", s.objects, s.calls, s.unknown, s.longest, s.undecided)
}

func (s *summary) add(v verdict) error {
	s.objects, s.calls, s.unknown, s.longest = s.objects+1, s.calls+v.calls, s.unknown+v.unknown, max(s.longest, v.calls)
	switch v.result {
	case porcupine.Illegal:
		return fmt.Errorf("no order of single steps explains the history of %s:\n%s", v.object, v.text)
	case porcupine.Unknown:
		s.undecided++
	case porcupine.Ok:
	}
	return nil
}

// epoch is one round of everything.
func epoch(ctx context.Context, d *harness.Daemon, cri *harness.CRI, r *recorder, rng *rand.Rand, o Options, n int) error {
	busy, cancel := context.WithTimeout(ctx, o.Epoch)
	defer cancel()
	var clients, trouble sync.WaitGroup
	var islands []*island
	for k := range o.Islands {
		i := newIsland(r, d.Home, cri, fmt.Sprintf("h-%d-%d", n, k), k%2 == 0)
		islands = append(islands, i)
		for c := range o.Clients {
			mine := rand.New(rand.NewPCG(rng.Uint64(), uint64(c)))
			clients.Go(func() { i.work(busy, k*o.Clients+c, mine) })
		}
	}
	var failed error
	mine := rand.New(rand.NewPCG(rng.Uint64(), 99))
	trouble.Go(func() { failed = faults(busy, d, mine) })
	clients.Wait()
	trouble.Wait()
	if failed != nil {
		return failed
	}
	ctx, cancel = context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	for k, i := range islands {
		if err := i.end(ctx, k*o.Clients); err != nil {
			return err
		}
		i.list(ctx, k*o.Clients) // what was removed is not there
	}
	return nil
}

// faults kills the daemon, and shims, now and then.
func faults(ctx context.Context, d *harness.Daemon, rng *rand.Rand) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second + time.Duration(rng.IntN(4000))*time.Millisecond):
		}
		if rng.IntN(2) == 0 {
			shims := d.Home.Shims()
			if len(shims) > 0 {
				victim := shims[rng.IntN(len(shims))]
				if strings.Contains(victim.Command, "containerd-shim") {
					_ = victim.Signal(unix.SIGKILL) // it may have gone
				}
			}
			continue
		}
		if err := d.Kill(); err != nil {
			return err
		}
		time.Sleep(time.Duration(rng.IntN(500)) * time.Millisecond)
		if err := d.Start(context.WithoutCancel(ctx)); err != nil {
			return err
		}
	}
}
