package main

import (
	"context"
	"fmt"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// many measures what depends on how many pods are up: lists, statistics, memory, restart.
func (b *bench) many(ctx context.Context) error {
	for _, p := range b.parties {
		if err := b.start(ctx, p, b.pods); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	if err := b.calls(ctx); err != nil {
		return err
	}
	time.Sleep(3 * time.Second)
	for _, p := range b.parties {
		if err := b.table.memory(fmt.Sprintf("daemon with %d pods", b.pods), p.name, p.Pid()); err != nil {
			return err
		}
		b.table.helpers(fmt.Sprintf("daemon, shims and pauses of %d pods", b.pods), p.name, p.Pid(), p.Home)
	}
	if err := b.restarts(ctx); err != nil {
		return err
	}
	return b.turns(1, func(p *party) error { return p.RemoveAllPods(ctx) })
}

// calls are those that a kubelet makes all the time.
func (b *bench) calls(ctx context.Context) error {
	one := map[*party][2]string{}
	for _, p := range b.parties {
		containers, err := p.Containers(ctx)
		if err != nil {
			return err
		}
		if len(containers) == 0 {
			return fmt.Errorf("%s lists no container", p.name)
		}
		one[p] = [2]string{containers[0].GetPodSandboxId(), containers[0].GetId()}
	}
	with := fmt.Sprintf(" (%d pods)", b.pods)
	for _, call := range []struct {
		name string
		do   func(p *party) error
	}{
		{"ListPodSandbox", func(p *party) error { _, err := p.Pods(ctx); return err }},
		{"ListContainers", func(p *party) error { _, err := p.Containers(ctx); return err }},
		{"PodSandboxStatus", func(p *party) error {
			_, err := p.Runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: one[p][0]})
			return err
		}},
		{"ContainerStatus", func(p *party) error { _, err := p.Status(ctx, one[p][1]); return err }},
		{"ListContainerStats", func(p *party) error {
			_, err := p.Runtime.ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{})
			return err
		}},
		{"ListPodSandboxStats", func(p *party) error {
			_, err := p.Runtime.ListPodSandboxStats(ctx, &runtimeapi.ListPodSandboxStatsRequest{})
			return err
		}},
		{"ImageFsInfo", func(p *party) error {
			_, err := p.Images.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{})
			return err
		}},
	} {
		err := b.turns(b.rounds, func(p *party) error {
			return b.timed(call.name+with, p, func() error { return call.do(p) })
		})
		if err != nil {
			return fmt.Errorf("%s: %w", call.name, err)
		}
	}
	return nil
}

// restarts kills each daemon and measures from its start to the first list in which all pods and containers are as they were.
func (b *bench) restarts(ctx context.Context) error {
	return b.turns(max(2, b.rounds/10), func(p *party) error {
		if err := p.Kill(); err != nil {
			return err
		}
		return b.timed(fmt.Sprintf("restart to right lists of %d pods", b.pods), p, func() error {
			if err := p.Start(ctx); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			for {
				ready, running, err := b.up(ctx, p)
				if err == nil && ready == b.pods && running == b.pods {
					return nil
				}
				if ctx.Err() != nil {
					return fmt.Errorf("after the restart %d pods are ready and %d containers running, not %d: %w", ready, running, b.pods, err)
				}
				time.Sleep(2 * time.Millisecond)
			}
		})
	})
}

func (b *bench) up(ctx context.Context, p *party) (ready, running int, err error) {
	pods, err := p.Pods(ctx)
	if err != nil {
		return 0, 0, err
	}
	for _, s := range pods {
		if s.GetState() == runtimeapi.PodSandboxState_SANDBOX_READY {
			ready++
		}
	}
	containers, err := p.Containers(ctx)
	for _, c := range containers {
		if c.GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING {
			running++
		}
	}
	return ready, running, err
}
