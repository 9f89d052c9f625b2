package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/crid-project/crid/container"
	"github.com/crid-project/crid/container/cgroup"
	"github.com/crid-project/crid/failpoint"
	"github.com/crid-project/crid/image"
	"github.com/crid-project/crid/sandbox/plan"
	"github.com/crid-project/crid/shimclient/pidfd"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

// tellAfter is how long a stop waits between looks at what keeps it.
const tellAfter = 5 * time.Second

// Stop ends the pod's containers, its shim and its network. It returns when all
// is given back. Idempotent; a pod that does not exist is a success.
func (p *Pods) Stop(ctx context.Context, id string) error {
	if err := p.ask(ctx, id, lifecycle.AskPodStop{}, "stop", func(v *store.Pod) bool {
		return v.State.Phase == lifecycle.Stopped || v.State.Phase == lifecycle.PodGone
	}); err != nil {
		return err
	}
	return failpoint.At("n7")
}

// Remove makes the pod and its containers vanish, stopping it first if need be.
// It returns when the name is free. Idempotent; a pod that does not exist is a
// success.
func (p *Pods) Remove(ctx context.Context, id string) error {
	return p.ask(ctx, id, lifecycle.AskPodRemove{}, "remove", func(v *store.Pod) bool {
		return v.State.Phase == lifecycle.PodGone
	})
}

func (p *Pods) ask(ctx context.Context, id string, e lifecycle.PodEvent, what string, done func(*store.Pod) bool) error {
	v, err := p.Ledger.Pod(id)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := p.step(v.ID, e); err != nil && !isNotFound(err) {
		return err
	}
	p.desk.Nudge(v.ID)
	for {
		patience, cancel := context.WithTimeout(ctx, tellAfter)
		_, err = p.Ledger.WaitPod(patience, v.ID, done)
		out := patience.Err() != nil
		cancel()
		if err == nil || isNotFound(err) {
			return nil
		}
		why := ""
		for _, l := range p.desk.Late(0) {
			if l.ID != v.ID || l.Err == nil {
				continue
			}
			// A plugin that refuses is told before the caller's time is up: its own
			// client would only say that it gave up waiting.
			if out && ctx.Err() == nil && l.Work == lifecycle.FreeNet {
				return fmt.Errorf("%s pod sandbox %s: its network cannot be given back yet, crid goes on trying: %w: %w", what, v.ID, l.Err, errdefs.ErrUnavailable)
			}
			why = fmt.Sprintf(" (%s: %v)", l.Work, l.Err)
		}
		if !out || ctx.Err() != nil {
			return fmt.Errorf("%s pod sandbox %s: still under way%s, a retry joins it: %w", what, v.ID, why, err)
		}
	}
}

// endMembers sees to it that no container of the pod lives, and with a removal
// that none is left.
func (p *Pods) endMembers(ctx context.Context, v *store.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, endDeadline)
	defer cancel()
	members := p.Ledger.Members(v.ID)
	for _, m := range members {
		p.Members.KillMember(m.ID)
	}
	for _, m := range members {
		if _, err := p.Ledger.WaitContainer(ctx, m.ID, func(m *store.Container) bool {
			return !m.State.Alive() && m.State.Phase != lifecycle.Making
		}); err != nil && !isNotFound(err) {
			return fmt.Errorf("end container %s: %w", m.ID, err)
		}
	}
	erase := v.State.Phase == lifecycle.PodRemoving && v.State.MembersEnded
	if erase {
		for _, m := range members {
			if err := p.Members.Remove(ctx, m.ID); err != nil {
				return err
			}
		}
	}
	if err := failpoint.At("n1"); err != nil {
		return err
	}
	_, err := p.step(v.ID, lifecycle.MembersDone{Erased: erase})
	return err
}

// endSandbox sees to it that neither sandbox task nor shim is left. The shim is
// asked to go once its containers are deleted, and killed if it does not:
// nothing of them lives any more.
func (p *Pods) endSandbox(ctx context.Context, v *store.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := p.endPause(ctx, v); err != nil {
		return err
	}
	p.reaped(ctx, v.ID)
	s, err := p.Of(v.ID)
	if err == nil {
		ask, cancel := context.WithTimeout(ctx, shimDeadline)
		err = s.Shutdown(ask)
		cancel()
	}
	if err != nil {
		if err := p.Host.Kill(ctx, toRef(v.Shim)); err != nil {
			return fmt.Errorf("end shim: %w", err)
		}
	}
	if err := failpoint.At("n6"); err != nil {
		return err
	}
	p.drop(v.ID)
	if err := p.removeLateCgroup(ctx, v); err != nil {
		return err
	}
	if v.OwnCgroup {
		if err := p.Kernel.Cgroup(v.Cgroup).Remove(ctx); err != nil {
			return fmt.Errorf("remove pod cgroup: %w", err)
		}
	}
	_, err = p.step(v.ID, lifecycle.PodFreed{What: lifecycle.HoldsShim})
	return err
}

// removeLateCgroup removes what a create of the sandbox process that was under way
// to the end has made of its cgroup after that was removed: an OCI runtime makes
// one directory after the other, and dies with the shim.
func (p *Pods) removeLateCgroup(ctx context.Context, v *store.Pod) error {
	if !v.Pause {
		return nil
	}
	_, dir, err := cgroup.Path(v.Cgroup, v.ID, p.CgroupDriver)
	if err == nil {
		err = p.Kernel.Cgroup(dir).Remove(ctx)
	}
	if err != nil {
		return fmt.Errorf("remove what a late create left of the sandbox's cgroup: %w", err)
	}
	return nil
}

// reaped waits a while for the members' tasks to be deleted: a shim that still
// has one refuses to go.
func (p *Pods) reaped(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, endDeadline)
	defer cancel()
	for _, m := range p.Ledger.Members(id) {
		_, _ = p.Ledger.WaitContainer(ctx, m.ID, func(m *store.Container) bool { return !m.State.Dirty })
	}
}

func (p *Pods) freeNet(ctx context.Context, v *store.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, netDeadline)
	defer cancel()
	start := time.Now()
	err := p.Networks.Del(ctx, p.attachment(v, nil), v.Net)
	p.observe("del", start, err)
	if err == nil {
		err = failpoint.At("n4")
	}
	if err != nil {
		return fmt.Errorf("free the pod's network: %w", err)
	}
	_, err = p.step(v.ID, lifecycle.PodFreed{What: lifecycle.HoldsNet})
	return err
}

func (p *Pods) unpin(v *store.Pod) error {
	if err := p.Kernel.Unmount(filepath.Join(p.Dir(v.ID), "shm")); err != nil {
		return err
	}
	// Also one of which the record was never written: it has but one place.
	pin := p.pidPin(v.ID)
	if err := p.Kernel.Unmount(pin); err != nil {
		return err
	}
	if err := os.Remove(pin); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("unpin process namespace: %w", err)
	}
	if err := p.Namespaces.Unpin(p.pins(v.ID)); err != nil {
		return fmt.Errorf("unpin namespaces: %w", err)
	}
	if err := failpoint.At("n5"); err != nil {
		return err
	}
	_, err := p.step(v.ID, lifecycle.PodFreed{What: lifecycle.HoldsNS})
	return err
}

func (p *Pods) erase(ctx context.Context, v *store.Pod) error {
	if err := p.Ledger.FlushPod(ctx, v.ID); err != nil {
		// On a full disk removing is what helps, and cannot wait for room.
		p.Log.Warn("remove a pod sandbox whose record cannot be written", "pod", v.ID, "err", err)
	}
	if err := failpoint.At("m1"); err != nil {
		return err
	}
	dir := p.Dir(v.ID)
	if err := container.RemoveTree(p.Kernel, dir); err != nil {
		return fmt.Errorf("remove pod folder: %w", err)
	}
	if err := failpoint.At("m2"); err != nil {
		return err
	}
	if v.Pause {
		// A create that was cut short may have come after its task was looked for.
		if h, err := p.Handler(v.Handler); err == nil {
			if err := container.RemoveRuntimeState(h.Runtime, v.ID); err != nil {
				return err
			}
		}
	}
	if !v.Shim.Process.Known() {
		// Its start was cut short and may have gone on without us. It finds no
		// bundle any more; what it started before is found by its address.
		if err := p.Host.Kill(ctx, toRef(v.Shim)); err != nil {
			return fmt.Errorf("end a shim that was being started: %w", err)
		}
	}
	return p.Ledger.ErasePod(ctx, v.ID)
}

// Adopt takes up a pod of an earlier run by what the kernel says; it asks no
// shim. Attach connects to the shim later.
func (p *Pods) Adopt(v *store.Pod) {
	if v.Boot != p.Ledger.Boot() {
		_, _ = p.Ledger.StepPod(v.ID, lifecycle.SeenReboot{}, func(v *store.Pod) { v.Boot = p.Ledger.Boot() })
		return
	}
	if v.State.Phase == lifecycle.PodMaking {
		_, _ = p.Ledger.StepPod(v.ID, lifecycle.PodMakeFailed{})
		return
	}
	if v.State.Phase != lifecycle.Ready {
		return
	}
	if gone := p.LostNamespace(v); gone != "" {
		_, _ = p.Ledger.StepPod(v.ID, lifecycle.SeenPodBroken{Why: "a namespace of it is gone: " + gone})
	}
	if p.hasPause(v) && !p.living(v.PauseInit) {
		_, _ = p.Ledger.StepPod(v.ID, lifecycle.SeenPodBroken{Why: "its sandbox process is gone"})
	}
}

// LostNamespace answers which of the pod's namespaces is not pinned any more;
// empty if all are.
func (p *Pods) LostNamespace(v *store.Pod) string {
	for _, ns := range []string{v.NetNS, v.IPCNS, v.UTSNS, v.UserNS, v.PIDNS} {
		if ns == "" {
			continue
		}
		if ok, err := p.Namespaces.IsPinned(ns); err == nil && !ok {
			return filepath.Base(ns)
		}
	}
	return ""
}

// Broken tells the law that something the pod stands on is gone.
func (p *Pods) Broken(id, why string) { _, _ = p.step(id, lifecycle.SeenPodBroken{Why: why}) }

// AdoptShim looks whether the shim of a pod of an earlier run lives. It comes
// after the ends of its containers are known: what ended before the shim did
// was not ended by us.
func (p *Pods) AdoptShim(v *store.Pod) {
	if v.State.Holds&lifecycle.HoldsShim == 0 || p.living(v.Shim.Process) {
		return
	}
	if v.State.Phase == lifecycle.Ready || v.State.Phase == lifecycle.Broken {
		p.Log.Error("the shim of a pod died while crid was down; its containers are killed", "pod", v.ID)
	}
	_, _ = p.Ledger.StepPod(v.ID, lifecycle.SeenPodBroken{Why: lifecycle.WhyShim})
	for _, m := range p.Ledger.Members(v.ID) {
		_, _ = p.Ledger.StepContainer(m.ID, lifecycle.SeenShimGone{})
	}
}

func (p *Pods) living(q store.Process) bool {
	ok, err := container.Alive(p.Kernel, q)
	return err != nil || ok // what cannot be looked at is not dead
}

// Attach connects to the shim of a pod of an earlier run, within a bound. A
// shim that does not answer is kept, to be reached later.
func (p *Pods) Attach(ctx context.Context, v *store.Pod) {
	if v.State.Holds&lifecycle.HoldsShim == 0 || !v.Shim.Process.Known() {
		return
	}
	_, _, _ = p.taking.Do(v.ID, func() (any, error) { p.attach(ctx, v); return nil, nil })
}

func (p *Pods) attach(ctx context.Context, v *store.Pod) {
	if p.Connected(v.ID) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, adoptDeadline)
	defer cancel()
	s, err := p.Host.Adopt(ctx, toRef(v.Shim))
	switch {
	case s != nil:
		if err != nil {
			p.Log.Warn("a shim does not answer; its containers are shown by what the kernel says", "pod", v.ID, "err", err)
		}
		p.keep(v.ID, s)
		if p.hasPause(v) && v.State.Phase == lifecycle.Ready {
			if err := p.watchPause(v.ID, pidfd.Process{Pid: v.PauseInit.Pid, StartTime: v.PauseInit.StartTime}); err != nil {
				_, _ = p.step(v.ID, lifecycle.SeenPodBroken{Why: "its sandbox process is gone"})
			}
		}
	case errors.Is(err, pidfd.ErrGone):
		p.Log.Info("a shim of an earlier run is gone", "pod", v.ID) // AdoptShim tells the law
	default:
		p.Log.Warn("cannot take up a shim; trying again", "pod", v.ID, "err", err)
		p.mu.Lock()
		p.untaken[v.ID] = struct{}{}
		p.mu.Unlock()
		p.attachLater(v.ID)
	}
}

// attachAgain is how long after a failed attempt a shim is tried again. Until
// then nobody is told of its death.
const attachAgain = 5 * time.Second

func (p *Pods) attachLater(id string) {
	time.AfterFunc(attachAgain, func() {
		select {
		case <-p.stop:
			return
		default:
		}
		v, err := p.Ledger.Pod(id)
		p.mu.Lock()
		delete(p.untaken, id)
		p.mu.Unlock()
		if err != nil || v.State.Holds&lifecycle.HoldsShim == 0 {
			return
		}
		if !p.living(v.Shim.Process) {
			p.shimGone(id)
			return
		}
		p.Attach(context.Background(), v)
	})
}

// mountShm makes the pod's /dev/shm.
func (p *Pods) mountShm(dir string, ids *plan.IDMap, label string) error {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return fmt.Errorf("make shm: %w", err)
	}
	if at, err := p.Kernel.Mounts(dir); err == nil && len(at) > 0 {
		return nil
	}
	opts := []string{"noexec", "nosuid", "nodev", "mode=1777", "size=67108864"}
	if ids != nil && len(ids.UIDs) > 0 && len(ids.GIDs) > 0 {
		opts = append(opts, fmt.Sprintf("uid=%d", ids.UIDs[0].HostID), fmt.Sprintf("gid=%d", ids.GIDs[0].HostID))
	}
	if label != "" {
		opts = append(opts, `context="`+label+`"`)
	}
	if err := p.Kernel.Mount([]image.Mount{{Type: "tmpfs", Source: "shm", Options: opts}}, dir); err != nil {
		return fmt.Errorf("mount shm: %w", err)
	}
	return nil
}

func joined(s []string) string { return strings.Join(s, " ") }
