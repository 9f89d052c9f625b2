package shimclient

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/crid-project/crid/shimclient/pidfd"
)

var (
	// ErrUnreachable says that the shim did not answer: no connection, a broken
	// one, or none of it before the deadline. It says nothing about the shim's
	// life, nor about the container's, nor whether the call took effect.
	ErrUnreachable = errors.New("shim is unreachable")

	// ErrGone says that the shim's process is dead; the kernel says so.
	ErrGone = pidfd.ErrGone
	// ErrClosed is ErrUnreachable for good: our own side was closed, and no
	// retry on this Shim will ever be answered.
	ErrClosed = fmt.Errorf("%w: closed by us", ErrUnreachable)
)

// maxMessage bounds the text that is taken over from a shim or from a runtime
// behind it, in bytes.
const maxMessage = 4096

// translate turns what a call returned into an error of ours. alive asks the
// kernel about the shim.
func translate(what string, err error, exited func() bool) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s: %w", what, err)
	}
	if st, ok := status.FromError(err); ok {
		return fmt.Errorf("%s: %s: %w", what, clip(st.Message()), kindOf(st))
	}
	switch {
	case exited():
		return fmt.Errorf("%s: %w", what, ErrGone)
	case errors.Is(err, ErrUnreachable), errors.Is(err, ErrGone):
		return fmt.Errorf("%s: %w", what, err)
	case errors.Is(err, ttrpc.ErrClosed):
		return fmt.Errorf("%s: connection closed: %w", what, ErrUnreachable)
	}
	// A deadline of ours, a broken pipe, a garbled frame: no answer, in short.
	return fmt.Errorf("%s: %w: %w", what, ErrUnreachable, err)
}

// kindOf gives the sentinel for an answer that the shim did send.
func kindOf(st *status.Status) error {
	switch st.Code() {
	case codes.NotFound:
		return errdefs.ErrNotFound
	case codes.InvalidArgument:
		return errdefs.ErrInvalidArgument
	case codes.AlreadyExists:
		return errdefs.ErrAlreadyExists
	case codes.FailedPrecondition:
		return errdefs.ErrFailedPrecondition
	case codes.Unavailable:
		return errdefs.ErrUnavailable
	case codes.Unimplemented:
		return errdefs.ErrNotImplemented
	case codes.ResourceExhausted:
		return errdefs.ErrResourceExhausted
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded
	case codes.Canceled:
		return context.Canceled
	default:
		return kindOfText(st.Message())
	}
}

// kindOfText is for answers with code Unknown, and for those that have no like
// here.
func kindOfText(message string) error {
	// "cannot delete a running process", "cannot exec in a stopped state" and all
	// their like come from the runc shim with code Unknown.
	if rest, ok := strings.CutPrefix(message, "cannot "); ok {
		for _, state := range []string{" created ", " running ", " paused ", " stopped ", " deleted "} {
			if strings.Contains(rest+" ", state) {
				return errdefs.ErrFailedPrecondition
			}
		}
	}
	return errdefs.ErrUnknown
}

func clip(s string) string {
	s = strings.TrimSpace(s)
	if len(s) <= maxMessage {
		return s
	}
	return strings.ToValidUTF8(s[:maxMessage], "") + " …(cut)"
}
