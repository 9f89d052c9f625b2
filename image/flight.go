package image

import (
	"context"
	"sync"

	"github.com/containerd/errdefs"
)

// flights joins callers that want the same image at the same time. The work
// has a context of its own, which ends when the last of them has left.
type flights struct {
	mu  sync.Mutex
	all map[string]*flight
}

type flight struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiters int
	value   Image
	err     error
}

// do runs fn, or joins the call under way for the same key. A caller whose ctx
// ends leaves; the work goes on for the others.
func (f *flights) do(ctx context.Context, base context.Context, wg *sync.WaitGroup, key string, fn func(context.Context) (Image, error)) (Image, error) {
	if ctx.Err() != nil {
		return Image{}, context.Cause(ctx)
	}
	f.mu.Lock()
	fl := f.all[key]
	if fl == nil {
		if base.Err() != nil {
			f.mu.Unlock()
			return Image{}, errdefs.ErrUnavailable
		}
		wctx, cancel := context.WithCancel(base)
		fl = &flight{done: make(chan struct{}), cancel: cancel}
		if f.all == nil {
			f.all = map[string]*flight{}
		}
		f.all[key] = fl
		wg.Go(func() {
			defer cancel()
			fl.value, fl.err = fn(wctx)
			f.remove(key, fl)
			close(fl.done)
		})
	}
	fl.waiters++
	f.mu.Unlock()
	select {
	case <-fl.done:
		return fl.value, fl.err
	case <-ctx.Done():
		f.mu.Lock()
		if fl.waiters--; fl.waiters == 0 {
			// Nobody may join work that is being given up.
			if f.all[key] == fl {
				delete(f.all, key)
			}
			fl.cancel()
		}
		f.mu.Unlock()
		return Image{}, context.Cause(ctx)
	}
}

func (f *flights) remove(key string, fl *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all[key] == fl {
		delete(f.all, key)
	}
}
