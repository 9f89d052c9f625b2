package shimclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/shimclient/pidfd"
)

const killTimeout = 5 * time.Second

// Adopt connects to the shim that a record names. It returns ErrGone if the
// shim's process is dead, whoever may be listening at its address. It returns
// ErrUnreachable together with a Shim if the process lives but does not answer
// (stopped, its socket lost, another shim in its place): such a Shim still
// tells its end by Gone, and every call tries to reach it anew.
func (h *Host) Adopt(ctx context.Context, ref Ref) (*Shim, error) {
	handle, err := pidfd.Open(ref.Process)
	if err == nil && handle.Exited() {
		handle.Close()
		err = ErrGone
	}
	if err != nil {
		return nil, fmt.Errorf("adopt shim %s: %w", ref.ID, err)
	}
	s, err := h.newShim(ref, handle)
	if err != nil {
		return nil, fmt.Errorf("adopt shim %s: %w", ref.ID, err)
	}
	if logs, err := openShimLog(filepath.Join(ref.Bundle, "log"), s.log); err != nil {
		s.log.Warn("shim log cannot be read", "error", err)
	} else {
		s.keepLog(logs)
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if _, err := s.client(ctx); err != nil {
		err = translate("adopt shim "+ref.ID, err, handle.Exited)
		if errors.Is(err, ErrGone) {
			s.Close()
			return nil, err
		}
		s.heard("adopt", err)
		return s, err
	}
	return s, nil
}

// FindUnrecorded looks for the shim of a Predict whose Launch was not lived to
// the end: at the address where it would listen, then among the processes. It
// returns errdefs.ErrNotFound if there is none, and, as Adopt does, a Shim with
// ErrUnreachable if there is one that does not answer.
func (h *Host) FindUnrecorded(ctx context.Context, predicted Ref) (*Shim, error) {
	if err := checkID(predicted.ID); err != nil {
		return nil, fmt.Errorf("find shim: %w", err)
	}
	for _, path := range h.socketPaths(predicted) {
		ref := predicted
		ref.Address = path
		for _, ref.Version = range []int{3, 2} {
			s, err := h.attach(ctx, ref)
			if err == nil {
				if logs, err := openShimLog(filepath.Join(ref.Bundle, "log"), s.log); err == nil {
					s.keepLog(logs)
				}
				return s, nil
			}
			if !errors.Is(err, errdefs.ErrNotImplemented) {
				break
			}
		}
	}
	processes, err := h.findProcesses(predicted)
	if err != nil {
		return nil, fmt.Errorf("find shim %s: %w", predicted.ID, err)
	}
	for _, p := range processes {
		ref := predicted
		ref.Process = p
		ref.Address = h.socketThere(predicted)
		if s, err := h.Adopt(ctx, ref); s != nil {
			return s, err
		}
	}
	return nil, fmt.Errorf("find shim %s: %w", predicted.ID, errdefs.ErrNotFound)
}

// Kill ends the shim with SIGKILL, waits until the kernel says that it is dead
// and removes its socket. The shim's containers live on. Idempotent; a Ref
// without a Process has its shims looked for. It fails if the process is still
// there at the deadline (5 s without one).
func (h *Host) Kill(ctx context.Context, ref Ref) error {
	if err := checkID(ref.ID); err != nil {
		return fmt.Errorf("kill shim: %w", err)
	}
	ctx, cancel := withDefault(ctx, killTimeout)
	defer cancel()
	processes := []pidfd.Process{ref.Process}
	if ref.Process == (pidfd.Process{}) {
		var err error
		if processes, err = h.findProcesses(ref); err != nil {
			return fmt.Errorf("kill shim %s: %w", ref.ID, err)
		}
	}
	var failed error
	for _, p := range processes {
		failed = errors.Join(failed, killProcess(ctx, p))
	}
	if failed == nil {
		for _, path := range h.socketPaths(ref) {
			failed = errors.Join(failed, h.removeSocket(ctx, path, ref.ID))
		}
	}
	if failed != nil {
		return fmt.Errorf("kill shim %s: %w", ref.ID, failed)
	}
	return nil
}

// killProcess kills one process and waits for its end.
func killProcess(ctx context.Context, p pidfd.Process) error {
	handle, err := pidfd.Open(p)
	if errors.Is(err, ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer handle.Close()
	if err := handle.Signal(unix.SIGKILL); err != nil && !errors.Is(err, ErrGone) {
		return err
	}
	for wait := time.Millisecond; !handle.Exited(); wait = min(2*wait, 50*time.Millisecond) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%v does not die of SIGKILL: %w", p, ctx.Err())
		case <-time.After(wait):
		}
	}
	return nil
}

// socketPaths are the places where the shim may listen: as recorded, or else by
// the rule, in our directory or in the one that older shims are built with.
func (h *Host) socketPaths(ref Ref) []string {
	paths := []string{
		ref.Address,
		socketPath(h.config.SocketDir, h.config.Address, h.config.Namespace, ref.ID),
		socketPath(legacySocketDir, h.config.Address, h.config.Namespace, ref.ID),
	}
	paths = slices.DeleteFunc(paths, func(p string) bool { return p == "" })
	slices.Sort(paths)
	return slices.Compact(paths)
}

// socketThere is the first of the places where the shim may listen that has a
// socket; the predicted one if none has.
func (h *Host) socketThere(predicted Ref) string {
	for _, path := range h.socketPaths(predicted) {
		if fi, err := os.Lstat(path); err == nil && fi.Mode().Type() == os.ModeSocket {
			return path
		}
	}
	return predicted.Address
}

// findProcesses looks through /proc for shims of this host with this id. A
// socket cannot tell: its peer credentials are those of the short start command
// that listened and passed the socket on.
func (h *Host) findProcesses(ref Ref) ([]pidfd.Process, error) {
	pids, err := allPids()
	if err != nil {
		return nil, err
	}
	var found []pidfd.Process
	for _, pid := range pids {
		if !h.isShim(pid, ref.ID) {
			continue
		}
		p, err := pidfd.Identify(pid)
		// Looked at again, now that the start time is known: the pid could have
		// changed hands between the two.
		if err == nil && h.isShim(pid, ref.ID) {
			found = append(found, p)
		}
	}
	return found, nil
}

// isShim judges by the arguments, which every shim gets in this form.
func (h *Host) isShim(pid int, id string) bool {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil {
		return false
	}
	defer f.Close()
	line, err := io.ReadAll(io.LimitReader(f, 8192))
	if err != nil || !bytes.Contains(line, []byte(id)) {
		return false
	}
	args := bytes.Split(line, []byte{0})
	follows := func(flag, value string) bool {
		i := slices.IndexFunc(args, func(a []byte) bool { return string(a) == flag })
		return i >= 0 && i+1 < len(args) && string(args[i+1]) == value
	}
	return follows("-id", id) && follows("-namespace", h.config.Namespace) && follows("-address", h.config.Address)
}
