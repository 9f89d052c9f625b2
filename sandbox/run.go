package sandbox

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"

	"github.com/crid-project/crid/cni/netns"
	"github.com/crid-project/crid/container/cgroup"
	"github.com/crid-project/crid/failpoint"
	"github.com/crid-project/crid/sandbox/plan"
	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

// RunRequest is what RunPodSandbox asks for.
type RunRequest struct {
	Config  store.Sealed
	Plan    *plan.Pod
	Handler string
}

// Run makes a pod sandbox and answers its id once it is ready. The making goes
// on if the caller leaves; a retry with the same name and configuration joins
// it or gets its result. A failure gives everything back and frees the name.
func (p *Pods) Run(ctx context.Context, r RunRequest) (string, error) {
	h, err := p.Handler(r.Handler)
	if err == nil && h.Refused != nil {
		err = h.Refused()
	}
	if err != nil {
		return "", err
	}
	w := r.Plan
	v := &store.Pod{ID: store.NewID(), Handler: r.Handler, Config: r.Config, CreatedAt: time.Now().UnixNano(),
		Name:  store.PodName{Name: w.Name, Namespace: w.Namespace, UID: w.UID, Attempt: w.Attempt},
		Pause: w.PodPID || h.Pause}
	if err := p.lay(v, w, h); err != nil {
		return "", err
	}
	got, mine := p.Ledger.AddPod(v)
	if !mine {
		return p.join(ctx, got, r)
	}
	failed := make(chan error, 1)
	go func() {
		work, cancel := context.WithTimeout(context.WithoutCancel(ctx), makeDeadline)
		defer cancel()
		failed <- p.make(work, v.ID, w, h)
	}()
	select {
	case err := <-failed:
		if err != nil {
			return "", fmt.Errorf("run pod sandbox: %w", err)
		}
		return v.ID, nil
	case <-ctx.Done():
		return "", fmt.Errorf("run pod sandbox %s: still under way, a retry joins it: %w", w.Name, ctx.Err())
	}
}

// join answers a retry: the pod that has the name, once it is made.
func (p *Pods) join(ctx context.Context, v *store.Pod, r RunRequest) (string, error) {
	if !same(v.Config, r.Config) || v.Handler != r.Handler {
		return "", fmt.Errorf("run pod sandbox: the name %s/%s (uid %s, attempt %d) belongs to pod sandbox %s with another configuration, remove that first: %w",
			v.Name.Namespace, v.Name.Name, v.Name.UID, v.Name.Attempt, v.ID, errdefs.ErrAlreadyExists)
	}
	got, err := p.Ledger.WaitPod(ctx, v.ID, func(v *store.Pod) bool {
		return v.State.Phase != lifecycle.PodMaking && (!v.State.Unborn || v.State.Phase == lifecycle.PodGone)
	})
	switch {
	case isNotFound(err) || err == nil && got.State.Phase == lifecycle.PodGone:
		return p.Run(ctx, r)
	case err != nil:
		return "", fmt.Errorf("run pod sandbox %s: still under way, a retry joins it: %w", v.Name.Name, err)
	case got.State.Phase == lifecycle.Ready:
		// What is answered has to survive a crash.
		if err := p.Ledger.FlushPod(ctx, got.ID); err != nil {
			return "", fmt.Errorf("run pod sandbox: %w", err)
		}
		return got.ID, nil
	}
	return "", fmt.Errorf("run pod sandbox: the name %s/%s (uid %s, attempt %d) belongs to pod sandbox %s, which is %s, remove that first: %w",
		v.Name.Namespace, v.Name.Name, v.Name.UID, v.Name.Attempt, v.ID, got.State.Phase, errdefs.ErrAlreadyExists)
}

func same(a, b store.Sealed) bool {
	x, err := a.Marshal()
	if err != nil {
		return false
	}
	y, err := b.Marshal()
	return err == nil && bytes.Equal(x, y)
}

// lay lays out where everything of the pod will be, before any of it is made.
func (p *Pods) lay(v *store.Pod, w *plan.Pod, h Handler) error {
	pins := netns.Paths(p.pins(v.ID), nsSpec(w))
	v.NetNS, v.IPCNS, v.UTSNS, v.UserNS = pins.Net, pins.IPC, pins.UTS, pins.User
	parent := w.CgroupParent
	if parent == "" {
		v.OwnCgroup = true
		parent = filepath.Join(p.CgroupParent, v.ID)
		if p.CgroupDriver == cgroup.Systemd {
			parent = strings.TrimSuffix(cgroup.Slice(p.CgroupParent), ".slice") + "-" + v.ID[:32] + ".slice"
		}
	}
	dir, err := cgroup.ParentDir(parent, p.CgroupDriver)
	if err != nil {
		return fmt.Errorf("linux.cgroup_parent: %w", err)
	}
	v.Cgroup = dir
	v.Shim = toStore(p.Host.Predict(p.launchOf(v.ID, h)))
	return nil
}

func (p *Pods) launchOf(id string, h Handler) shimclient.Launch {
	return shimclient.Launch{ID: id, Bundle: p.Dir(id), Runtime: h.Runtime}
}

func nsSpec(w *plan.Pod) netns.Spec {
	s := netns.Spec{Net: !w.HostNetwork, UTS: !w.HostNetwork, IPC: !w.HostIPC, Hostname: w.Hostname, Sysctls: w.Sysctls}
	if w.UserNS != nil {
		s.IDMap = &netns.IDMap{UIDs: w.UserNS.UIDs, GIDs: w.UserNS.GIDs}
	}
	return s
}

// make makes the pod, or gives back what it made of it before it answers. What
// takes too long to give back goes on after the answer, until it is done.
func (p *Pods) make(ctx context.Context, id string, w *plan.Pod, h Handler) error {
	start := time.Now()
	var failed lifecycle.PodEvent = lifecycle.PodMakeFailed{}
	err := p.furnish(ctx, id, w, h)
	if err == nil {
		err = p.broken(id)
	}
	if err == nil {
		if _, err = p.step(id, lifecycle.PodMade{}); err == nil {
			// Made, and shown; if that cannot be written it has to go again.
			failed = lifecycle.AskPodRemove{}
			err = p.Ledger.FlushPod(ctx, id)
		}
		if err == nil {
			err = failpoint.At("p16")
		}
	}
	if err == nil {
		// What broke before the law took it for made was told to nobody.
		if why := p.broken(id); why != nil {
			p.lookAgain(id)
			return why
		}
		return nil
	}
	if _, stepErr := p.step(id, failed); stepErr == nil {
		patience := max(leastRollback, min(rollback, failBy-time.Since(start)))
		wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		_, _ = p.Ledger.WaitPod(wait, id, func(v *store.Pod) bool { return v.State.Phase == lifecycle.PodGone })
	}
	return err
}

// broken answers what a pod that was just made has lost already: it may take
// long to make the one thing while another breaks.
func (p *Pods) broken(id string) error {
	if _, err := p.Of(id); err != nil {
		return err
	}
	v, err := p.Ledger.Pod(id)
	if err != nil {
		return err
	}
	if gone := p.LostNamespace(v); gone != "" {
		return fmt.Errorf("the pod's namespace %s was unmounted while the pod was made: %w", gone, errdefs.ErrUnavailable)
	}
	if v.Pause && !p.living(v.PauseInit) {
		return fmt.Errorf("the pod's sandbox process ended while the pod was made: %w", errdefs.ErrUnavailable)
	}
	return nil
}

// lookAgain tells the law of what broken finds.
func (p *Pods) lookAgain(id string) {
	if _, err := p.Of(id); err != nil {
		p.shimGone(id)
	}
	if v, err := p.Ledger.Pod(id); err == nil {
		if gone := p.LostNamespace(v); gone != "" {
			p.Broken(id, "a namespace of it is gone: "+gone)
		}
		if v.Pause && !p.living(v.PauseInit) {
			p.Broken(id, "its sandbox process is gone")
		}
	}
}

// furnish makes everything of a pod. What is about to be made is on record
// first; the network and the shim, which need nothing of each other, are made
// side by side.
func (p *Pods) furnish(ctx context.Context, id string, w *plan.Pod, h Handler) error {
	if err := failpoint.At("p1"); err != nil {
		return err
	}
	v, err := p.intend(ctx, id, w)
	if err == nil {
		err = failpoint.At("p2")
	}
	if err != nil {
		return err
	}
	if err := p.makeFiles(v, w, h); err != nil {
		return err
	}
	if v.OwnCgroup && p.CgroupDriver != cgroup.Systemd {
		if err := p.Kernel.MakeCgroup(v.Cgroup); err != nil {
			return fmt.Errorf("make pod cgroup: %w", err)
		}
	}
	if _, err := p.Namespaces.New(p.pins(id), nsSpec(w)); err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	if err := failpoint.At("p3"); err != nil {
		return err
	}
	side, sctx := errgroup.WithContext(ctx)
	side.Go(func() error { return p.startShim(sctx, v, w, h) })
	side.Go(func() error { return p.addNet(sctx, v, w) })
	if err := side.Wait(); err != nil {
		return err
	}
	if late := netns.WaitForInterface(w.Sysctls); len(late) > 0 {
		if err := netns.WriteSysctls(netns.Pinned{Net: v.NetNS, IPC: v.IPCNS, UTS: v.UTSNS, User: v.UserNS}, late); err != nil {
			return fmt.Errorf("linux.sysctls: %w", err)
		}
	}
	return nil
}

// intend puts on record all that may be in the world if crid dies from here on.
func (p *Pods) intend(ctx context.Context, id string, w *plan.Pod) (*store.Pod, error) {
	v, err := p.Ledger.Pod(id)
	if err != nil {
		return nil, err
	}
	holds := lifecycle.HoldsNS | lifecycle.HoldsShim
	var intent []byte
	if !w.HostNetwork {
		if intent, err = p.Networks.Prepare(p.attachment(v, w)); err != nil {
			return nil, fmt.Errorf("prepare network: %w", err)
		}
		holds |= lifecycle.HoldsNet
	}
	if v, err = p.Ledger.StepPod(id, lifecycle.PodHold{What: holds}, func(v *store.Pod) { v.Net = intent }); err != nil {
		return nil, err
	}
	return v, p.Ledger.FlushPod(ctx, id)
}

func (p *Pods) addNet(ctx context.Context, v *store.Pod, w *plan.Pod) error {
	if w.HostNetwork {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, netDeadline)
	defer cancel()
	start := time.Now()
	res, err := p.Networks.Add(ctx, p.attachment(v, w), v.Net)
	p.observe("add", start, err)
	if err == nil {
		err = failpoint.At("p5")
	}
	if err != nil {
		return fmt.Errorf("set up the pod's network: %w", err)
	}
	if _, err := p.Ledger.UpdatePod(v.ID, func(v *store.Pod) { v.Net, v.IPs = res.Saved, res.IPs }); err != nil {
		return err
	}
	if err := p.Ledger.FlushPod(ctx, v.ID); err != nil {
		return err
	}
	return failpoint.At("p6")
}

func (p *Pods) observe(op string, start time.Time, err error) {
	if p.Observe != nil {
		p.Observe(op, time.Since(start), err)
	}
}

func (p *Pods) startShim(ctx context.Context, v *store.Pod, w *plan.Pod, h Handler) error {
	s, err := p.Host.Launch(ctx, p.launchOf(v.ID, h))
	if err != nil {
		return fmt.Errorf("start shim: %w", err)
	}
	p.keep(v.ID, s)
	if _, err := p.Ledger.UpdatePod(v.ID, func(v *store.Pod) { v.Shim = toStore(s.Ref()) }); err != nil {
		return err
	}
	if err := p.Ledger.FlushPod(ctx, v.ID); err != nil {
		return err
	}
	if err := failpoint.At("p11"); err != nil {
		return err
	}
	if !v.Pause {
		return nil
	}
	return p.startPause(ctx, s, v, w, h)
}
