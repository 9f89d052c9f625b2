package shimclient

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Types of the runtime specification travel as JSON under these names.
const (
	typeProcess   = "types.containerd.io/opencontainers/runtime-spec/1/Process"
	typeResources = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"
)

func packJSON(typeURL string, v any) (*anypb.Any, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("marshal %T: %w", v, err)
	}
	return &anypb.Any{TypeUrl: typeURL, Value: b}, nil
}

// Create implements Tasks.
func (s *Shim) Create(ctx context.Context, c Create) (int, error) {
	if err := checkBundle(c.ID, c.Bundle); err != nil {
		return 0, fmt.Errorf("create task %s: %w", c.ID, err)
	}
	options, err := c.Runtime.options()
	if err != nil {
		return 0, fmt.Errorf("create task %s: %w", c.ID, err)
	}
	std, err := stdio{c.Stdin, c.Stdout, c.Stderr, c.Terminal}.checked()
	if err != nil {
		return 0, fmt.Errorf("create task %s: %w", c.ID, err)
	}
	req := &task.CreateTaskRequest{
		ID: c.ID, Bundle: c.Bundle, Terminal: c.Terminal,
		Stdin: std.in, Stdout: std.out, Stderr: std.err, Options: options,
	}
	for _, m := range c.Rootfs {
		req.Rootfs = append(req.Rootfs, &types.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	var resp task.CreateTaskResponse
	err = s.call(ctx, "Create", req, &resp)
	return int(resp.Pid), err
}

// stdio is what a shim is told about a process's input and output.
type stdio struct {
	in, out, err string
	terminal     bool
}

// checked lets nothing pass but paths: the shim would take a URI with a scheme
// such as binary:// for a program to run. The runc shim opens both outputs or
// none, so that one which nobody wants goes to /dev/null.
func (s stdio) checked() (stdio, error) {
	for _, path := range []string{s.in, s.out, s.err} {
		if path != "" && path[0] != '/' {
			return stdio{}, fmt.Errorf("stdio %q is not an absolute path: %w", path, errdefs.ErrInvalidArgument)
		}
	}
	if s.in == "" && s.out == "" && s.err == "" {
		return s, nil
	}
	if s.out == "" {
		s.out = os.DevNull
	}
	if s.terminal {
		s.err = ""
	} else if s.err == "" {
		s.err = os.DevNull
	}
	return s, nil
}

// Start implements Tasks.
func (s *Shim) Start(ctx context.Context, id string) (int, error) { return s.StartExec(ctx, id, "") }

// StartExec implements Tasks.
func (s *Shim) StartExec(ctx context.Context, id, execID string) (int, error) {
	var resp task.StartResponse
	err := s.call(ctx, "Start", &task.StartRequest{ID: id, ExecID: execID}, &resp)
	return int(resp.Pid), err
}

// Kill implements Tasks.
func (s *Shim) Kill(ctx context.Context, id string, signal uint32, all bool) error {
	return s.call(ctx, "Kill", &task.KillRequest{ID: id, Signal: signal, All: all}, new(emptypb.Empty))
}

// KillExec implements Tasks.
func (s *Shim) KillExec(ctx context.Context, id, execID string, signal uint32) error {
	return s.call(ctx, "Kill", &task.KillRequest{ID: id, ExecID: execID, Signal: signal}, new(emptypb.Empty))
}

// Delete implements Tasks.
func (s *Shim) Delete(ctx context.Context, id string) (Exit, error) {
	return s.DeleteExec(ctx, id, "")
}

// DeleteExec implements Tasks.
func (s *Shim) DeleteExec(ctx context.Context, id, execID string) (Exit, error) {
	var resp task.DeleteResponse
	if err := s.call(ctx, "Delete", &task.DeleteRequest{ID: id, ExecID: execID}, &resp); err != nil {
		return Exit{}, err
	}
	return Exit{Pid: int(resp.Pid), Code: int(resp.ExitStatus), At: timeOf(resp.ExitedAt)}, nil
}

// State implements Tasks.
func (s *Shim) State(ctx context.Context, id string) (State, error) { return s.StateExec(ctx, id, "") }

// StateExec implements Tasks.
func (s *Shim) StateExec(ctx context.Context, id, execID string) (State, error) {
	var resp task.StateResponse
	if err := s.call(ctx, "State", &task.StateRequest{ID: id, ExecID: execID}, &resp); err != nil {
		return State{}, err
	}
	st := State{Pid: int(resp.Pid), Status: statusOf(resp.Status), ExitCode: int(resp.ExitStatus)}
	if st.Status == StatusStopped {
		st.ExitedAt = timeOf(resp.ExitedAt)
	}
	return st, nil
}

func statusOf(s tasktypes.Status) Status {
	switch s {
	case tasktypes.Status_CREATED:
		return StatusCreated
	case tasktypes.Status_RUNNING:
		return StatusRunning
	case tasktypes.Status_STOPPED:
		return StatusStopped
	case tasktypes.Status_PAUSED:
		return StatusPaused
	case tasktypes.Status_PAUSING:
		return StatusPausing
	default:
		return StatusUnknown
	}
}

// Wait implements Tasks.
func (s *Shim) Wait(ctx context.Context, id string) (Exit, error) { return s.WaitExec(ctx, id, "") }

// WaitExec implements Tasks.
func (s *Shim) WaitExec(ctx context.Context, id, execID string) (Exit, error) {
	var resp task.WaitResponse
	if err := s.callUnbounded(ctx, "Wait", &task.WaitRequest{ID: id, ExecID: execID}, &resp); err != nil {
		return Exit{}, err
	}
	return Exit{Code: int(resp.ExitStatus), At: timeOf(resp.ExitedAt)}, nil
}

// Exec implements Tasks.
func (s *Shim) Exec(ctx context.Context, e ExecSpec) error {
	if err := checkID(e.ExecID); err != nil {
		return fmt.Errorf("exec in task %s: %w", e.ID, err)
	}
	std, err := stdio{e.Stdin, e.Stdout, e.Stderr, e.Terminal}.checked()
	if err != nil {
		return fmt.Errorf("exec in task %s: %w", e.ID, err)
	}
	spec, err := packJSON(typeProcess, e.Process)
	if err != nil {
		return fmt.Errorf("exec in task %s: %w", e.ID, err)
	}
	return s.call(ctx, "Exec", &task.ExecProcessRequest{
		ID: e.ID, ExecID: e.ExecID, Terminal: e.Terminal,
		Stdin: std.in, Stdout: std.out, Stderr: std.err, Spec: spec,
	}, new(emptypb.Empty))
}

// ResizePty implements Tasks.
func (s *Shim) ResizePty(ctx context.Context, id, execID string, width, height uint32) error {
	return s.call(ctx, "ResizePty", &task.ResizePtyRequest{ID: id, ExecID: execID, Width: width, Height: height}, new(emptypb.Empty))
}

// CloseStdin implements Tasks.
func (s *Shim) CloseStdin(ctx context.Context, id, execID string) error {
	return s.call(ctx, "CloseIO", &task.CloseIORequest{ID: id, ExecID: execID, Stdin: true}, new(emptypb.Empty))
}

// Update implements Tasks.
func (s *Shim) Update(ctx context.Context, id string, resources *oci.LinuxResources, annotations map[string]string) error {
	packed, err := packJSON(typeResources, resources)
	if err != nil {
		return fmt.Errorf("update task %s: %w", id, err)
	}
	return s.call(ctx, "Update", &task.UpdateTaskRequest{ID: id, Resources: packed, Annotations: annotations}, new(emptypb.Empty))
}

// Pause implements Tasks.
func (s *Shim) Pause(ctx context.Context, id string) error {
	return s.call(ctx, "Pause", &task.PauseRequest{ID: id}, new(emptypb.Empty))
}

// Resume implements Tasks.
func (s *Shim) Resume(ctx context.Context, id string) error {
	return s.call(ctx, "Resume", &task.ResumeRequest{ID: id}, new(emptypb.Empty))
}

// Pids implements Tasks.
func (s *Shim) Pids(ctx context.Context, id string) ([]int, error) {
	var resp task.PidsResponse
	if err := s.call(ctx, "Pids", &task.PidsRequest{ID: id}, &resp); err != nil {
		return nil, err
	}
	pids := make([]int, len(resp.Processes))
	for i, p := range resp.Processes {
		pids[i] = int(p.Pid)
	}
	return pids, nil
}

// Connect implements Tasks.
func (s *Shim) Connect(ctx context.Context, id string) (ConnectInfo, error) {
	var resp task.ConnectResponse
	err := s.call(ctx, "Connect", &task.ConnectRequest{ID: id}, &resp)
	return ConnectInfo{ShimPid: int(resp.ShimPid), TaskPid: int(resp.TaskPid)}, err
}

func timeOf(ts *timestamppb.Timestamp) time.Time {
	if ts == nil || ts.CheckValid() != nil {
		return time.Time{}
	}
	return ts.AsTime()
}
