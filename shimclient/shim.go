package shimclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/crid-project/crid/shimclient/pidfd"
)

const (
	// callTimeout is for calls whose context has no deadline.
	callTimeout = 10 * time.Second
	// connectTimeout bounds the dial together with the first call.
	connectTimeout = 5 * time.Second
)

// Shim is one shim that this daemon knows to be the one it means. A connection
// that breaks is made anew by the next call, as long as the process lives.
type Shim struct {
	ref    Ref
	host   *Host
	log    *slog.Logger
	handle *pidfd.Handle
	link   link
	gone   chan struct{}
	silent atomic.Bool // the last call was left without an answer
	// version of the task API; 0 until a shim has answered that was found among
	// the processes.
	version atomic.Int32

	mu     sync.Mutex
	closed bool
	logs   *shimLog
}

// attach makes a Shim of whoever answers at ref.Address, and finds out for sure
// which process that is.
func (h *Host) attach(ctx context.Context, ref Ref) (*Shim, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	never := func() bool { return false }
	client, err := dial(ctx, ref.Address)
	if err != nil {
		return nil, translate("connect to shim", err, never)
	}
	handle, err := h.identify(ctx, client, ref)
	if err != nil {
		client.Close()
		return nil, translate("connect to shim", err, never)
	}
	ref.Process = handle.Process()
	s, err := h.newShim(ref, handle)
	if err != nil {
		client.Close()
		return nil, err
	}
	s.link.put(client)
	return s, nil
}

// identify asks for the shim's pid, takes a pidfd of it, and asks again on the
// same connection. The second answer proves the pidfd: the shim lived with that
// pid before and after, so the pid cannot have been another's between.
// A shim that does not tell is looked for among the processes.
func (h *Host) identify(ctx context.Context, client *client, ref Ref) (*pidfd.Handle, error) {
	pid, err := client.shimPid(ctx, ref)
	if err != nil {
		return nil, err
	}
	if pid == 0 {
		found, err := h.findProcesses(ref)
		if err != nil {
			return nil, err
		}
		if len(found) != 1 {
			return nil, fmt.Errorf("shim does not tell its pid, and %d processes have its id: %w", len(found), ErrUnreachable)
		}
		return pidfd.Open(found[0])
	}
	process, err := pidfd.Identify(pid)
	if err != nil {
		return nil, err
	}
	handle, err := pidfd.Open(process)
	if err != nil {
		return nil, err
	}
	again, err := client.shimPid(ctx, ref)
	if err == nil && again != pid {
		err = fmt.Errorf("shim says pid %d and then %d: %w", pid, again, ErrUnreachable)
	}
	if err != nil {
		handle.Close()
		return nil, err
	}
	return handle, nil
}

// newShim takes the handle over, also when it fails.
func (h *Host) newShim(ref Ref, handle *pidfd.Handle) (*Shim, error) {
	s := &Shim{
		ref: ref, host: h, handle: handle, gone: make(chan struct{}),
		log: h.log.With("pod", ref.ID),
	}
	s.version.Store(int32(ref.Version))
	if err := h.watcher.Watch(handle, s.died); err != nil {
		handle.Close()
		return nil, err
	}
	return s, nil
}

// died runs once, when the kernel says so.
func (s *Shim) died() {
	s.mu.Lock()
	closed, logs := s.closed, s.logs
	s.mu.Unlock()
	if closed {
		return
	}
	if logs != nil {
		logs.Finish() // what the shim wrote last is what one wants to read
	}
	s.link.close()
	close(s.gone)
}

// Ref returns what a record should keep of this shim.
func (s *Shim) Ref() Ref {
	ref := s.ref
	ref.Version = int(s.version.Load())
	return ref
}

// Gone is closed when the shim's process is dead, by the kernel's word. A
// connection that breaks does not close it, and neither does Close.
func (s *Shim) Gone() <-chan struct{} { return s.gone }

// Close gives up our side: connection, pidfd and log. The shim and its
// containers go on. Calls under way fail with ErrUnreachable. Idempotent.
func (s *Shim) Close() error {
	s.mu.Lock()
	s.closed = true
	logs := s.logs
	s.logs = nil
	s.mu.Unlock()
	s.link.close()
	s.handle.Close()
	if logs != nil {
		logs.Close()
	}
	return nil
}

// keepLog has the log closed together with the shim.
func (s *Shim) keepLog(logs *shimLog) {
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.logs = logs
	}
	s.mu.Unlock()
	if closed || s.handle.Exited() {
		logs.Finish()
	}
}

// client returns a connection to this very shim, a new one if need be.
func (s *Shim) client(ctx context.Context) (*client, error) {
	return s.link.get(ctx, func(ctx context.Context) (*client, error) {
		if s.handle.Exited() {
			return nil, ErrGone
		}
		c, err := dial(ctx, s.ref.Address)
		if err != nil {
			return nil, err
		}
		pid, err := s.greet(ctx, c)
		if err == nil && (pid != 0 && pid != s.ref.Process.Pid || s.handle.Exited()) {
			err = fmt.Errorf("another shim (pid %d) listens at %s: %w", pid, s.ref.Address, ErrUnreachable)
		}
		if err != nil {
			c.Close()
			return nil, err
		}
		return c, nil
	})
}

// greet asks a new connection for the shim's pid, and so learns which version of
// the task API is spoken if nobody knows.
func (s *Shim) greet(ctx context.Context, c *client) (pid int, err error) {
	ref := s.Ref()
	if ref.Version != 0 {
		return c.shimPid(ctx, ref)
	}
	for _, ref.Version = range []int{3, 2} {
		if pid, err = c.shimPid(ctx, ref); err == nil {
			s.version.Store(int32(ref.Version))
		}
		if status.Code(err) != codes.Unimplemented {
			break
		}
	}
	return pid, err
}

// call makes one RPC. Without a deadline it gets callTimeout.
func (s *Shim) call(ctx context.Context, method string, req, resp proto.Message) error {
	ctx, cancel := withDefault(ctx, callTimeout)
	defer cancel()
	return s.callUnbounded(ctx, method, req, resp)
}

func (s *Shim) callUnbounded(ctx context.Context, method string, req, resp proto.Message) error {
	c, err := s.client(ctx)
	if err == nil {
		err = c.call(ctx, int(s.version.Load()), method, req, resp)
		if errors.Is(err, ttrpc.ErrClosed) {
			s.link.drop(c) // before it says so itself: the next call may be quicker
		}
	}
	err = translate(method+" by shim "+s.ref.ID, err, s.handle.Exited)
	s.heard(method, err)
	return err
}

// heard notes whether the shim answered. A wait that is cut short says nothing,
// for a shim answers it when the process ends, and nor does a caller who left.
func (s *Shim) heard(method string, err error) {
	switch {
	case errors.Is(err, ErrUnreachable):
		if method != "Wait" || !errors.Is(err, context.DeadlineExceeded) {
			s.silent.Store(true)
		}
	case !errors.Is(err, context.Canceled):
		s.silent.Store(false)
	}
}

// Silent tells whether the shim left the last call without an answer. It may
// answer the next.
func (s *Shim) Silent() bool { return s.silent.Load() }

// Shutdown asks the shim to end, and waits for it. A shim that still has a
// container ignores the request; that is errdefs.ErrFailedPrecondition here.
// Nil means that the process is dead. Idempotent.
func (s *Shim) Shutdown(ctx context.Context) error {
	ctx, cancel := withDefault(ctx, callTimeout)
	defer cancel()
	err := s.callUnbounded(ctx, "Shutdown", &task.ShutdownRequest{ID: s.ref.ID}, new(task.StateResponse))
	answered := err == nil
	patience := 3 * time.Second
	if !answered {
		patience = 200 * time.Millisecond // the answer may have been lost in the shim's own haste
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-s.gone:
	case <-ctx.Done():
	case <-timer.C:
	}
	if s.handle.Exited() {
		// On a clock of its own: what is left of the caller's time may be too
		// little to see that nobody listens any more.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dialTimeout)
		defer cancel()
		return s.host.removeSocket(ctx, s.ref.Address, s.ref.ID)
	}
	if answered {
		return fmt.Errorf("shut down shim %s: it is still up, so it still has containers: %w", s.ref.ID, errdefs.ErrFailedPrecondition)
	}
	return err
}

func withDefault(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, d)
}
