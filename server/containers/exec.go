package containers

import (
	"context"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/container/stdio"
	"github.com/crid-project/crid/server/validate"
)

// MaxExecSync is the most bytes of output in one ExecSyncResponse: CRI caps
// the response, not each stream, at 16 MiB, which is also the largest message
// that a kubelet takes. The rest is for the message's own bytes.
const MaxExecSync = 16<<20 - 4<<10

// ExecSync runs a command to its end and answers its output. Output beyond
// Deps.MaxExecSync, and beyond [MaxExecSync] for both, is dropped while the
// command goes on.
func (s *Containers) ExecSync(ctx context.Context, r *cri.ExecSyncRequest) (*cri.ExecSyncResponse, error) {
	c, err := s.running(r.GetContainerId(), "commands can be run")
	if err != nil {
		return nil, err
	}
	most := MaxExecSync
	if s.d.MaxExecSync > 0 {
		most = min(most, s.d.MaxExecSync)
	}
	stdout, stderr := &stdio.Capped{Max: most}, &stdio.Capped{Max: most}
	code, err := s.d.Hands.Exec(ctx, c.ID, stdio.ExecRequest{
		Cmd:     r.GetCmd(),
		Stdout:  stdout,
		Stderr:  stderr,
		Timeout: validate.Seconds(r.GetTimeout()),
	})
	if err != nil {
		return nil, err
	}
	out, errs := share(stdout.Bytes(), stderr.Bytes(), MaxExecSync)
	return &cri.ExecSyncResponse{Stdout: out, Stderr: errs, ExitCode: int32(code)}, nil
}

// share cuts two outputs so that both fit into most bytes; each is owed half of
// it, and what one does not need the other gets.
func share(a, b []byte, most int) (cutA, cutB []byte) {
	if len(a)+len(b) <= most {
		return a, b
	}
	half := most / 2
	switch {
	case len(a) <= half:
		return a, b[:most-len(a)]
	case len(b) <= half:
		return a[:most-len(b)], b
	}
	return a[:half], b[:half]
}

// Exec answers where to connect to run a command interactively.
func (s *Containers) Exec(_ context.Context, r *cri.ExecRequest) (*cri.ExecResponse, error) {
	c, err := s.running(r.GetContainerId(), "commands can be run")
	if err != nil {
		return nil, err
	}
	url, err := s.d.Streams.Exec(&cri.ExecRequest{
		ContainerId: c.ID, Cmd: r.GetCmd(), Tty: r.GetTty(),
		Stdin: r.GetStdin(), Stdout: r.GetStdout(), Stderr: r.GetStderr(),
	})
	if err != nil {
		return nil, err
	}
	return &cri.ExecResponse{Url: url}, nil
}

// Attach answers where to connect to see, and feed, a running container.
func (s *Containers) Attach(_ context.Context, r *cri.AttachRequest) (*cri.AttachResponse, error) {
	c, err := s.running(r.GetContainerId(), "it can be attached to")
	if err != nil {
		return nil, err
	}
	if r.GetTty() != c.TTY {
		return nil, validate.Bad("tty", "is %t, but the container was created with tty %t", r.GetTty(), c.TTY)
	}
	url, err := s.d.Streams.Attach(&cri.AttachRequest{
		ContainerId: c.ID, Tty: r.GetTty(),
		Stdin: r.GetStdin(), Stdout: r.GetStdout(), Stderr: r.GetStderr(),
	})
	if err != nil {
		return nil, err
	}
	return &cri.AttachResponse{Url: url}, nil
}
