//go:build e2e

package registry

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/crid-project/crid/e2e/faults/watch"
)

// hang waits until the client has gone.
func hang(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-time.After(time.Minute):
	}
}

// A registry that stalls anywhere, or drips a byte each tenth of a second, ends a pull by want of progress.
func TestF96StallsAndDrips(t *testing.T) {
	t.Parallel()
	b := begin(t)
	watch.Others(b.Story)
	l := noise(200_000)
	drip := func(w http.ResponseWriter, r *http.Request, body []byte) {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		for i := range body {
			if _, err := w.Write(body[i : i+1]); err != nil || r.Context().Err() != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
			time.Sleep(100 * time.Millisecond)
		}
	}
	plans := map[string]func(*shelf, http.ResponseWriter, *http.Request) bool{
		"stalls before the manifest": func(_ *shelf, _ http.ResponseWriter, r *http.Request) bool { hang(r); return true },
		"stalls after the head of a layer": func(_ *shelf, w http.ResponseWriter, r *http.Request) bool {
			if !l.wanted(r) {
				return false
			}
			w.Header().Set("Content-Length", strconv.Itoa(len(l.blob)))
			_ = http.NewResponseController(w).Flush()
			hang(r)
			return true
		},
		"stalls in the middle of a layer": func(_ *shelf, w http.ResponseWriter, r *http.Request) bool {
			if !l.wanted(r) {
				return false
			}
			w.Header().Set("Content-Length", strconv.Itoa(len(l.blob)))
			_, _ = w.Write(l.blob[:len(l.blob)/2])
			_ = http.NewResponseController(w).Flush()
			hang(r)
			return true
		},
		"drips a layer": func(_ *shelf, w http.ResponseWriter, r *http.Request) bool {
			if !l.wanted(r) {
				return false
			}
			drip(w, r, l.blob)
			return true
		},
		"drips its configuration": func(s *shelf, w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") || l.wanted(r) {
				return false
			}
			_, body, _ := s.find(r.URL.Path)
			drip(w, r, body)
			return true
		},
	}
	var all sync.WaitGroup
	n := 0
	for what, plan := range plans {
		n++
		s, host := newShelf(), fmt.Sprintf("slow-%d.example", n)
		s.image("1", l)
		s.setPlan(func(w http.ResponseWriter, r *http.Request) bool { return plan(s, w, r) })
		b.serve(host, s)
		all.Go(func() {
			err := b.mustFail(what, host+"/a:1", 6*stall)
			if !strings.Contains(err.Error(), "no progress") {
				t.Errorf("%s: the reason is not told: %v", what, err)
			}
			b.WantCode(what, err, codes.Unavailable)
		})
	}
	all.Wait()
	b.nothingLeft("registries that stall")
}

// A caller who leaves takes his pull along, at once, and one who shares it does not notice.
func TestF96ACallerLeavesAStalledPull(t *testing.T) {
	t.Parallel()
	b := begin(t)
	l := noise(200_000)
	s := newShelf()
	s.image("1", l)
	release := make(chan struct{})
	var waiting atomic.Int32
	s.setPlan(func(_ http.ResponseWriter, r *http.Request) bool {
		if l.wanted(r) {
			waiting.Add(1)
			select {
			case <-release:
			case <-r.Context().Done():
				waiting.Add(-1)
			}
		}
		return false
	})
	b.serve("leave.example", s)
	leave := func(limit time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		_, err := b.Pull(ctx, "leave.example/a:1")
		return err
	}
	start := time.Now()
	b.WantCode("a caller who leaves", leave(300*time.Millisecond), codes.DeadlineExceeded)
	b.Eventually("the registry is let go of", time.Second*2, func() bool { return waiting.Load() == 0 })
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
	b.nothingLeft("a caller who leaves")
	stays := make(chan error, 1)
	go func() { _, err := b.Pull(t.Context(), "leave.example/a:1"); stays <- err }()
	b.Eventually("the pull is under way", 5*time.Second, func() bool { return waiting.Load() == 1 })
	b.WantCode("one of two who leaves", leave(200*time.Millisecond), codes.DeadlineExceeded)
	close(release)
	if err := <-stays; err != nil {
		t.Errorf("the one who stays: %v", err)
	}
	b.remove("leave.example/a:1")
	b.nothingLeft("one of two leaves")
}

// A registry that is busy is asked again, for so long as it says and not longer than half a minute.
func TestF100ABusyRegistry(t *testing.T) {
	t.Parallel()
	b := begin(t)
	watch.Others(b.Story)
	type trouble struct {
		after string
		code  int
		times int32
		ends  bool // well
		limit time.Duration
	}
	cases := []trouble{
		{"1", http.StatusTooManyRequests, 2, true, 20 * time.Second},
		{"garbage", http.StatusServiceUnavailable, 2, true, 20 * time.Second},
		{"-7", http.StatusTooManyRequests, 2, true, 20 * time.Second},
		{"Mon, 01 Jan 2001 00:00:00 GMT", http.StatusServiceUnavailable, 2, true, 20 * time.Second},
		{"", http.StatusInternalServerError, 1 << 20, false, 40 * time.Second},
	}
	if watch.All() {
		cases = append(cases, trouble{"1000000000", http.StatusTooManyRequests, 1 << 20, false, 50 * time.Second},
			trouble{"", http.StatusServiceUnavailable, 1 << 20, false, 50 * time.Second})
	}
	var all sync.WaitGroup
	for n, c := range cases {
		s, host, l := newShelf(), fmt.Sprintf("busy-%d.example", n), noise(1000)
		s.image("1", l)
		var asked atomic.Int32
		s.setPlan(func(w http.ResponseWriter, _ *http.Request) bool {
			if asked.Add(1) > c.times {
				return false
			}
			if c.after != "" {
				w.Header().Set("Retry-After", c.after)
			}
			w.WriteHeader(c.code)
			return true
		})
		b.serve(host, s)
		all.Go(func() {
			what := fmt.Sprintf("%d with Retry-After %q", c.code, c.after)
			if !c.ends {
				b.mustFail(what, host+"/a:1", c.limit)
				return
			}
			start := time.Now()
			if _, err := b.Pull(t.Context(), host+"/a:1"); err != nil {
				t.Errorf("%s, twice: %v", what, err)
			}
			if took := time.Since(start); took > c.limit {
				t.Errorf("%s, twice: %s", what, took)
			}
			b.remove(host + "/a:1")
		})
	}
	all.Wait()
	b.nothingLeft("busy registries")
}
