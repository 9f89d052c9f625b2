package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/container"
	"github.com/crid-project/crid/container/cgroup"
	"github.com/crid-project/crid/failpoint"
	"github.com/crid-project/crid/sandbox/pause"
	"github.com/crid-project/crid/sandbox/plan"
	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/pidfd"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

// The pause form: a sandbox with a process.

// pauseSpec lays out the sandbox process and its root.
func (p *Pods) pauseSpec(v *store.Pod, w *plan.Pod, h Handler) (*oci.Spec, error) {
	root, err := pause.Rootfs(filepath.Join(p.StateDir, "pause"))
	if err != nil {
		return nil, err
	}
	if err := container.LetPass(filepath.Join(p.StateDir, "pause"), root); err != nil {
		return nil, err
	}
	cgPath, _, err := cgroup.Path(v.Cgroup, v.ID, p.CgroupDriver)
	if err != nil {
		return nil, fmt.Errorf("linux.cgroup_parent: %w", err)
	}
	k := p.Handlers.Kernel(h.Runtime.Name)
	spec, err := w.PauseSpec(plan.Facts{ID: v.ID, Rootfs: root, CgroupsPath: cgPath,
		NetNS: v.NetNS, IPCNS: v.IPCNS, UTSNS: v.UTSNS, UserNS: v.UserNS,
		ShmDir: p.shm(v), ResolvFile: filepath.Join(p.Dir(v.ID), "resolv.conf"),
		MinOOMScoreAdj: k.MinOOMScoreAdj, SystemdCgroup: k.SystemdCgroup, CgroupV2: k.CgroupV2, Seccomp: k.Seccomp, OCIVersion: k.OCIVersion})
	if err != nil {
		return nil, fmt.Errorf("sandbox process: %w", err)
	}
	return spec, nil
}

func (p *Pods) shm(v *store.Pod) string {
	if v.IPCNS == "" {
		return "/dev/shm"
	}
	return filepath.Join(p.Dir(v.ID), "shm")
}

// startPause runs the sandbox process and pins its process namespace, so that
// containers join by a path that no recycled pid can stand behind.
func (p *Pods) startPause(ctx context.Context, s shimclient.Tasks, v *store.Pod, w *plan.Pod, h Handler) error {
	if err := failpoint.Sending("p12"); err != nil {
		return err
	}
	pid, err := s.Create(ctx, shimclient.Create{ID: v.ID, Bundle: p.Dir(v.ID), Runtime: h.Runtime})
	if err == nil {
		err = failpoint.At("p13")
	}
	if err != nil {
		return fmt.Errorf("create sandbox process: %w", err)
	}
	init, err := p.Kernel.Identify(pid)
	if err != nil {
		return fmt.Errorf("identify sandbox process: %w", err)
	}
	if _, err := p.Ledger.UpdatePod(v.ID, func(v *store.Pod) {
		v.PauseInit = store.Process{Pid: init.Pid, StartTime: init.StartTime}
	}); err != nil {
		return err
	}
	if err := failpoint.Sending("p14"); err != nil {
		return err
	}
	if _, err := s.Start(ctx, v.ID); err != nil {
		return fmt.Errorf("start sandbox process: %w", err)
	}
	if err := failpoint.At("p15"); err != nil {
		return err
	}
	if w.PodPID {
		pin := p.pidPin(v.ID)
		if err := p.Namespaces.PinPID(pin, init); err != nil {
			return fmt.Errorf("pin process namespace: %w", err)
		}
		if _, err := p.Ledger.UpdatePod(v.ID, func(v *store.Pod) { v.PIDNS = pin }); err != nil {
			return err
		}
	}
	return p.watchPause(v.ID, init)
}

// PIDNamespace implements container.Shims: the process namespace that the pod's
// containers share. A pod that was made without one gets its sandbox process
// when the first container asks to share.
func (p *Pods) PIDNamespace(ctx context.Context, id string) (string, error) {
	v, err := p.Ledger.Pod(id)
	if err != nil {
		return "", err
	}
	if v.PIDNS != "" {
		return v.PIDNS, nil
	}
	got, err, _ := p.late.Do(v.ID, func() (any, error) { return p.addPause(ctx, v.ID) })
	if err != nil {
		return "", fmt.Errorf("make a process namespace for the pod to share: %w", err)
	}
	ns, _ := got.(string)
	return ns, nil
}

func (p *Pods) addPause(ctx context.Context, id string) (string, error) {
	v, err := p.Ledger.Pod(id)
	if err != nil || v.PIDNS != "" {
		return v.PIDNS, err
	}
	h, err := p.Handler(v.Handler)
	if err != nil {
		return "", err
	}
	w, err := p.Plan(v)
	if err != nil {
		return "", err
	}
	switch {
	case p.hasPause(v):
		err = p.sharePause(v)
	default:
		if err = p.latePause(ctx, v, w, h); err != nil {
			p.undoPause(ctx, id)
		}
	}
	if err != nil {
		return "", err
	}
	// Containers will live in it, and a later run must not take it for an attempt.
	if err := p.Ledger.FlushPod(ctx, id); err != nil {
		return "", err
	}
	v, err = p.Ledger.Pod(id)
	if err != nil {
		return "", err
	}
	return v.PIDNS, nil
}

// hasPause reports whether the pod stands on a sandbox process: it was made with
// one, or containers share that one's process namespace. A pod to which one was
// to be added, and that has not come so far, can do without.
func (p *Pods) hasPause(v *store.Pod) bool {
	if !v.Pause || v.PIDNS != "" {
		return v.Pause
	}
	h, err := p.Handler(v.Handler)
	if err != nil || h.Pause {
		return true
	}
	w, err := p.Plan(v)
	return err != nil || w.PodPID
}

// sharePause has containers share the namespace of the sandbox process that the
// pod was made with.
func (p *Pods) sharePause(v *store.Pod) error {
	if !p.living(v.PauseInit) {
		return fmt.Errorf("the pod's sandbox process is gone: %w", errdefs.ErrUnavailable)
	}
	pin := p.pidPin(v.ID)
	if err := p.Namespaces.PinPID(pin, pidfd.Process{Pid: v.PauseInit.Pid, StartTime: v.PauseInit.StartTime}); err != nil {
		return fmt.Errorf("pin process namespace: %w", err)
	}
	_, err := p.Ledger.UpdatePod(v.ID, func(v *store.Pod) { v.PIDNS = pin })
	return err
}

// latePause adds a sandbox process to a pod that was made without.
func (p *Pods) latePause(ctx context.Context, v *store.Pod, w *plan.Pod, h Handler) error {
	if v.Pause { // what an earlier attempt left
		if err := p.endPause(ctx, v); err != nil {
			return err
		}
	}
	w.PodPID = true
	v, err := p.Ledger.UpdatePod(v.ID, func(v *store.Pod) { v.Pause, v.PauseInit = true, store.Process{} })
	if err != nil {
		return err
	}
	if err := p.Ledger.FlushPod(ctx, v.ID); err != nil {
		return err
	}
	if err := p.writeBundle(v, w, h); err != nil {
		return err
	}
	s, err := p.Of(v.ID)
	if err != nil {
		return err
	}
	return p.startPause(ctx, s, v, w, h)
}

// undoPause clears away a sandbox process that could not be added. What does not
// go now goes with the next attempt, or with the pod; so does one that comes only
// later, for which the record goes on saying that there may be one: a create
// that nobody waits for any more can still take effect.
func (p *Pods) undoPause(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endDeadline)
	defer cancel()
	v, err := p.Ledger.Pod(id)
	if err != nil || p.hasPause(v) {
		return
	}
	if err := p.endPause(ctx, v); err != nil {
		p.Log.Warn("clear away a sandbox process that could not be added", "pod", id, "err", err)
		return
	}
	_, _ = p.Ledger.UpdatePod(id, func(v *store.Pod) { v.PauseInit = store.Process{} })
}

func (p *Pods) pidPin(id string) string { return filepath.Join(p.Dir(id), "pidns") }

func pinPID(pin string, init pidfd.Process) error {
	if err := os.WriteFile(pin, nil, 0o600); err != nil {
		return err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/%d/ns/pid", init.Pid), pin, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	if ok, err := init.Alive(); err != nil || !ok {
		return errors.New("the sandbox process ended meanwhile")
	}
	return nil
}

// watchPause has the end of the sandbox process reported.
func (p *Pods) watchPause(id string, init pidfd.Process) error {
	h, err := p.Kernel.Open(init)
	if err != nil {
		return fmt.Errorf("take hold of the sandbox process: %w", err)
	}
	p.mu.Lock()
	if old := p.pauses[id]; old != nil {
		_ = old.Close()
	}
	p.pauses[id] = h
	p.mu.Unlock()
	return p.Kernel.Watch(h, func() {
		_, _ = p.step(id, lifecycle.SeenPodBroken{Why: "its sandbox process is gone"})
	})
}

// endPause sees to it that no sandbox process and no sandbox task is left.
func (p *Pods) endPause(ctx context.Context, v *store.Pod) error {
	if !v.Pause {
		return nil
	}
	_, dir, err := cgroup.Path(v.Cgroup, v.ID, p.CgroupDriver)
	if err != nil {
		return err
	}
	cg := p.Kernel.Cgroup(dir)
	end, shimKilled := time.Now().Add(endDeadline), false
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		dead := p.killPause(v)
		if time.Now().After(end.Add(-endDeadline * 99 / 100)) {
			// Others are rare, and a kill freezes the cgroup for a moment, in which
			// an OCI runtime would not delete it.
			if err := cg.Kill(); err != nil {
				p.Log.Warn("kill the sandbox's cgroup", "pod", v.ID, "err", err)
			}
		}
		if full, err := cg.Populated(); dead && err == nil && !full {
			break
		}
		if !shimKilled && time.Now().After(end.Add(-endDeadline*3/4)) {
			// The first process of a process namespace cannot end before the
			// others are reaped, and a shim that hangs does not reap them.
			shimKilled = true
			if err := p.Host.Kill(ctx, toRef(v.Shim)); err != nil {
				p.Log.Warn("kill a shim that keeps the sandbox process from ending", "pod", v.ID, "err", err)
			}
		}
		if time.Now().After(end) {
			return errors.New("the sandbox process does not die")
		}
		time.Sleep(wait)
	}
	if err := failpoint.At("n2"); err != nil {
		return err
	}
	p.mu.Lock()
	if h := p.pauses[v.ID]; h != nil {
		_ = h.Close()
		delete(p.pauses, v.ID)
	}
	p.mu.Unlock()
	if err := p.deletePause(ctx, v); err != nil {
		return err
	}
	return cg.Remove(ctx)
}

// killPause sends SIGKILL to the sandbox process and reports whether it is dead.
func (p *Pods) killPause(v *store.Pod) bool {
	if !v.PauseInit.Known() {
		return true
	}
	h, err := p.Kernel.Open(pidfd.Process{Pid: v.PauseInit.Pid, StartTime: v.PauseInit.StartTime})
	if errors.Is(err, pidfd.ErrGone) {
		return true
	}
	if err != nil {
		return false
	}
	defer func() { _ = h.Close() }()
	if h.Exited() {
		return true
	}
	_ = h.Signal(unix.SIGKILL)
	return false
}

func (p *Pods) deletePause(ctx context.Context, v *store.Pod) error {
	h, err := p.Handler(v.Handler)
	if err != nil {
		return err
	}
	if s, err := p.Of(v.ID); err == nil {
		ask, cancel := context.WithTimeout(ctx, shimDeadline)
		defer cancel()
		if err := container.DeleteFrom(ask, s, v.ID); err == nil || isNotFound(err) {
			// A shim that does not know it says nothing of what the OCI runtime knows.
			return container.RemoveRuntimeState(h.Runtime, v.ID)
		}
	}
	ask, cancel := context.WithTimeout(ctx, endDeadline)
	defer cancel()
	if err := p.Host.DeleteTask(ask, h.Runtime, p.Dir(v.ID), v.ID); err != nil {
		p.Log.Warn("the shim's delete command failed for the sandbox process", "pod", v.ID, "err", err)
	}
	return container.RemoveRuntimeState(h.Runtime, v.ID)
}
