package soak

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// kubelet brings what is there to what is desired, as a kubelet does: a worker for each slot, one call at a time in it, from lists and from no memory
// of what was called before.
type kubelet struct {
	*node
	*timeline
	known *known
	seed  uint64
	life  time.Duration
	calm  atomic.Bool // nothing new is desired, and no caller is impatient
	empty atomic.Bool // nothing is desired any more
	slots []*slot
	wait  sync.WaitGroup
}

// slot is a place for a pod: when one has gone, another comes.
type slot struct {
	number int
	rng    *rand.Rand
	mu     sync.Mutex
	pod    *pod
}

func (s *slot) current() *pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pod
}

func (s *slot) set(p *pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pod = p
}

// desired are the pods of now.
func (k *kubelet) desired() []*pod {
	var pods []*pod
	for _, s := range k.slots {
		if p := s.current(); p != nil {
			pods = append(pods, p)
		}
	}
	return pods
}

func (k *kubelet) run(ctx context.Context, slots int) {
	for n := range slots {
		s := &slot{number: n, rng: rand.New(rand.NewPCG(k.seed, uint64(n)+100))}
		k.slots = append(k.slots, s)
		k.wait.Go(func() { k.work(ctx, s) })
	}
}

func (k *kubelet) work(ctx context.Context, s *slot) {
	for ctx.Err() == nil {
		p := s.current()
		if p == nil && !k.calm.Load() && !k.empty.Load() {
			p = newPod(k.home, s.rng, s.number, k.life)
			s.set(p)
			k.say("slot %d: pod %s with %s", s.number, p.uid(), p.kinds())
		}
		if p != nil {
			gone, err := k.sync(ctx, s.rng, p)
			if err != nil {
				k.fail(p, err)
			}
			if gone {
				k.forget(p)
				s.set(nil)
			}
		}
		pause(ctx, 700*time.Millisecond+rand.N(600*time.Millisecond))
	}
}

func (p *pod) kinds() []string {
	var kinds []string
	for _, w := range p.workloads {
		kinds = append(kinds, w.name)
	}
	return kinds
}

// fail notes an error of a call. Under faults they are expected; what is not is that they last (calm.go).
func (k *kubelet) fail(p *pod, err error) {
	k.count("error " + status.Code(err).String())
	if text := err.Error(); k.up() > 0 || status.Code(err) != codes.Unavailable {
		k.say("pod %s: %.300s", p.uid(), text)
	}
}

// forget removes what the kubelet made for a pod: its cgroup parent, its logs, its marks.
func (k *kubelet) forget(p *pod) {
	if err := k.home.Forget(p.config); err != nil {
		k.broken("pod %s was removed, and something is left in its cgroup parent: %v", p.uid(), err)
	}
	_ = os.RemoveAll(filepath.Join(k.home.Tmp(), "marks", p.uid()))
	k.count("pods")
	k.say("pod %s is gone", p.uid())
}

// patience is how long a kubelet waits for a call; now and then the caller goes away much earlier.
func (k *kubelet) patience(ctx context.Context, rng *rand.Rand, d time.Duration) (context.Context, context.CancelFunc) {
	if !k.calm.Load() && rng.IntN(25) == 0 {
		d = time.Duration(10+rng.IntN(400)) * time.Millisecond
		k.count("impatient callers")
	}
	return context.WithTimeout(ctx, d)
}

// sync makes one round for a pod, and tells whether it is gone.
func (k *kubelet) sync(ctx context.Context, rng *rand.Rand, p *pod) (gone bool, err error) {
	sandboxes, containers, err := k.look(ctx, p)
	if err != nil {
		return false, err
	}
	if k.empty.Load() || (!k.calm.Load() && time.Now().After(p.until)) || p.leaving.Load() {
		p.leaving.Store(true)
		return k.teardown(ctx, rng, p, sandboxes, containers)
	}
	if len(sandboxes) == 0 || sandboxes[0].GetState() != runtimeapi.PodSandboxState_SANDBOX_READY {
		return false, k.newSandbox(ctx, rng, p, sandboxes, containers)
	}
	var first error
	for _, w := range p.workloads {
		if err := k.syncContainer(ctx, rng, p, w, sandboxes[0], containers); err != nil && first == nil {
			first = err
		}
	}
	if err := k.collect(ctx, rng, p, sandboxes, containers); err != nil && first == nil {
		first = err
	}
	return false, first
}

// look lists what there is of a pod, the newest first.
func (k *kubelet) look(ctx context.Context, p *pod) ([]*runtimeapi.PodSandbox, []*runtimeapi.Container, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	pods, err := k.cri.Pods(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("list pods: %w", err)
	}
	pods = slices.DeleteFunc(pods, func(s *runtimeapi.PodSandbox) bool { return s.GetMetadata().GetUid() != p.uid() })
	slices.SortFunc(pods, func(a, b *runtimeapi.PodSandbox) int {
		return int(b.GetMetadata().GetAttempt()) - int(a.GetMetadata().GetAttempt())
	})
	containers, err := k.cri.Containers(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("list containers: %w", err)
	}
	containers = slices.DeleteFunc(containers, func(c *runtimeapi.Container) bool { return c.GetLabels()["uid"] != p.uid() })
	slices.SortFunc(containers, func(a, b *runtimeapi.Container) int {
		return int(b.GetMetadata().GetAttempt()) - int(a.GetMetadata().GetAttempt())
	})
	return pods, containers, nil
}

// newSandbox ends what is left of the sandbox before, and runs the next.
func (k *kubelet) newSandbox(ctx context.Context, rng *rand.Rand, p *pod, sandboxes []*runtimeapi.PodSandbox, containers []*runtimeapi.Container) error {
	attempt := uint32(0)
	if len(sandboxes) > 0 {
		attempt = sandboxes[0].GetMetadata().GetAttempt() + 1
		k.say("pod %s: sandbox %.12s is not ready", p.uid(), sandboxes[0].GetId())
		if err := k.stopAll(ctx, rng, p, containers); err != nil {
			return err
		}
		if err := k.stopPod(ctx, rng, sandboxes[0].GetId()); err != nil {
			return err
		}
	}
	ctx, cancel := k.patience(ctx, rng, 2*time.Minute)
	defer cancel()
	start := time.Now()
	id, err := k.cri.RunPod(ctx, p.sandbox(attempt), "")
	k.took("RunPodSandbox", time.Since(start))
	if err != nil {
		return fmt.Errorf("run sandbox %d: %w", attempt, err)
	}
	k.count("sandboxes")
	k.say("pod %s: sandbox %.12s runs, attempt %d", p.uid(), id, attempt)
	return nil
}

func latest(containers []*runtimeapi.Container, name, sandbox string) (newest *runtimeapi.Container, attempt uint32) {
	for _, c := range containers {
		if c.GetMetadata().GetName() != name {
			continue
		}
		attempt = max(attempt, c.GetMetadata().GetAttempt()+1)
		if newest == nil && c.GetPodSandboxId() == sandbox {
			newest = c
		}
	}
	return newest, attempt
}

// syncContainer starts a container that is not there, and one that has ended and should not have.
func (k *kubelet) syncContainer(ctx context.Context, rng *rand.Rand, p *pod, w workload, sandbox *runtimeapi.PodSandbox, containers []*runtimeapi.Container) error {
	newest, attempt := latest(containers, w.name, sandbox.GetId())
	switch newest.GetState() {
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		return k.visit(ctx, rng, p, w, newest)
	case runtimeapi.ContainerState_CONTAINER_EXITED:
		if !w.restart {
			return nil
		}
	case runtimeapi.ContainerState_CONTAINER_CREATED:
		if newest != nil && rng.IntN(2) == 0 { // CREATED is the zero value, too
			return k.start(ctx, rng, p, newest.GetId())
		}
		if newest != nil { // its start may be under way still: it goes before another one comes
			if err := k.removeContainer(ctx, rng, p, newest); err != nil {
				return err
			}
		}
	default: // UNKNOWN: it is ended before another takes its place
		return k.removeContainer(ctx, rng, p, newest)
	}
	config, err := p.container(k.home, w, attempt, sandbox.GetId())
	if err != nil {
		return err
	}
	callCtx, cancel := k.patience(ctx, rng, 2*time.Minute)
	start := time.Now()
	id, err := k.cri.Create(callCtx, sandbox.GetId(), config, p.sandbox(sandbox.GetMetadata().GetAttempt()))
	cancel()
	k.took("CreateContainer", time.Since(start))
	if err != nil {
		return fmt.Errorf("create %s %d: %w", w.name, attempt, err)
	}
	k.count("containers")
	k.say("pod %s: %s-%d is %.12s", p.uid(), w.name, attempt, id)
	return k.start(ctx, rng, p, id)
}

func (k *kubelet) start(ctx context.Context, rng *rand.Rand, p *pod, id string) error {
	ctx, cancel := k.patience(ctx, rng, 2*time.Minute)
	defer cancel()
	start := time.Now()
	err := k.cri.StartContainer(ctx, id)
	k.took("StartContainer", time.Since(start))
	if err != nil {
		return fmt.Errorf("start %.12s: %w", id, err)
	}
	k.known.started(id)
	return nil
}
