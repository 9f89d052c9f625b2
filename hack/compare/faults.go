package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/e2e/chaos"
	"github.com/crid-project/crid/e2e/harness"
)

// fault is one kind of trouble. After inject has returned, the clock runs.
type fault struct {
	name       string
	script     string // of a container with 32 MiB, instead of the usual one
	smallDisks bool
	noPod      bool // inject makes it
	inject     func(ctx context.Context, s *subject) error
	look       func(ctx context.Context, s *subject) (text, code string) // default: the container
}

func (f fault) observe(ctx context.Context, s *subject) (text, code string) {
	if f.look != nil {
		return f.look(ctx, s)
	}
	return container(ctx, s)
}

// exit makes the container end with 42.
func (s *subject) exit() error { return s.init.Signal(unix.SIGUSR1) }

// stop asks for the container's end, with two seconds of grace, in the background.
func (s *subject) stop(ctx context.Context) {
	s.said("StopContainer: no answer yet")
	go func() {
		ctx, cancel := context.WithTimeout(ctx, 45*time.Second)
		defer cancel()
		s.said("StopContainer: " + timed(func() error { return s.cri.StopContainer(ctx, s.id, 2) }))
	}()
}

// down kills the daemon, lets something happen, and starts it again after a while.
func (s *subject) down(ctx context.Context, d time.Duration, meanwhile func() error) error {
	if err := s.Kill(); err != nil {
		return err
	}
	time.Sleep(300 * time.Millisecond)
	if err := meanwhile(); err != nil {
		return err
	}
	time.Sleep(d)
	return s.Start(ctx)
}

func (s *subject) stopShim() error {
	s.onHeal(func() { _ = s.shim.Signal(unix.SIGCONT) })
	return s.shim.Signal(unix.SIGSTOP)
}

// twist makes runc or the plugin misbehave until the fault is healed.
func (s *subject) twist(p *chaos.Poser, verb, how string, seconds int) error {
	s.onHeal(func() { _ = p.Well() })
	return p.Set(verb, how, seconds)
}

var faults = []fault{
	{name: "the shim is SIGKILLed", inject: func(_ context.Context, s *subject) error { return s.shim.Signal(unix.SIGKILL) }},
	{name: "the shim is stopped (SIGSTOP), then the container is killed", inject: func(_ context.Context, s *subject) error {
		return errors.Join(s.stopShim(), s.init.Signal(unix.SIGKILL))
	}},
	{name: "the shim is stopped (SIGSTOP), then StopContainer", inject: func(ctx context.Context, s *subject) error {
		err := s.stopShim()
		s.stop(ctx)
		return err
	}},
	{name: "daemon kill -9; the container exits with 42; daemon back after 10 s", inject: func(ctx context.Context, s *subject) error {
		return s.down(ctx, 10*time.Second, s.exit)
	}},
	{name: "daemon kill -9; the container exits with 42; daemon back after 25 s", inject: func(ctx context.Context, s *subject) error {
		return s.down(ctx, 25*time.Second, s.exit)
	}},
	{name: "daemon kill -9, then the shim, too; daemon back after 2 s", inject: func(ctx context.Context, s *subject) error {
		return s.down(ctx, 2*time.Second, func() error { return s.shim.Signal(unix.SIGKILL) })
	}},
	{name: "daemon kill -9; the shim is stopped (SIGSTOP); daemon back after 2 s", inject: func(ctx context.Context, s *subject) error {
		return s.down(ctx, 2*time.Second, s.stopShim)
	}},
	{name: "daemon stopped (SIGSTOP) for 25 s, the container exits with 42 meanwhile", inject: func(_ context.Context, s *subject) error {
		p, there := harness.Find(s.Pid())
		if !there {
			return os.ErrProcessDone
		}
		err := errors.Join(p.Signal(unix.SIGSTOP), s.exit())
		time.Sleep(25 * time.Second)
		return errors.Join(err, p.Signal(unix.SIGCONT))
	}},
	{name: "daemon kill -9; the container's record is cut in half; daemon back", inject: func(ctx context.Context, s *subject) error {
		return s.down(ctx, 0, s.tear)
	}},
	{name: "`runc delete` hangs; the container exits with 42", inject: func(_ context.Context, s *subject) error {
		return errors.Join(s.twist(s.runc, "delete", chaos.Hang, 300), s.exit())
	}},
	{name: "`runc kill` hangs; StopContainer", inject: func(ctx context.Context, s *subject) error {
		err := s.twist(s.runc, "kill", chaos.Hang, 300)
		s.stop(ctx)
		return err
	}},
	{name: "runc's state is wiped; StopContainer", inject: func(ctx context.Context, s *subject) error {
		err := s.wipe()
		s.stop(ctx)
		return err
	}},
	{name: "the cgroup is frozen; StopContainer", inject: func(ctx context.Context, s *subject) error {
		dirs := s.Home.CgroupsOf(s.id)
		if !chaos.Freeze(dirs) {
			return errors.New("no freezer")
		}
		s.onHeal(func() { chaos.Thaw(dirs) })
		s.stop(ctx)
		return nil
	}},
	{name: "all of the cgroup is killed from outside", inject: func(_ context.Context, s *subject) error {
		for _, p := range harness.ProcsIn(s.Home.CgroupsOf(s.id)) {
			_ = p.Signal(unix.SIGKILL) // it may have gone with the first
		}
		return nil
	}},
	{name: "the cgroup is removed, its processes moved out; StopContainer", inject: func(ctx context.Context, s *subject) error {
		var errs []error
		for _, dir := range s.Home.CgroupsOf(s.id) {
			errs = append(errs, chaos.Evict(dir))
		}
		s.stop(ctx)
		return errors.Join(errs...)
	}},
	{name: "the root file system is unmounted; StopContainer", inject: func(ctx context.Context, s *subject) error {
		err := s.unmount(func(path string) bool { return strings.Contains(path, s.id) && strings.HasSuffix(path, "/rootfs") })
		s.stop(ctx)
		return err
	}},
	{name: "the network namespace is unmounted", look: sandbox, inject: func(ctx context.Context, s *subject) error {
		path, err := s.netns(ctx)
		if err != nil {
			return err
		}
		return s.unmount(func(p string) bool { return p == path })
	}},
	{name: "CNI DEL fails for 10 s; StopPodSandbox, again and again", look: sandbox, inject: func(ctx context.Context, s *subject) error {
		err := s.twist(s.cni, "DEL", chaos.Fail, 0)
		time.AfterFunc(10*time.Second, func() { _ = s.cni.Well() })
		go s.stopPod(ctx)
		return err
	}},
	{name: "CNI ADD hangs, the caller leaves after 5 s, the plugin is well again, retry", noPod: true, look: sandbox, inject: hangAdd},
	{name: "daemon kill -9 in the middle of RunPodSandbox, retry", noPod: true, look: sandbox, inject: killInRun},
	{name: "daemon kill -9 in the middle of StartContainer, retry", noPod: true, inject: killInStart},
	{name: "the disks are full; the container exits with 42", smallDisks: true, inject: func(_ context.Context, s *subject) error {
		for _, dir := range []string{s.Home.Root(), s.Home.State()} {
			release, err := chaos.Fill(dir)
			if err != nil {
				return err
			}
			s.onHeal(func() { _ = release() })
		}
		return s.exit()
	}},
	{name: "the disks are full; the container exits with 42; daemon kill -9, and back", smallDisks: true, inject: func(ctx context.Context, s *subject) error {
		for _, dir := range []string{s.Home.Root(), s.Home.State()} {
			release, err := chaos.Fill(dir)
			if err != nil {
				return err
			}
			s.onHeal(func() { _ = release() })
		}
		if err := s.exit(); err != nil {
			return err
		}
		time.Sleep(2 * time.Second)
		return s.down(ctx, time.Second, func() error { return nil })
	}},
	{name: "out of memory: the main process", script: "sleep 1; exec tail /dev/zero", inject: func(context.Context, *subject) error { time.Sleep(time.Second); return nil }},
	{name: "out of memory: a child; the main process then exits with 0", script: "sleep 1; tail /dev/zero; exit 0", inject: func(context.Context, *subject) error { time.Sleep(time.Second); return nil }},
}

// unmount takes away every mount in the home that is meant.
func (s *subject) unmount(meant func(path string) bool) error {
	n := 0
	for _, path := range s.Home.Mounts() {
		if meant(path) {
			if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
				return err
			}
			n++
		}
	}
	if n == 0 {
		return errors.New("there is no such mount")
	}
	return nil
}

// netns is where the pod's network namespace is pinned: both runtimes have it in the namespaces of the container's OCI spec.
func (s *subject) netns(context.Context) (string, error) {
	found := ""
	for _, path := range s.Home.Mounts() {
		if strings.Contains(path, "/net") && strings.HasPrefix(path, s.Home.State()+"/") && !strings.Contains(path, "rootfs") {
			found = path
		}
	}
	if found == "" {
		return "", errors.New("the pod's network namespace is not pinned in the home")
	}
	return found, nil
}

// wipe removes what runc knows of the container.
func (s *subject) wipe() error {
	var found []string
	for _, pattern := range []string{"/state/runc/*/", "/runc/*/", "/state/runc/"} {
		dirs, err := filepath.Glob(s.Home.Dir + pattern + s.id)
		if err != nil {
			return err
		}
		found = append(found, dirs...)
	}
	if len(found) == 0 {
		return errors.New("runc's state is not in the home")
	}
	for _, dir := range found {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// tear cuts the container's record in half: crid's in its ledger, containerd's file with the state.
func (s *subject) tear() error {
	n := 0
	err := filepath.WalkDir(s.Home.Root(), func(path string, entry os.DirEntry, err error) error {
		ledger := strings.Contains(path, "/ledger/") && strings.Contains(path, s.id)
		state := strings.Contains(path, "io.containerd.grpc.v1.cri/containers/"+s.id) && entry != nil && entry.Name() == "status"
		if err != nil || !entry.Type().IsRegular() || !ledger && !state {
			return nil //nolint:nilerr // what vanishes while we look is not it
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		n++
		return os.Truncate(path, info.Size()/2)
	})
	if err == nil && n == 0 {
		err = errors.New("the container has no record in the home")
	}
	return err
}

// stopPod stops the pod until that works, as a kubelet does.
func (s *subject) stopPod(ctx context.Context) {
	start := time.Now()
	for n := 1; time.Since(start) < 40*time.Second; n++ {
		call, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := s.cri.StopPod(call, s.pod)
		cancel()
		if err == nil {
			s.said(fmt.Sprintf("StopPodSandbox: ok in try %d, after %.1f s", n, time.Since(start).Seconds()))
			return
		}
		s.said(fmt.Sprintf("StopPodSandbox: %s in try %d", word(err), n))
		time.Sleep(2 * time.Second)
	}
}

// retry asks for the pod again, by the same name, until it is there.
func (s *subject) retry(ctx context.Context) {
	start := time.Now()
	for n := 1; time.Since(start) < 25*time.Second; n++ {
		call, cancel := context.WithTimeout(ctx, 10*time.Second)
		id, err := s.cri.RunPod(call, s.config, "")
		cancel()
		if err == nil {
			s.pod = id
			s.said(fmt.Sprintf("retry: ok in try %d, after %.1f s", n, time.Since(start).Seconds()))
			return
		}
		s.said(fmt.Sprintf("retry: %s in try %d", word(err), n))
		time.Sleep(2 * time.Second)
	}
}

func hangAdd(ctx context.Context, s *subject) error {
	s.config = s.Home.Pod("subject")
	if err := s.twist(s.cni, "ADD", chaos.Hang, 300); err != nil {
		return err
	}
	call, cancel := context.WithTimeout(ctx, 5*time.Second)
	_, err := s.cri.RunPod(call, s.config, "")
	cancel()
	if err == nil {
		return errors.New("the pod runs without a network")
	}
	if err := s.cni.Well(); err != nil {
		return err
	}
	go s.retry(ctx)
	return nil
}

func killInRun(ctx context.Context, s *subject) error {
	s.config = s.Home.Pod("subject")
	if err := s.twist(s.cni, "ADD", chaos.Late, 3); err != nil { // the address is taken, and nobody has heard of it
		return err
	}
	go func() { _, _ = s.cri.RunPod(ctx, s.config, "") }() // it ends with the daemon
	time.Sleep(2 * time.Second)
	if err := errors.Join(s.Kill(), s.cni.Well(), s.Start(ctx)); err != nil {
		return err
	}
	go s.retry(ctx)
	return nil
}

func killInStart(ctx context.Context, s *subject) error {
	s.config = s.Home.Pod("subject")
	var err error
	if s.pod, err = s.cri.RunPod(ctx, s.config, ""); err != nil {
		return err
	}
	if s.id, err = s.cri.Create(ctx, s.pod, harness.Container("main", "sh", "-c", workload), s.config); err != nil {
		return err
	}
	if err := s.twist(s.runc, "create", chaos.Late, 3); err != nil {
		return err
	}
	go func() { _ = s.cri.StartContainer(ctx, s.id) }() // it ends with the daemon
	time.Sleep(2 * time.Second)
	if err := errors.Join(s.Kill(), s.runc.Well(), s.Start(ctx)); err != nil {
		return err
	}
	go func() {
		call, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		s.said("retry: " + timed(func() error { return s.cri.StartContainer(call, s.id) }))
	}()
	return nil
}
