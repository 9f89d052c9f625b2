package streaming

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/containerd/errdefs"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream/wsstream"
	utilexec "k8s.io/utils/exec"

	"github.com/crid-project/crid/container/stdio"
)

// call is what a URL stands for.
type call struct {
	verb, id string
	cmd      []string // of exec
	streams  remotecommand.Options
	ports    []int32 // of portforward
}

// setStreams takes over and checks what exec and attach have in common.
func (c *call) setStreams(m AttachMessage) error {
	c.streams = remotecommand.Options{Stdin: m.GetStdin(), Stdout: m.GetStdout(), Stderr: m.GetStderr(), TTY: m.GetTty()}
	switch o := c.streams; {
	case c.id == "":
		return fmt.Errorf("%s: container_id is empty: %w", c.verb, errdefs.ErrInvalidArgument)
	case o.TTY && o.Stderr:
		return fmt.Errorf("%s: tty and stderr exclude each other: a terminal has one output: %w", c.verb, errdefs.ErrInvalidArgument)
	case !o.Stdin && !o.Stdout && !o.Stderr:
		return fmt.Errorf("%s: none of stdin, stdout and stderr is asked for: %w", c.verb, errdefs.ErrInvalidArgument)
	}
	return nil
}

// session serves one call over one connection. Which protocol it speaks is the client's choice.
func (s *Server) session(w http.ResponseWriter, r *http.Request, c *call) {
	start := time.Now()
	log := s.log.With("verb", c.verb, idName(c.verb), c.id)
	log.Debug("stream opened", "client", r.RemoteAddr)
	defer func() { log.Debug("stream closed", "after", time.Since(start)) }()

	a := &adapter{runtime: s.runtime}
	switch {
	case c.verb == "portforward" && wsstream.IsWebSocketRequestWithTunnelingProtocol(r):
		s.serveTunnel(w, r, c)
	case c.verb == "portforward" && !wsstream.IsWebSocketRequest(r):
		s.serveForwards(w, r, c)
	case c.verb == "portforward":
		f := newForwarder(r.Context(), s.runtime)
		opts, _ := portforward.BuildV4Options(c.ports) // never fails
		portforward.ServePortForward(w, r, f, c.id, "", opts, s.idle, s.creation, portforward.SupportedProtocols)
	case wsstream.IsWebSocketRequestWithStreamCloseProtocol(r):
		s.serveV5(w, r, a, c)
	case !wsstream.IsWebSocketRequest(r):
		s.serveSPDY(w, r, a, c)
	case c.verb == "exec":
		remotecommand.ServeExec(w, r, a, "", "", c.id, c.cmd, &c.streams, s.idle, s.creation, remotecommand.SupportedStreamingProtocols)
	default:
		remotecommand.ServeAttach(w, r, a, "", "", c.id, &c.streams, s.idle, s.creation, remotecommand.SupportedStreamingProtocols)
	}
}

func idName(verb string) string {
	if verb == "portforward" {
		return "pod"
	}
	return "container"
}

// adapter gives the library our Runtime in its own terms.
type adapter struct{ runtime Runtime }

// run does the work of an exec or attach over streams that are open.
func (a *adapter) run(ctx context.Context, c *call, in io.Reader, out, err io.WriteCloser, resize <-chan remotecommand.TerminalSize) error {
	if c.verb == "exec" {
		return a.ExecInContainer(ctx, "", "", c.id, c.cmd, in, out, err, c.streams.TTY, resize, 0)
	}
	return a.AttachContainer(ctx, "", "", c.id, in, out, err, c.streams.TTY, resize)
}

// ExecInContainer implements remotecommand.Executor. An exit code other than 0 is the error that the library knows.
func (a *adapter) ExecInContainer(ctx context.Context, _, _ string, container string, cmd []string, in io.Reader, out, err io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize, timeout time.Duration) error {
	code, fail := a.runtime.Exec(ctx, container, stdio.ExecRequest{
		Cmd: cmd, TTY: tty, Stdin: in, Stdout: writer(out), Stderr: writer(err), Resize: sizes(ctx, resize), Timeout: timeout,
	})
	switch {
	case errors.Is(context.Cause(ctx), errStopping):
		return errStopping
	case fail != nil:
		return fail
	case code != 0:
		return utilexec.CodeExitError{Err: fmt.Errorf("command terminated with exit code %d", code), Code: code}
	}
	return nil
}

// AttachContainer implements remotecommand.Attacher.
func (a *adapter) AttachContainer(ctx context.Context, _, _ string, container string, in io.Reader, out, err io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	fail := a.runtime.Attach(ctx, container, stdio.AttachRequest{
		TTY: tty, Stdin: in, Stdout: writer(out), Stderr: writer(err), Resize: sizes(ctx, resize),
	})
	if errors.Is(context.Cause(ctx), errStopping) {
		return errStopping
	}
	return fail
}

// writer keeps a nil stream nil.
func writer(w io.WriteCloser) io.Writer {
	if w == nil {
		return nil
	}
	return w
}

// sizes translates the library's sizes into ours until ctx ends.
func sizes(ctx context.Context, from <-chan remotecommand.TerminalSize) <-chan stdio.Size {
	if from == nil {
		return nil
	}
	to := make(chan stdio.Size)
	go func() {
		defer close(to)
		for {
			select {
			case <-ctx.Done():
				return
			case size, ok := <-from:
				if !ok {
					return
				}
				select {
				case to <- stdio.Size{Width: size.Width, Height: size.Height}:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return to
}
