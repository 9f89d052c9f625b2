package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// visit is what happens to a container that runs: probes, statistics, a rotation of its log.
func (k *kubelet) visit(ctx context.Context, rng *rand.Rand, p *pod, w workload, c *runtimeapi.Container) error {
	switch dice := rng.IntN(40); {
	case dice < 3:
		return k.probe(ctx, rng, c.GetId())
	case dice == 3:
		ctx, cancel := k.patience(ctx, rng, 30*time.Second)
		defer cancel()
		start := time.Now()
		_, err := k.cri.Runtime.ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{})
		k.took("ListContainerStats", time.Since(start))
		return err
	case dice == 4 && w.kind == "talker":
		return k.rotate(ctx, rng, p, w, c)
	}
	return nil
}

// probe runs a command. What it answers must be right; that it is answered at all is not sure under faults.
func (k *kubelet) probe(ctx context.Context, rng *rand.Rand, id string) error {
	ctx, cancel := k.patience(ctx, rng, 15*time.Second)
	defer cancel()
	code := rng.IntN(4)
	start := time.Now()
	r, err := k.cri.Runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"sh", "-c", fmt.Sprintf("echo said; exit %d", code)}, Timeout: 5})
	k.took("ExecSync", time.Since(start))
	k.count("execs")
	if err != nil {
		return fmt.Errorf("exec in %.12s: %w", id, err)
	}
	if r.GetExitCode() == 137 {
		return nil // the container was killed under it
	}
	if int(r.GetExitCode()) != code || string(r.GetStdout()) != "said\n" {
		k.broken("exec in %.12s answers %d %q, not %d %q", id, r.GetExitCode(), r.GetStdout(), code, "said\n")
	}
	return nil
}

// rotate moves a log aside as a kubelet does.
func (k *kubelet) rotate(ctx context.Context, rng *rand.Rand, p *pod, w workload, c *runtimeapi.Container) error {
	path := filepath.Join(p.config.GetLogDirectory(), title(w.name, c.GetMetadata().GetAttempt(), c.GetPodSandboxId())+".log")
	_ = os.Rename(path, fmt.Sprintf("%s.%d", path, time.Now().UnixNano())) // it is not there if the call after the last rename failed
	ctx, cancel := k.patience(ctx, rng, 20*time.Second)
	defer cancel()
	_, err := k.cri.Runtime.ReopenContainerLog(ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: c.GetId()})
	if err != nil {
		return fmt.Errorf("reopen the log of %.12s: %w", c.GetId(), err)
	}
	return nil
}

// stopAll stops the containers of a pod that may run.
func (k *kubelet) stopAll(ctx context.Context, rng *rand.Rand, p *pod, containers []*runtimeapi.Container) error {
	var errs []error
	for _, c := range containers {
		if c.GetState() == runtimeapi.ContainerState_CONTAINER_EXITED {
			continue
		}
		p.hurt.Store(true) // by us
		ctx, cancel := k.patience(ctx, rng, time.Duration(p.grace)*time.Second+2*time.Minute)
		start := time.Now()
		err := k.cri.StopContainer(ctx, c.GetId(), p.grace)
		cancel()
		k.took("StopContainer", time.Since(start))
		if err != nil {
			errs = append(errs, fmt.Errorf("stop %.12s: %w", c.GetId(), err))
		}
	}
	return errors.Join(errs...)
}

func (k *kubelet) stopPod(ctx context.Context, rng *rand.Rand, id string) error {
	ctx, cancel := k.patience(ctx, rng, 2*time.Minute)
	defer cancel()
	start := time.Now()
	err := k.cri.StopPod(ctx, id)
	k.took("StopPodSandbox", time.Since(start))
	if err != nil {
		return fmt.Errorf("stop sandbox %.12s: %w", id, err)
	}
	return nil
}

func (k *kubelet) removePod(ctx context.Context, rng *rand.Rand, id string) error {
	ctx, cancel := k.patience(ctx, rng, 2*time.Minute)
	defer cancel()
	start := time.Now()
	err := k.cri.RemovePod(ctx, id)
	k.took("RemovePodSandbox", time.Since(start))
	if err != nil {
		return fmt.Errorf("remove sandbox %.12s: %w", id, err)
	}
	return nil
}

func (k *kubelet) removeContainer(ctx context.Context, rng *rand.Rand, p *pod, c *runtimeapi.Container) error {
	k.inspect(ctx, p, c)
	ctx, cancel := k.patience(ctx, rng, 2*time.Minute)
	defer cancel()
	start := time.Now()
	err := k.cri.RemoveContainer(ctx, c.GetId())
	k.took("RemoveContainer", time.Since(start))
	if err != nil {
		return fmt.Errorf("remove %.12s: %w", c.GetId(), err)
	}
	return nil
}

// collect removes containers and sandboxes that newer ones have replaced.
func (k *kubelet) collect(ctx context.Context, rng *rand.Rand, p *pod, sandboxes []*runtimeapi.PodSandbox, containers []*runtimeapi.Container) error {
	var errs []error
	seen := map[string]bool{}
	for _, c := range containers {
		name := c.GetMetadata().GetName()
		if old := seen[name] || c.GetPodSandboxId() != sandboxes[0].GetId(); old && c.GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING {
			errs = append(errs, k.removeContainer(ctx, rng, p, c))
		}
		seen[name] = true
	}
	for _, s := range sandboxes[1:] {
		err := k.stopPod(ctx, rng, s.GetId())
		if err == nil {
			err = k.removePod(ctx, rng, s.GetId())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// teardown takes a pod away, step by step, and tells whether it is gone.
func (k *kubelet) teardown(ctx context.Context, rng *rand.Rand, p *pod, sandboxes []*runtimeapi.PodSandbox, containers []*runtimeapi.Container) (gone bool, err error) {
	if len(sandboxes)+len(containers) == 0 {
		return true, nil
	}
	if err := k.stopAll(ctx, rng, p, containers); err != nil {
		return false, err
	}
	var errs []error
	for _, s := range sandboxes {
		errs = append(errs, k.stopPod(ctx, rng, s.GetId()))
	}
	if err := errors.Join(errs...); err != nil {
		return false, err
	}
	for _, c := range containers {
		errs = append(errs, k.removeContainer(ctx, rng, p, c))
	}
	if err := errors.Join(errs...); err != nil {
		return false, err
	}
	for _, s := range sandboxes {
		errs = append(errs, k.removePod(ctx, rng, s.GetId()))
	}
	return false, errors.Join(errs...)
}
