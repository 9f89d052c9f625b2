package shimclient

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"

	"github.com/crid-project/crid/failpoint"
	"github.com/crid-project/crid/shimclient/pidfd"
)

const (
	startTimeout  = 10 * time.Second // the default of HostConfig.StartTimeout
	probeTimeout  = 5 * time.Second
	deleteTimeout = 20 * time.Second // a runtime waits 10 s for a process that cannot die
)

// Ref is what a record keeps of a shim: enough to find it again, and to know
// that it is the same one. The zero Process stands for a shim that was about to
// be started when the record was written.
type Ref struct {
	ID      string        `json:"id"`
	Address string        `json:"address"` // path of its socket
	Version int           `json:"version"` // of the task API; 0 if not known yet
	Process pidfd.Process `json:"process"`
	Binary  string        `json:"binary"`
	Bundle  string        `json:"bundle"`
}

// Launch says which shim to start.
type Launch struct {
	// ID is the pod's: the group of the shim and the name under which it can be
	// found. The base name of Bundle must be the same.
	ID string
	// Bundle is a directory with a config.json, of which only the annotations
	// matter here: io.kubernetes.cri.sandbox-id must be ID if it is given.
	Bundle  string
	Runtime Runtime
}

// Predict tells before the start what the shim will be: where it will listen
// and by which binary. Write it down before Launch, and a shim whose start
// nobody lived to record can be found with FindUnrecorded or ended with Kill.
func (h *Host) Predict(l Launch) Ref {
	return Ref{
		ID:      l.ID,
		Address: socketPath(h.config.SocketDir, h.config.Address, h.config.Namespace, l.ID),
		Binary:  l.Runtime.Path,
		Bundle:  l.Bundle,
	}
}

// Launch starts a shim and connects to it. It ends within the start's
// timeout and 5 s for the first call, and leaves no process behind if it fails. If a
// shim of this id is up already (an earlier launch, whose answer was lost), that
// one is returned.
func (h *Host) Launch(ctx context.Context, l Launch) (*Shim, error) {
	fail := func(err error) (*Shim, error) {
		return nil, fmt.Errorf("launch shim %s of runtime %q: %w", l.ID, l.Runtime.Name, err)
	}
	if err := checkBundle(l.ID, l.Bundle); err != nil {
		return fail(err)
	}
	key, err := keyOf(l.Runtime.Path)
	if err != nil {
		return fail(err)
	}
	logs, err := openShimLog(filepath.Join(l.Bundle, "log"), h.log.With("pod", l.ID))
	if err != nil {
		return fail(err)
	}
	began, err := pidfd.Now()
	if err != nil {
		logs.Close()
		return fail(err)
	}
	ref := h.Predict(l)
	shim, err := h.launch(ctx, l, key, ref)
	if err != nil {
		logs.Close()
		if undo := h.undoLaunch(ctx, ref, began); undo != nil {
			err = errors.Join(err, undo)
		}
		return fail(err)
	}
	shim.keepLog(logs)
	return shim, nil
}

func (h *Host) launch(ctx context.Context, l Launch, key fileKey, ref Ref) (*Shim, error) {
	out, err := h.start(ctx, l, key)
	if err != nil {
		return nil, err
	}
	got, err := parseAnswer(out)
	if err == nil {
		err = failpoint.At("p10")
	}
	if err != nil {
		return nil, err
	}
	ref.Address, ref.Version = got.path, got.version
	return h.attach(ctx, ref)
}

// start runs the start command, in the other dialect too if the first was the
// wrong one.
func (h *Host) start(ctx context.Context, l Launch, key fileKey) ([]byte, error) {
	options, err := l.Runtime.options()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, h.config.StartTimeout)
	defer cancel()
	d, sure := h.dialects.get(key), true
	if d == dialectUnknown {
		d, sure = h.probe(ctx, l)
	}
	run := func(d dialect) ([]byte, error) {
		input, err := h.startInput(d, l.ID, options)
		if err == nil {
			err = failpoint.Sending("p9")
		}
		if err != nil {
			return nil, err
		}
		return command{
			path: l.Runtime.Path, dir: l.Bundle, stdin: input,
			args: append(h.arguments(l.ID), "start"), env: h.environment(),
			timeout: h.config.StartTimeout,
		}.run(ctx)
	}
	out, err := run(d)
	var failed *commandError
	if errors.As(err, &failed) && ctx.Err() == nil && (!sure || saysWrongDialect(failed.stderr)) {
		retried, retryErr := run(d.other())
		if retryErr == nil {
			out, err, d = retried, nil, d.other()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("run %s start: %w", l.Runtime.Path, err)
	}
	h.dialects.put(key, d)
	return out, nil
}

// probe asks a binary that was never started before for its version. A binary
// that cannot say is no error: the start will tell.
func (h *Host) probe(ctx context.Context, l Launch) (dialect, bool) {
	out, err := command{
		path: l.Runtime.Path, dir: l.Bundle, args: []string{"-v"},
		env: h.environment(), timeout: probeTimeout,
	}.run(ctx)
	if err != nil {
		return dialectOptions, false
	}
	return dialectOf(string(out))
}

// undoLaunch kills what a failed launch may have started. A process older than
// the launch is not its work and is left alone.
func (h *Host) undoLaunch(ctx context.Context, ref Ref, began uint64) error {
	// The caller's context may be what ended the launch.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTimeout)
	defer cancel()
	processes, err := h.findProcesses(ref)
	if err != nil {
		return err
	}
	var failed error
	for _, p := range processes {
		if p.StartTime < began {
			continue
		}
		if err := killProcess(ctx, p); err != nil {
			failed = errors.Join(failed, err)
		}
	}
	for _, path := range h.socketPaths(ref) {
		failed = errors.Join(failed, h.removeSocket(ctx, path, ref.ID))
	}
	return failed
}

// DeleteTask runs the shim's delete command for one container: it makes the
// runtime delete by force and unmounts the rootfs. For shims that are dead. It
// may be repeated. Nil means only that the command ran: it exits with success
// (and claims code 137) also when the process lives on and the mount is held.
// Ask the kernel afterwards. bundle must be the container's own and named id.
func (h *Host) DeleteTask(ctx context.Context, rt Runtime, bundle, id string) error {
	if err := checkBundle(id, bundle); err != nil {
		return fmt.Errorf("delete task %s: %w", id, err)
	}
	_, err := command{
		path: rt.Path, dir: bundle,
		args: append(h.arguments(id), "-bundle", bundle, "delete"), env: h.environment(),
		timeout: deleteTimeout,
	}.run(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("delete task %s: %w: %w", id, errdefs.ErrUnavailable, err)
	}
	if err != nil {
		return fmt.Errorf("delete task %s: %w", id, err)
	}
	return nil
}
