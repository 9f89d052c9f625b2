package holder

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// join connects to the process, or starts one, and has it hold what is wanted.
// Nothing is done if there is a connection.
func (h *Holder) join(ctx context.Context) error {
	select {
	case h.turn <- struct{}{}:
		defer func() { <-h.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	h.mu.Lock()
	c, told := h.conn, h.told
	h.mu.Unlock()
	if c != nil {
		return nil
	}
	// Open here before one that hangs is ended: what is in the pipes stays.
	mine := h.openAll()
	defer func() {
		for _, pipes := range mine {
			shut(pipes)
		}
	}()
	c, held, err := h.find(ctx, told)
	if err != nil {
		h.mu.Lock()
		h.err = err
		h.mu.Unlock()
		return err
	}
	h.mu.Lock()
	h.conn, h.held, h.err = c, held, nil
	h.mu.Unlock()
	for id, pipes := range mine {
		if err := h.give(ctx, c, id, pipes); err != nil {
			return err
		}
	}
	return h.giveRest(ctx, c, mine)
}

// giveRest gives what came to be wanted while nobody could be given it.
func (h *Holder) giveRest(ctx context.Context, c *conn, given map[string][]int) error {
	h.mu.Lock()
	rest := maps.Clone(h.want)
	h.mu.Unlock()
	for id, paths := range rest {
		if _, ok := given[id]; ok {
			continue
		}
		pipes, err := open(paths)
		if err != nil {
			continue
		}
		err = h.give(ctx, c, id, pipes)
		shut(pipes)
		if err != nil {
			return err
		}
	}
	return nil
}

// find connects to the process that runs, or to a new one. One that hangs is
// replaced, if it is known what it holds.
func (h *Holder) find(ctx context.Context, replace bool) (*conn, map[string]bool, error) {
	name := socketName(version)
	c, err := dial(ctx, h.dir, name)
	if errors.Is(err, errHung) && c != nil && replace {
		if p, ok := c.process(); ok {
			h.log.Error("the process that holds containers' output does not answer; replacing it", "pid", p.Pid)
			if err := kill(ctx, p); err != nil {
				return nil, nil, err
			}
			err = errAbsent
		}
	}
	if errors.Is(err, errAbsent) {
		if err := launch(ctx, h.dir, name, idle); err != nil {
			return nil, nil, err
		}
		c, err = dial(ctx, h.dir, name)
	}
	if err != nil {
		return nil, nil, err
	}
	held, err := c.list(ctx)
	if err != nil {
		c.close()
		return nil, nil, err
	}
	return c, held, nil
}

// endOthers ends holders of other versions, when what they held is held by ours.
func (h *Holder) endOthers() {
	for _, name := range sockets(h.dir) {
		if name == socketName(version) {
			continue
		}
		if err := endOne(h.ctx, h.dir, name); err != nil {
			h.log.Warn("end the holder of another version", "socket", filepath.Join(h.dir, name), "err", err)
		}
	}
}

// End ends every holder in dir and removes what it left, for `crid reset`. What
// was in the pipes is lost. Idempotent.
func End(ctx context.Context, dir string) error {
	var errs []error
	for _, name := range sockets(dir) {
		errs = append(errs, endOne(ctx, dir, name))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, name := range []string{"holder", "holder.new"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove the holder's program: %w", err)
		}
	}
	return nil
}

// Probe asks the holder in dir how it is, and starts none.
func Probe(ctx context.Context, dir string) Status {
	c, err := dial(ctx, dir, socketName(version))
	if err != nil {
		return Status{Err: err}
	}
	defer c.close()
	held, err := c.list(ctx)
	return Status{Pid: c.pid, Held: len(held), Err: err}
}

func endOne(ctx context.Context, dir, name string) error {
	c, err := dial(ctx, dir, name)
	switch {
	case errors.Is(err, errAbsent):
	case errors.Is(err, errHung) && c != nil:
		p, ok := c.process()
		if !ok {
			return fmt.Errorf("end the holder at %s: %w", name, err)
		}
		if err := kill(ctx, p); err != nil {
			return err
		}
	case err != nil:
		return fmt.Errorf("end the holder at %s: %w", name, err)
	default:
		if err := c.end(ctx); err != nil {
			return fmt.Errorf("end the holder at %s: %w", name, err)
		}
	}
	if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the holder's socket: %w", err)
	}
	return nil
}

// sockets are the names of holders' sockets in dir, of every version.
func sockets(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "holder-") && strings.HasSuffix(e.Name(), ".sock") && e.Type() == os.ModeSocket {
			out = append(out, e.Name())
		}
	}
	return out
}

// openAll opens all that is wanted and there.
func (h *Holder) openAll() map[string][]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make(map[string][]int, len(h.want))
	for id, paths := range h.want {
		if pipes, err := open(paths); err == nil {
			out[id] = pipes
		}
	}
	return out
}

// open opens the read ends of fifos. Nothing waits, and nothing but a fifo is opened.
func open(paths []string) ([]int, error) {
	var out []int
	for _, path := range paths {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			shut(out)
			return nil, &os.PathError{Op: "open", Path: path, Err: err}
		}
		out = append(out, fd)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
			shut(out)
			return nil, fmt.Errorf("%s is not a fifo: %w", path, errdefs.ErrInvalidArgument)
		}
	}
	return out, nil
}

func shut(pipes []int) {
	for _, fd := range pipes {
		_ = unix.Close(fd)
	}
}
