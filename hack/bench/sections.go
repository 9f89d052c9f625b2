package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/images/kit"
)

type bench struct {
	*options
	parties []*party
	table   *table
}

func (b *bench) all(ctx context.Context) error {
	for _, s := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"pod up", b.idleMemory}, // first of all, while nothing has happened
		{"pod up", b.podUp},
		{"exec", b.exec},
		{"burst", b.bursts},
		{"pull", b.pull},
		{"many", b.many},
	} {
		if b.only.String() != "" && !b.only.MatchString(s.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s...\n", s.name)
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// turns calls do so often for each party, in turns, and who begins alternates too.
func (b *bench) turns(times int, do func(p *party) error) error {
	for n := range times {
		for i := range b.parties {
			p := b.parties[(i+n)%len(b.parties)]
			if err := do(p); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	return nil
}

// timed measures one call.
func (b *bench) timed(row string, p *party, do func() error) error {
	start := time.Now()
	err := do()
	b.table.duration(row, p.name, time.Since(start))
	return err
}

// pod is a pod with one container, whose parts are measured under names that begin with what.
func (b *bench) pod(ctx context.Context, p *party, what string, config *runtimeapi.PodSandboxConfig) (string, error) {
	var pod, container string
	sleeper := harness.Container("c", "sleep", "100000")
	sleeper.Linux.SecurityContext.NamespaceOptions.Pid = config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetPid()
	start := time.Now()
	err := b.timed(what+": RunPodSandbox", p, func() (err error) { pod, err = p.RunPod(ctx, config, ""); return })
	if err != nil {
		return "", err
	}
	err = b.timed(what+": CreateContainer", p, func() (err error) { container, err = p.Create(ctx, pod, sleeper, config); return })
	if err != nil {
		return "", err
	}
	if err := b.timed(what+": StartContainer", p, func() error { return p.StartContainer(ctx, container) }); err != nil {
		return "", err
	}
	b.table.duration(what, p.name, time.Since(start))
	return pod, nil
}

func (b *bench) podUp(ctx context.Context) error {
	discard := &bench{options: b.options, parties: b.parties, table: newTable()}
	round := func(b *bench, p *party) error {
		for _, kind := range []string{"pod", "host network pod", "shared PID pod"} {
			config := p.Home.Pod("bench")
			switch kind {
			case "host network pod":
				config = harness.HostNetwork(config)
			case "shared PID pod":
				config = harness.SharedPID(config)
			}
			pod, err := b.pod(ctx, p, kind+" up", config)
			if err != nil {
				return err
			}
			start := time.Now()
			if err := b.timed(kind+" down: StopPodSandbox", p, func() error { return p.StopPod(ctx, pod) }); err != nil {
				return err
			}
			if err := b.timed(kind+" down: RemovePodSandbox", p, func() error { return p.RemovePod(ctx, pod) }); err != nil {
				return err
			}
			b.table.duration(kind+" down", p.name, time.Since(start))
		}
		return nil
	}
	if err := b.turns(2, func(p *party) error { return round(discard, p) }); err != nil { // warm up
		return err
	}
	return b.turns(b.rounds, func(p *party) error { return round(b, p) })
}

func (b *bench) exec(ctx context.Context) error {
	ids := map[*party]string{}
	for _, p := range b.parties {
		config := p.Home.Pod("exec")
		pod, err := p.RunPod(ctx, config, "")
		if err != nil {
			return err
		}
		if ids[p], err = p.Run(ctx, pod, harness.Container("c", "sleep", "100000"), config); err != nil {
			return err
		}
	}
	err := b.turns(b.rounds, func(p *party) error {
		return b.timed("ExecSync true", p, func() error { _, err := p.Exec(ctx, ids[p], "true"); return err })
	})
	if err != nil {
		return err
	}
	for _, p := range b.parties {
		if err := p.RemoveAllPods(ctx); err != nil {
			return err
		}
	}
	return nil
}

// start brings up so many pods, several at a time.
func (b *bench) start(ctx context.Context, p *party, pods int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slots := make(chan struct{}, b.parallel)
	var wait sync.WaitGroup
	for n := range pods {
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			config := p.Home.Pod(fmt.Sprintf("many-%d", n))
			pod, err := p.RunPod(ctx, config, "")
			if err == nil {
				_, err = p.Run(ctx, pod, harness.Container("c", "sleep", "100000"), config)
			}
			if err != nil {
				cancel(err)
			}
		})
	}
	wait.Wait()
	return context.Cause(ctx)
}

func (b *bench) bursts(ctx context.Context) error {
	return b.turns(max(1, b.rounds/10), func(p *party) error {
		err := b.timed(fmt.Sprintf("burst of %d pods, %d at a time", b.burst, b.parallel), p, func() error { return b.start(ctx, p, b.burst) })
		if err != nil {
			return err
		}
		return b.timed(fmt.Sprintf("removal of %d pods, one by one", b.burst), p, func() error { return p.RemoveAllPods(ctx) })
	})
}

func (b *bench) pull(ctx context.Context) error {
	return b.turns(b.pulls, func(p *party) error {
		err := b.timed("pull of 40 layers, 160 MB", p, func() error { _, err := p.Pull(ctx, kit.Layers); return err })
		if err != nil {
			return err
		}
		return b.timed("removal of that image", p, func() error {
			_, err := p.Images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: kit.Layers}})
			return err
		})
	})
}

// idleMemory starts each daemon anew, so that nothing but its own start is in its memory.
func (b *bench) idleMemory(ctx context.Context) error {
	for _, p := range b.parties {
		if err := p.Stop(); err != nil {
			return err
		}
		if err := p.Start(ctx); err != nil {
			return err
		}
	}
	time.Sleep(3 * time.Second) // what the start itself leaves is returned by then, or is not
	for _, p := range b.parties {
		if err := b.table.memory("daemon idle", p.name, p.Pid()); err != nil {
			return err
		}
	}
	return nil
}
