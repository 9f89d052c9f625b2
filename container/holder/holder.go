package holder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Holder is crid's end: it knows what is to be held, and sees to it that a
// process holds it. All methods return within some seconds, whatever the process does.
type Holder struct {
	dir  string
	log  *slog.Logger
	ctx  context.Context //nolint:containedctx // the life of the goroutine that tends
	stop context.CancelFunc
	done chan struct{} // closed when nobody tends any more
	kick chan struct{}
	turn chan struct{} // one joins at a time

	mu     sync.Mutex
	conn   *conn               // nil: nobody holds, as far as is known
	held   map[string]bool     // by conn's holder
	want   map[string][]string // paths by id
	told   bool                // want is all there is: Keep was called
	err    error               // why conn is nil
	failed bool                // that was logged
}

// Status tells about the holding process.
type Status struct {
	// Pid of the process; 0 if there is none.
	Pid int `json:"pid"`
	// Held is how many containers it holds pipes of.
	Held int `json:"held"`
	// Err is why there is none.
	Err error `json:"-"`
}

// Open finds the process that listens in dir, or starts one. It always answers
// a Holder: if there can be no process, that is logged once and tried again from
// time to time, and output is as safe as without one. Close it.
func Open(ctx context.Context, dir string, log *slog.Logger) *Holder {
	h := &Holder{dir: dir, log: log, done: make(chan struct{}), kick: make(chan struct{}, 1), turn: make(chan struct{}, 1),
		held: map[string]bool{}, want: map[string][]string{}, err: errAbsent}
	h.ctx, h.stop = context.WithCancel(context.WithoutCancel(ctx))
	h.report(h.join(ctx))
	go h.tend()
	return h
}

// Status answers from memory.
func (h *Holder) Status() Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conn == nil {
		return Status{Err: h.err}
	}
	return Status{Pid: h.conn.pid, Held: len(h.held)}
}

// Hold has the read ends of the fifos at paths held until Drop. What was held by
// that id before is let go after that. If it fails nothing is held now, but it
// is tried again when the process is back. An id has at most 64 bytes and four
// paths.
func (h *Holder) Hold(id string, paths ...string) error {
	if id == "" || len(id) > idLen || len(paths) == 0 || len(paths) > maxPipes {
		return fmt.Errorf("hold %d pipes for %q: %w", len(paths), id, errdefs.ErrInvalidArgument)
	}
	h.mu.Lock()
	h.want[id] = paths
	c, why := h.conn, h.err
	h.mu.Unlock()
	if c == nil {
		return fmt.Errorf("hold pipes of %s: %w: %w", id, why, errdefs.ErrUnavailable)
	}
	pipes, err := open(paths)
	if err != nil {
		return fmt.Errorf("hold pipes of %s: %w", id, err)
	}
	defer shut(pipes)
	if err := h.give(h.ctx, c, id, pipes); err != nil {
		return fmt.Errorf("hold pipes of %s: %w", id, err)
	}
	return nil
}

// Drop lets go of what is held by that id. Idempotent.
func (h *Holder) Drop(id string) {
	h.mu.Lock()
	delete(h.want, id)
	c, held := h.conn, h.held[id]
	h.mu.Unlock()
	if c != nil && held {
		h.take(c, id)
	}
}

// Keep has exactly this held, paths by id, and lets go of all else that an
// earlier crid had held. Holders of other versions end when that is done. Called once, before
// anything of an earlier run is touched.
func (h *Holder) Keep(want map[string][]string) {
	h.mu.Lock()
	h.want, h.told = map[string][]string{}, true
	maps.Copy(h.want, want)
	h.mu.Unlock()
	h.report(h.join(h.ctx))
	h.mu.Lock()
	c, held := h.conn, maps.Clone(h.held)
	h.mu.Unlock()
	if c == nil {
		return
	}
	for id, paths := range want {
		if held[id] {
			continue
		}
		pipes, err := open(paths)
		if err != nil {
			h.log.Debug("hold pipes", "container", id, "err", err) // gone, or elsewhere: nothing to lose
			continue
		}
		err = h.give(h.ctx, c, id, pipes)
		shut(pipes)
		if err != nil {
			h.log.Warn("hold pipes", "container", id, "err", err)
			return
		}
	}
	for id := range held {
		if _, ok := want[id]; !ok {
			h.take(c, id)
		}
	}
	h.endOthers()
}

// Close lets go of the process, which holds on; one that holds nothing ends.
// Idempotent.
func (h *Holder) Close() {
	h.stop()
	<-h.done
	h.mu.Lock()
	c, empty := h.conn, len(h.held) == 0 && len(h.want) == 0
	h.conn, h.err = nil, errdefs.ErrUnavailable
	h.mu.Unlock()
	switch {
	case c == nil:
	case empty:
		_ = c.end(context.Background())
	default:
		c.close()
	}
}

// give has the process hold open pipes.
func (h *Holder) give(ctx context.Context, c *conn, id string, pipes []int) error {
	if _, err := c.call(ctx, request{op: opHold, id: id}, pipes); err != nil {
		if h.doubt(c, err) {
			err = fmt.Errorf("%w: %w", err, errdefs.ErrUnavailable)
		}
		return err
	}
	h.mu.Lock()
	_, wanted := h.want[id]
	if h.conn == c {
		h.held[id] = true
	}
	h.mu.Unlock()
	if !wanted {
		h.take(c, id) // dropped meanwhile
	}
	return nil
}

func (h *Holder) take(c *conn, id string) {
	_, err := c.call(h.ctx, request{op: opDrop, id: id}, nil)
	if err != nil && !errors.Is(err, refusal(unix.ENOENT)) {
		h.doubt(c, err)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conn == c {
		delete(h.held, id)
	}
}

// doubt ends a connection that does not work, and reports whether it is one. An
// answer, also a refusal, works.
func (h *Holder) doubt(c *conn, err error) bool {
	if errno := refusal(0); errors.As(err, &errno) {
		return false
	}
	if h.ctx.Err() != nil {
		return true // we are closing
	}
	h.mu.Lock()
	if h.conn == c {
		h.conn, h.err = nil, err
		clear(h.held)
	}
	h.mu.Unlock()
	_ = c.sock.Close()
	select {
	case h.kick <- struct{}{}:
	default:
	}
	return true
}

// tend has a new process hold everything again when one is lost, at first at
// once and then ever more slowly.
func (h *Holder) tend() {
	defer close(h.done)
	const least, most = time.Second, time.Minute
	pause, last := time.Duration(0), time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		h.mu.Lock()
		c := h.conn
		h.mu.Unlock()
		if c != nil {
			select {
			case <-h.ctx.Done():
				return
			case <-h.kick:
				continue
			case <-c.gone:
				h.log.Warn("the process that holds containers' output has gone; starting another", "pid", c.pid)
				h.doubt(c, errAbsent)
			}
			if time.Since(last) > most {
				pause = 0
			}
		}
		timer.Reset(pause)
		select {
		case <-h.ctx.Done():
			return
		case <-timer.C:
		}
		pause, last = min(max(2*pause, least), most), time.Now()
		h.report(h.join(h.ctx))
	}
}

// report logs the first of several failures, and that it works again.
func (h *Holder) report(err error) {
	h.mu.Lock()
	first := (err != nil) != h.failed
	h.failed = err != nil
	h.mu.Unlock()
	switch {
	case h.ctx.Err() != nil:
	case err != nil && first:
		h.log.Error("no process holds containers' output while crid is away: the last words of a container that ends then are lost; trying again", "err", err)
	case err != nil:
		h.log.Debug("no process holds containers' output", "err", err)
	case first:
		h.log.Info("containers' output is held again")
	}
}
