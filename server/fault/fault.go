package fault

import (
	"context"
	"errors"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	crierrors "k8s.io/cri-api/pkg/errors"

	"github.com/crid-project/crid/cni"
	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/store/lifecycle"
)

// rules is asked from the top; the first class an error belongs to decides.
//
// A shim that does not answer and a plugin that does not end come before
// everything: the deadline in those errors is crid's own, for one question, and not
// the caller's. Then the two
// context errors: an operation that was cut off often wraps
// what it was doing ("unavailable: … context deadline exceeded"), and a caller
// must be able to tell its own deadline from a broken part.
var rules = []struct {
	is   error
	code codes.Code
}{
	{shimclient.ErrUnreachable, codes.Unavailable},
	{cni.ErrPluginSlow, codes.Unavailable},
	{context.DeadlineExceeded, codes.DeadlineExceeded},
	{context.Canceled, codes.Canceled},
	{errdefs.ErrInvalidArgument, codes.InvalidArgument},
	{errdefs.ErrNotFound, codes.NotFound},
	{errdefs.ErrAlreadyExists, codes.AlreadyExists},
	{errdefs.ErrPermissionDenied, codes.PermissionDenied},
	{errdefs.ErrUnauthenticated, codes.Unauthenticated},
	{errdefs.ErrResourceExhausted, codes.ResourceExhausted},
	{shimclient.ErrGone, codes.Unavailable},
	{cni.ErrPluginMissing, codes.FailedPrecondition},
	{cni.ErrDelOwed, codes.Unavailable},
	{lifecycle.ErrGone, codes.NotFound},
	{lifecycle.ErrState, codes.FailedPrecondition},
	{errdefs.ErrFailedPrecondition, codes.FailedPrecondition},
	{errdefs.ErrConflict, codes.FailedPrecondition},
	{errdefs.ErrNotModified, codes.FailedPrecondition},
	{errdefs.ErrAborted, codes.Aborted},
	{errdefs.ErrOutOfRange, codes.OutOfRange},
	{errdefs.ErrNotImplemented, codes.Unimplemented},
	{errdefs.ErrUnavailable, codes.Unavailable},
	{errdefs.ErrDataLoss, codes.DataLoss},
	{errdefs.ErrInternal, codes.Internal},
	// Disk, quota and table limits of the node: not a defect of crid, and
	// worth another try once somebody made room.
	{unix.ENOSPC, codes.ResourceExhausted},
	{unix.EDQUOT, codes.ResourceExhausted},
	{unix.EMFILE, codes.ResourceExhausted},
	{unix.ENFILE, codes.ResourceExhausted},
	{unix.ENOMEM, codes.ResourceExhausted},
	{unix.EROFS, codes.Unavailable},
	{unix.EIO, codes.Unavailable},
}

// Code is the gRPC code that says what kind of error err is. Nil is OK; an
// error that carries a gRPC status keeps its code; what nobody typed is
// Unknown, as the peers have it.
func Code(err error) codes.Code {
	if err == nil {
		return codes.OK
	}
	for _, r := range rules {
		if errors.Is(err, r.is) {
			return r.code
		}
	}
	var carrier interface{ GRPCStatus() *status.Status }
	if errors.As(err, &carrier) {
		if s := carrier.GRPCStatus(); s != nil && s.Code() != codes.OK {
			return s.Code()
		}
	}
	return codes.Unknown
}

// Status is err as a gRPC status error with the code of [Code] and the message
// unchanged; nil stays nil. A status error is returned as it is.
func Status(err error) error {
	if err == nil {
		return nil
	}
	if s, ok := err.(interface{ GRPCStatus() *status.Status }); ok && s.GRPCStatus() != nil {
		return err
	}
	return status.Error(Code(err), err.Error())
}

// Pull is [Status] for PullImage. The kubelet reads one more bit from the text
// of a failed pull: a message that begins with "RegistryUnavailable" is shown
// to the user as that reason (k8s.io/cri-api/pkg/errors).
func Pull(err error) error {
	if err == nil {
		return nil
	}
	if Code(err) != codes.Unavailable {
		return Status(err)
	}
	return status.Errorf(codes.Unavailable, "%s: %s", crierrors.ErrRegistryUnavailable.Error(), err.Error())
}
