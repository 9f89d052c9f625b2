package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/chaos"
	"github.com/crid-project/crid/e2e/harness"
)

// monkey breaks things in an order that a seed decides. What it breaks it mends.
type monkey struct {
	*kubelet
	rng  *rand.Rand
	pace time.Duration // mean pause between faults
}

// fault is one kind of them; how often it comes is its weight. do returns when it is mended.
type fault struct {
	name   string
	weight int
	do     func(m *monkey, ctx context.Context, rng *rand.Rand) error
}

// errNobody says that there is nothing to hurt just now.
var errNobody = errors.New("nobody there")

var faults = []fault{
	{"shim killed", 6, (*monkey).killShim},
	{"shim stopped", 6, (*monkey).stopShim},
	{"shim's socket removed, daemon restarted", 1, (*monkey).loseSocket},
	{"daemon killed", 8, func(m *monkey, ctx context.Context, rng *rand.Rand) error { return m.restart(ctx, true, away(rng)) }},
	{"daemon restarted", 3, func(m *monkey, ctx context.Context, rng *rand.Rand) error { return m.restart(ctx, false, away(rng)) }},
	{"daemon stopped for a while", 2, func(m *monkey, ctx context.Context, rng *rand.Rand) error {
		return m.freeze(ctx, time.Second+rand.N(8*time.Second))
	}},
	{"runc misbehaves", 10, (*monkey).twistRunc},
	{"plugin misbehaves", 8, (*monkey).twistPlugin},
	{"disk full", 4, (*monkey).fillDisk},
	{"registry misbehaves", 3, (*monkey).twistRegistry},
	{"cgroup frozen", 4, (*monkey).freezeCgroup},
	{"cgroup removed", 2, (*monkey).evict},
	{"all of a cgroup killed", 3, (*monkey).killCgroup},
	{"first process killed", 5, (*monkey).killInit},
	{"network namespace unmounted", 2, (*monkey).unmountNet},
	{"root file system unmounted", 2, (*monkey).unmountRoot},
}

// away is how long a daemon is down: mostly a moment, sometimes longer than shims keep their events.
func away(rng *rand.Rand) time.Duration {
	switch rng.IntN(12) {
	case 0:
		return 25 * time.Second
	case 1, 2, 3:
		return time.Duration(rng.IntN(8000)) * time.Millisecond
	}
	return time.Duration(rng.IntN(300)) * time.Millisecond
}

// run breaks things for a while; when it returns everything is mended.
func (m *monkey) run(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	total := 0
	for _, f := range faults {
		total += f.weight
	}
	busy := make(chan struct{}, 3) // faults at a time
	done := make(chan struct{})
	life := make(chan struct{}, 1) // the daemon's life is in one hand
	running := 0
	for ctx.Err() == nil {
		dice, f := m.rng.IntN(total), fault{}
		for _, f = range faults {
			if dice -= f.weight; dice < 0 {
				break
			}
		}
		rng := rand.New(rand.NewPCG(m.rng.Uint64(), 1))
		select {
		case busy <- struct{}{}:
			running++
			go func() {
				m.one(ctx, f, rng, life)
				<-busy
				done <- struct{}{}
			}()
		case <-ctx.Done():
		}
		for wait := time.After(m.pace/2 + time.Duration(m.rng.Int64N(int64(m.pace)))); wait != nil; {
			select {
			case <-done:
				running--
			case <-wait:
				wait = nil
			case <-ctx.Done():
				wait = nil
			}
		}
	}
	for ; running > 0; running-- {
		<-done
	}
}

func (m *monkey) one(ctx context.Context, f fault, rng *rand.Rand, life chan struct{}) {
	if strings.Contains(f.name, "daemon") {
		life <- struct{}{}
		defer func() { <-life }()
		if ctx.Err() != nil {
			return
		}
	}
	m.say("fault: %s", f.name)
	err := f.do(m, ctx, rng)
	switch {
	case err == nil:
		m.count("fault " + f.name)
		m.say("fault over: %s", f.name)
	case errors.Is(err, errNobody) || m.up() == 0 || ctx.Err() != nil || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT):
		m.say("fault missed: %s: %v", f.name, err)
	case strings.Contains(f.name, "daemon") && status.Code(err) != codes.Unavailable: // who asks for a victim may come too late
		m.broken("%s: %v", f.name, err)
	default:
		m.say("fault missed: %s: %v", f.name, err)
	}
}

// victim is a container that runs, and what is known of it.
func (m *monkey) victim(ctx context.Context, rng *rand.Rand) (*pod, *runtimeapi.Container, info, error) {
	list, err := m.cri.Containers(ctx)
	if err != nil {
		return nil, nil, info{}, err
	}
	rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	for _, c := range list {
		if c.GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING {
			continue
		}
		for _, p := range m.desired() {
			if p.uid() == c.GetLabels()["uid"] {
				_, i, err := m.verbose(ctx, c.GetId())
				return p, c, i, err
			}
		}
	}
	return nil, nil, info{}, errNobody
}

func (m *monkey) killShim(ctx context.Context, rng *rand.Rand) error {
	p, c, i, err := m.victim(ctx, rng)
	if err != nil {
		return err
	}
	p.hurt.Store(true)
	m.say("  shim %d of pod %s (%.12s)", i.ShimPid, p.uid(), c.GetPodSandboxId())
	return signal(i.ShimPid, "containerd-shim", syscall.SIGKILL)
}

func (m *monkey) stopShim(ctx context.Context, rng *rand.Rand) error {
	p, _, i, err := m.victim(ctx, rng)
	if err != nil {
		return err
	}
	p.hurt.Store(true) // crid may have to do without
	d := time.Second + time.Duration(rng.IntN(15000))*time.Millisecond
	m.say("  shim %d of pod %s for %s", i.ShimPid, p.uid(), d)
	if err := signal(i.ShimPid, "containerd-shim", syscall.SIGSTOP); err != nil {
		return err
	}
	pause(ctx, d)
	_ = signal(i.ShimPid, "containerd-shim", syscall.SIGCONT) // it may have been killed meanwhile
	return nil
}

// loseSocket removes a shim's socket. The pod that has it can be stopped and nothing else, so it is not desired any more.
func (m *monkey) loseSocket(ctx context.Context, rng *rand.Rand) error {
	p, _, i, err := m.victim(ctx, rng)
	if err != nil {
		return err
	}
	path := strings.TrimPrefix(i.ShimAddress, "unix://")
	if !strings.HasPrefix(path, m.home.Dir+"/") {
		return errNobody
	}
	p.hurt.Store(true)
	m.say("  of pod %s", p.uid())
	if err := unix.Unlink(path); err != nil {
		return err
	}
	defer p.leaving.Store(true)
	return m.restart(ctx, true, away(rng))
}

func (m *monkey) twistRunc(ctx context.Context, rng *rand.Rand) error {
	modes := [][2]string{{"create", chaos.Fail}, {"create", chaos.Hang}, {"create", chaos.Slow}, {"create", chaos.Late}, {"create", chaos.Broken}, {"start", chaos.Fail}, {"start", chaos.Hang},
		{"start", chaos.Broken}, {"kill", chaos.Hang}, {"kill", chaos.Fail}, {"kill", chaos.Nothing}, {"delete", chaos.Hang}, {"delete", chaos.Fail}, {"delete", chaos.Nothing}, {"delete", chaos.Late},
		{"exec", chaos.Hang}, {"exec", chaos.Fail}, {"state", chaos.Hang}, {"state", chaos.Garbage}, {"update", chaos.Fail}}
	return m.twist(ctx, rng, m.runc, modes[rng.IntN(len(modes))])
}

func (m *monkey) twistPlugin(ctx context.Context, rng *rand.Rand) error {
	modes := [][2]string{{"ADD", chaos.Fail}, {"ADD", chaos.Hang}, {"ADD", chaos.Slow}, {"ADD", chaos.Late}, {"ADD", chaos.Broken}, {"ADD", chaos.Garbage},
		{"DEL", chaos.Fail}, {"DEL", chaos.Hang}, {"DEL", chaos.Slow}, {"DEL", chaos.Late}, {"DEL", chaos.Broken}}
	return m.twist(ctx, rng, m.plugin, modes[rng.IntN(len(modes))])
}

func (m *monkey) twist(ctx context.Context, rng *rand.Rand, poser *chaos.Poser, mode [2]string) error {
	seconds, d := 1+rng.IntN(8), 2*time.Second+time.Duration(rng.IntN(8000))*time.Millisecond
	m.say("  %s %s (%d s), for %s", mode[0], mode[1], seconds, d)
	if err := poser.Set(mode[0], mode[1], seconds); err != nil {
		return err
	}
	m.count("mode " + mode[0] + " " + mode[1])
	pause(ctx, d)
	return poser.Well()
}

func (m *monkey) twistRegistry(ctx context.Context, rng *rand.Rand) error {
	modes := []string{chaos.Busy, chaos.Reset, chaos.Stall, chaos.Lie}
	mode := modes[rng.IntN(len(modes))]
	m.say("  %s", mode)
	m.registry.Set(mode)
	pause(ctx, 3*time.Second+time.Duration(rng.IntN(9000))*time.Millisecond)
	m.registry.Set("")
	return nil
}

func (m *monkey) fillDisk(ctx context.Context, rng *rand.Rand) error {
	dir := m.home.Root()
	if rng.IntN(2) == 0 {
		dir = m.home.State()
	}
	m.say("  %s", dir)
	release, err := chaos.Fill(dir)
	if err != nil {
		return err
	}
	m.filled(true)
	defer m.filled(false)
	pause(ctx, time.Second+time.Duration(rng.IntN(7000))*time.Millisecond)
	return release()
}

func (m *monkey) killInit(ctx context.Context, rng *rand.Rand) error {
	p, c, i, err := m.victim(ctx, rng)
	if err != nil {
		return err
	}
	init, ok := harness.Find(i.Pid)
	if !ok || init.Start() != i.PidStartTime {
		return errNobody
	}
	p.hurt.Store(true)
	m.say("  %s of pod %s (%.12s)", c.GetMetadata().GetName(), p.uid(), c.GetId())
	return init.Signal(unix.SIGKILL)
}

func (m *monkey) killCgroup(ctx context.Context, rng *rand.Rand) error {
	p, c, _, err := m.victim(ctx, rng)
	if err != nil {
		return err
	}
	p.hurt.Store(true)
	m.say("  of %s of pod %s (%.12s)", c.GetMetadata().GetName(), p.uid(), c.GetId())
	for _, proc := range harness.ProcsIn(m.home.CgroupsOf(c.GetId())) {
		_ = proc.Signal(unix.SIGKILL) // it may have gone with the one before
	}
	return nil
}

func (m *monkey) freezeCgroup(ctx context.Context, rng *rand.Rand) error {
	p, c, _, err := m.victim(ctx, rng)
	if err != nil {
		return err
	}
	p.hurt.Store(true)
	m.say("  of %s of pod %s (%.12s)", c.GetMetadata().GetName(), p.uid(), c.GetId())
	dirs := m.home.CgroupsOf(c.GetId())
	if !chaos.Freeze(dirs) {
		return fmt.Errorf("no freezer: %w", errNobody)
	}
	pause(ctx, time.Second+time.Duration(rng.IntN(9000))*time.Millisecond)
	chaos.Thaw(dirs)
	return nil
}

func (m *monkey) evict(ctx context.Context, rng *rand.Rand) error {
	p, c, _, err := m.victim(ctx, rng)
	if err != nil {
		return err
	}
	if w, _ := p.workload(c.GetMetadata().GetName()); p.shared || w.kind == "glutton" {
		return errNobody // without a cgroup nobody could find what such a container leaves behind, or end its appetite
	}
	p.hurt.Store(true)
	dirs := m.home.CgroupsOf(c.GetId())
	if len(dirs) == 0 {
		return errNobody
	}
	if rng.IntN(2) == 0 {
		dirs = dirs[:1]
	}
	m.say("  %d of %s of pod %s (%.12s)", len(dirs), c.GetMetadata().GetName(), p.uid(), c.GetId())
	var errs []error
	for _, dir := range dirs {
		errs = append(errs, chaos.Evict(dir))
	}
	return errors.Join(errs...)
}

func (m *monkey) unmountNet(ctx context.Context, rng *rand.Rand) error {
	p, c, _, err := m.victim(ctx, rng)
	if err != nil {
		return err
	}
	r, err := m.cri.Runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: c.GetPodSandboxId(), Verbose: true})
	if err != nil {
		return err
	}
	path := parseInfo(r.GetInfo()).Namespaces.Net
	if !strings.HasPrefix(path, m.home.Dir+"/") {
		return errNobody // the host's
	}
	p.hurt.Store(true)
	m.say("  of pod %s (%.12s)", p.uid(), c.GetPodSandboxId())
	return unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
}

func (m *monkey) unmountRoot(ctx context.Context, rng *rand.Rand) error {
	_, c, _, err := m.victim(ctx, rng)
	if err != nil {
		return err
	}
	path := m.home.State() + "/containers/" + c.GetId() + "/rootfs"
	m.say("  of %.12s", c.GetId())
	return unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
}
