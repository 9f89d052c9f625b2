package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	oci "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/crid-project/crid/container/cgroup"
	"github.com/crid-project/crid/container/plan"
	"github.com/crid-project/crid/container/plan/signal"
	"github.com/crid-project/crid/failpoint"
	"github.com/crid-project/crid/image"
	"github.com/crid-project/crid/image/user"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

// Create makes a container in a ready pod and answers its id. The making goes
// on if the caller leaves; a retry with the same configuration joins it or gets
// its result. The same name with another configuration, or once it has been
// started, is errdefs.ErrAlreadyExists. A failure leaves nothing and frees the
// name.
func (c *Containers) Create(ctx context.Context, r CreateRequest) (string, error) {
	pod, err := c.Ledger.Pod(r.PodID)
	if err != nil {
		return "", err
	}
	if pod.State.Phase != lifecycle.Ready {
		return "", fmt.Errorf("create container: pod sandbox %s is not ready: %w", pod.ID, errdefs.ErrFailedPrecondition)
	}
	v := &store.Container{ID: store.NewID(), PodID: pod.ID, Name: r.Name, Config: r.Config, Handler: pod.Handler,
		CreatedAt: time.Now().UnixNano(), LogPath: r.Plan.LogPath, TTY: r.Plan.TTY, Stdin: r.Plan.Stdin, StdinOnce: r.Plan.StdinOnce}
	got, mine := c.Ledger.AddContainer(v)
	if !mine {
		return c.join(ctx, got, r)
	}
	failed := make(chan error, 1)
	go func() {
		work, cancel := context.WithTimeout(context.WithoutCancel(ctx), makeDeadline)
		defer cancel()
		failed <- c.make(work, pod, v.ID, r.Plan)
	}()
	select {
	case err := <-failed:
		if err != nil {
			return "", fmt.Errorf("create container: %w", err)
		}
		return v.ID, nil
	case <-ctx.Done():
		return "", waiting("create container", v.ID, ctx.Err())
	}
}

// join answers a retry: the container that has the name, once it is made.
func (c *Containers) join(ctx context.Context, v *store.Container, r CreateRequest) (string, error) {
	if !sameConfig(v.Config, r.Config) {
		return "", fmt.Errorf("create container: the name %q (attempt %d) belongs to container %s, remove that first: %w",
			r.Name.Name, r.Name.Attempt, v.ID, errdefs.ErrAlreadyExists)
	}
	v, err := c.Ledger.WaitContainer(ctx, v.ID, func(v *store.Container) bool { return v.State.Phase != lifecycle.Making })
	switch {
	case isNotFound(err):
		return c.Create(ctx, r)
	case err != nil:
		return "", waiting("create container", r.Name.Name, err)
	case v.State.Phase == lifecycle.Created:
		// What is answered has to survive a crash.
		if err := c.Ledger.FlushContainer(ctx, v.ID); err != nil {
			return "", fmt.Errorf("create container: %w", err)
		}
		return v.ID, nil
	case v.State.Unborn:
		return "", fmt.Errorf("create container: an earlier attempt failed and is being cleared away, try again: %w", errdefs.ErrUnavailable)
	}
	return "", fmt.Errorf("create container: the name %q (attempt %d) belongs to container %s, which was started already: %w",
		r.Name.Name, r.Name.Attempt, v.ID, errdefs.ErrAlreadyExists)
}

func sameConfig(a, b store.Sealed) bool {
	x, err := a.Marshal()
	if err != nil {
		return false
	}
	y, err := b.Marshal()
	return err == nil && bytes.Equal(x, y)
}

// make makes the container or erases what it made of it.
func (c *Containers) make(ctx context.Context, pod *store.Pod, id string, p *plan.Container) error {
	var failed lifecycle.Event = lifecycle.MakeFailed{}
	err := c.furnish(ctx, pod, id, p)
	if err == nil {
		if _, err = c.Ledger.StepContainer(id, lifecycle.Made{}); err == nil {
			// Made, and shown; if that cannot be written it has to go again.
			failed = lifecycle.AskRemove{}
			err = c.Ledger.FlushContainer(ctx, id)
		}
		if err == nil {
			err = failpoint.At("c7")
		}
	}
	if err == nil {
		c.Ledger.AnnounceCreated(id)
		failpoint.Pass("c8")
		c.Tend(id) // a removal may have been asked for meanwhile
		return nil
	}
	c.closeStreams(id)
	if _, stepErr := c.step(id, failed); stepErr == nil {
		// A failed making is rolled back before the caller hears of it.
		wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), rpcDeadline)
		defer cancel()
		_, _ = c.Ledger.WaitContainer(wait, id, func(v *store.Container) bool { return v.State.Phase == lifecycle.Gone })
	}
	return err
}

// furnish does the making, in the order in which one thing needs the other.
func (c *Containers) furnish(ctx context.Context, pod *store.Pod, id string, p *plan.Container) error {
	if err := failpoint.At("c1"); err != nil {
		return err
	}
	img, err := c.Images.Resolve(p.Image)
	if err != nil {
		return fmt.Errorf("image %q: %w (pull it first)", p.Image, err)
	}
	stop, err := stopSignal(p.StopSignal, img.Config.Config.StopSignal)
	if err != nil {
		return err
	}
	kernel := c.Handlers.Kernel(pod.Handler)
	cgPath, cgDir, err := cgroup.Path(pod.Cgroup, id, c.CgroupDriver)
	if err != nil {
		return fmt.Errorf("cgroup parent: %w", err)
	}
	if _, err := c.Ledger.UpdateContainer(id, func(v *store.Container) {
		v.ImageID, v.ImageRef, v.ImageName, v.Cgroup, v.StopSignal = img.ID, imageRef(img), p.Image, cgDir, stop
	}); err != nil {
		return err
	}
	if err := c.Ledger.FlushContainer(ctx, id); err != nil {
		return err
	}
	if err := failpoint.At("c2"); err != nil {
		return err
	}
	if err := c.mountRootfs(ctx, id, img, p); err != nil {
		return err
	}
	facts := plan.Facts{ID: id, PodID: pod.ID, PodName: pod.Name.Name, PodNamespace: pod.Name.Namespace, PodUID: pod.Name.UID,
		Rootfs: c.rootfs(id), CgroupsPath: cgPath, NetNS: pod.NetNS, IPCNS: pod.IPCNS, UTSNS: pod.UTSNS, UserNS: pod.UserNS,
		Image: img.Config.Config, ImageName: p.Image, ImageID: img.ID, Kernel: kernel}
	if v, err := c.Ledger.Container(id); err == nil {
		facts.Name = v.Name.Name
	}
	c.podFiles(pod, &facts)
	if facts.PIDNS, err = c.pidNamespace(ctx, pod, p); err != nil {
		return err
	}
	if err := c.resolveUser(id, img.Config, p, &facts); err != nil {
		return err
	}
	if facts.ImageMounts, err = c.mountImages(ctx, id, p); err != nil {
		return err
	}
	if facts.VolumeDirs, err = c.makeVolumes(id, img.Config.Config, p); err != nil {
		return err
	}
	if err := failpoint.At("c4"); err != nil {
		return err
	}
	for _, dir := range p.HostDirs {
		if err := makeHostDir(dir); err != nil {
			return err
		}
	}
	if err := checkPropagation(p); err != nil {
		return err
	}
	spec, err := p.Spec(facts)
	if err != nil {
		return err
	}
	if err := c.writeBundle(id, spec); err != nil {
		return err
	}
	if err := c.prepareStreams(id); err != nil {
		return err
	}
	return failpoint.At("c6")
}

// resolveUser reads the image's passwd and group in the mounted root.
func (c *Containers) resolveUser(id string, img imagespec.Image, p *plan.Container, facts *plan.Facts) error {
	who, err := c.Users(c.rootfs(id), img.Config.User, user.Want{UID: p.User.UID, GID: p.User.GID, Name: p.User.Name,
		SupplementalGroups: p.User.SupplementalGroups, Strict: p.User.Strict})
	if err != nil {
		return fmt.Errorf("resolve user: %w", err)
	}
	facts.User = oci.User{UID: who.UID, GID: who.GID, AdditionalGids: who.Groups}
	facts.Home = who.Home
	_, err = c.Ledger.UpdateContainer(id, func(v *store.Container) {
		v.UID, v.GID, v.Groups = int64(who.UID), int64(who.GID), make([]int64, 0, len(who.Groups))
		for _, g := range who.Groups {
			v.Groups = append(v.Groups, int64(g))
		}
	})
	return err
}

// pidNamespace answers the process namespace to join; empty: one of its own.
func (c *Containers) pidNamespace(ctx context.Context, pod *store.Pod, p *plan.Container) (string, error) {
	switch p.PID {
	case plan.PIDPod:
		return c.Shims.PIDNamespace(ctx, pod.ID)
	case plan.PIDTarget:
		t, err := c.Ledger.Container(p.TargetID)
		if err != nil {
			return "", fmt.Errorf("namespace_options.target_id: %w", err)
		}
		if t.PodID != pod.ID {
			return "", fmt.Errorf("namespace_options.target_id: container %s is of another pod: %w", t.ID, errdefs.ErrInvalidArgument)
		}
		if alive, err := Alive(c.Kernel, t.Init); err != nil || !alive || t.State.Phase != lifecycle.Running {
			return "", fmt.Errorf("namespace_options.target_id: container %s is not running: %w", t.ID, errdefs.ErrFailedPrecondition)
		}
		return fmt.Sprintf("/proc/%d/ns/pid", t.Init.Pid), nil
	case plan.PIDContainer, plan.PIDNode:
	}
	return "", nil
}

// podFiles names the pod's files that are bound into the container.
func (c *Containers) podFiles(pod *store.Pod, f *plan.Facts) {
	dir := filepath.Join(c.StateDir, "pods", pod.ID)
	f.HostnameFile, f.HostsFile, f.ResolvFile = filepath.Join(dir, "hostname"), filepath.Join(dir, "hosts"), filepath.Join(dir, "resolv.conf")
	if pod.IPCNS == "" {
		f.ShmDir = "/dev/shm"
	} else {
		f.ShmDir = filepath.Join(dir, "shm")
	}
	if b, err := os.ReadFile(f.HostnameFile); err == nil {
		f.Hostname = string(bytes.TrimSpace(b))
	}
}

func (c *Containers) writeBundle(id string, spec *oci.Spec) error {
	b, err := json.Marshal(spec)
	if err != nil {
		return fmt.Errorf("encode OCI spec: %w", err)
	}
	if err := os.WriteFile(filepath.Join(c.Bundle(id), "config.json"), b, 0o600); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	return nil
}

// Spec reads the OCI spec of a container as its runtime sees it.
func (c *Containers) Spec(id string) (*oci.Spec, error) {
	for _, dir := range []string{c.Bundle(id), c.fenced(id)} {
		b, err := os.ReadFile(filepath.Join(dir, "config.json"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read OCI spec: %w", err)
		}
		var s oci.Spec
		if err := json.Unmarshal(b, &s); err != nil {
			return nil, fmt.Errorf("decode OCI spec: %w", err)
		}
		return &s, nil
	}
	return nil, fmt.Errorf("OCI spec of container %s: %w", id, errdefs.ErrNotFound)
}

// stopSignal is the configuration's, else the image's, else SIGTERM.
func stopSignal(config, img string) (int, error) {
	for _, s := range []string{config, img} {
		if s == "" {
			continue
		}
		n, err := signal.Parse(s)
		if err != nil {
			return 0, fmt.Errorf("stop signal: %w", err)
		}
		return int(n), nil
	}
	return 15, nil
}

func imageRef(img image.Image) string {
	if len(img.Digests) > 0 {
		return img.Digests[0]
	}
	return img.ID
}
