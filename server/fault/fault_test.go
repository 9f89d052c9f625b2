package fault_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/crid-project/crid/cni"
	"github.com/crid-project/crid/server/fault"
	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/store/lifecycle"
)

// A kubelet decides by the code alone whether to retry, to give up or to make
// a new container; a wrong one is a wrong decision on every node.
func TestEveryTypedErrorHasItsCode(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("stop container abc: %w", err) }
	for _, c := range []struct {
		name string
		err  error
		want codes.Code
	}{
		{"nil", nil, codes.OK},
		{"untyped", errors.New("boom"), codes.Unknown},
		{"deadline", wrap(context.DeadlineExceeded), codes.DeadlineExceeded},
		{"canceled", wrap(context.Canceled), codes.Canceled},
		{"not found", wrap(errdefs.ErrNotFound), codes.NotFound},
		{"invalid", wrap(errdefs.ErrInvalidArgument), codes.InvalidArgument},
		{"exists", wrap(errdefs.ErrAlreadyExists), codes.AlreadyExists},
		{"precondition", wrap(errdefs.ErrFailedPrecondition), codes.FailedPrecondition},
		{"conflict", wrap(errdefs.ErrConflict), codes.FailedPrecondition},
		{"unavailable", wrap(errdefs.ErrUnavailable), codes.Unavailable},
		{"exhausted", wrap(errdefs.ErrResourceExhausted), codes.ResourceExhausted},
		{"denied", wrap(errdefs.ErrPermissionDenied), codes.PermissionDenied},
		{"unauthenticated", wrap(errdefs.ErrUnauthenticated), codes.Unauthenticated},
		{"unimplemented", wrap(errdefs.ErrNotImplemented), codes.Unimplemented},
		{"aborted", wrap(errdefs.ErrAborted), codes.Aborted},
		{"out of range", wrap(errdefs.ErrOutOfRange), codes.OutOfRange},
		{"data loss", wrap(errdefs.ErrDataLoss), codes.DataLoss},
		{"a shim that does not answer", fmt.Errorf("state: %w: %w", shimclient.ErrUnreachable, context.DeadlineExceeded), codes.Unavailable},
		{"a shim that is dead", wrap(shimclient.ErrGone), codes.Unavailable},
		{"a plugin that is missing", wrap(cni.ErrPluginMissing), codes.FailedPrecondition},
		{"a network that is not freed yet", wrap(cni.ErrDelOwed), codes.Unavailable},
		{"the law: gone", wrap(lifecycle.ErrGone), codes.NotFound},
		{"the law: wrong state", wrap(lifecycle.ErrState), codes.FailedPrecondition},
		{"internal", wrap(errdefs.ErrInternal), codes.Internal},
		{"full disk", wrap(syscall.ENOSPC), codes.ResourceExhausted},
		{"a status below", wrap(status.Error(codes.Aborted, "x")), codes.Aborted},
		{"one of several", errors.Join(errors.New("a"), wrap(errdefs.ErrNotFound)), codes.NotFound},
		{"cut off while something was unavailable", fmt.Errorf("%w: %w", errdefs.ErrUnavailable, context.DeadlineExceeded), codes.DeadlineExceeded},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := fault.Code(c.err); got != c.want {
				t.Errorf("code of %v: %v, want %v", c.err, got, c.want)
			}
			out := fault.Status(c.err)
			if status.Code(out) != c.want {
				t.Errorf("status of %v: %v, want %v", c.err, status.Code(out), c.want)
			}
			if c.err != nil && !strings.Contains(out.Error(), c.err.Error()) && !strings.Contains(c.err.Error(), status.Convert(out).Message()) {
				t.Errorf("message got lost: %q of %q", out, c.err)
			}
		})
	}
}

func TestAnUnreachableRegistryIsNamedAsTheKubeletReadsIt(t *testing.T) {
	err := fault.Pull(fmt.Errorf("pull r.example/a: %w", errdefs.ErrUnavailable))
	if status.Code(err) != codes.Unavailable || !strings.HasPrefix(status.Convert(err).Message(), "RegistryUnavailable: ") {
		t.Errorf("got %v", err)
	}
	if err := fault.Pull(fmt.Errorf("pull a: %w", errdefs.ErrNotFound)); status.Code(err) != codes.NotFound || strings.Contains(err.Error(), "RegistryUnavailable") {
		t.Errorf("got %v", err)
	}
	if fault.Pull(nil) != nil {
		t.Error("nil became an error")
	}
}
