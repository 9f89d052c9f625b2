package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/chaos"
	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/images/kit"
	"github.com/crid-project/crid/e2e/project"
)

// row is what was found.
type row struct {
	fault, runtime      string
	early, late         string // what CRI says 2 s and 30 s after the fault
	code, call, removal string
	leaks               []string
}

func (r row) String() string {
	return fmt.Sprintf("%-10s  %s: %s; %s; code %s; %s; removal %s; left %s", r.runtime, r.fault, r.early, r.late, r.code, r.call, r.removal, r.left())
}

// subject is a daemon with one pod and one container in it, about to be hurt.
type subject struct {
	*harness.Daemon
	cri       *harness.CRI // survives restarts of the daemon
	runc, cni *chaos.Poser
	config    *runtimeapi.PodSandboxConfig
	pod, id   string
	init      harness.Proc
	shim      harness.Proc

	mu    sync.Mutex
	call  string   // how a call ended that belongs to the fault
	heals []func() // what ends the fault
}

func (s *subject) said(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.call = text
}

func (s *subject) onHeal(f func()) { s.heals = append(s.heals, f) }

// workload exits with 42 on SIGUSR1, and with 0 on SIGTERM.
const workload = "trap 'exit 42' USR1; trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done"

// try makes one trial.
func try(ctx context.Context, f fault, runtime, registry string) (r row, err error) {
	ctx, cancel := context.WithTimeout(ctx, 6*time.Minute)
	defer cancel()
	s, err := newSubject(ctx, f, runtime, registry)
	if s != nil && s.Daemon != nil {
		defer func() { err = errors.Join(err, s.end()) }()
	}
	if err != nil {
		return row{}, err
	}
	before := s.Census(ctx)
	if !f.noPod {
		if err := s.up(ctx, f); err != nil {
			return row{}, err
		}
	}
	if err := f.inject(ctx, s); err != nil {
		return row{}, fmt.Errorf("inject: %w", err)
	}
	r = row{fault: f.name, runtime: runtime}
	start := time.Now()
	time.Sleep(2 * time.Second)
	r.early, _ = f.observe(ctx, s)
	time.Sleep(time.Until(start.Add(30 * time.Second)))
	r.late, r.code = f.observe(ctx, s)
	r.removal = s.remove(ctx)
	s.mu.Lock()
	r.call = s.call
	s.mu.Unlock()
	if r.call == "" {
		r.call = "-"
	}
	r.leaks = slices.DeleteFunc(s.Settle(ctx, before, 10*time.Second), func(l string) bool {
		return strings.HasSuffix(l, "/quarantine") /* kept for people to look at */ || !slices.ContainsFunc(kinds, func(k [2]string) bool { return strings.Contains(l, k[0]) })
	})
	return r, nil
}

// newSubject starts a daemon whose runc and bridge plugin are posers, and lets a first pod make what is made for good.
func newSubject(ctx context.Context, f fault, runtime, registry string) (*subject, error) {
	home, err := harness.NewHome(harness.Full)
	if err != nil {
		return nil, err
	}
	s := &subject{}
	if err := s.furnish(ctx, home, f, runtime, registry); err != nil {
		if s.Daemon == nil {
			return nil, errors.Join(err, home.Remove())
		}
		return s, err
	}
	return s, nil
}

func (s *subject) furnish(ctx context.Context, home *harness.Home, f fault, runtime, registry string) error {
	for _, p := range []struct {
		poser **chaos.Poser
		real  string
		pose  func(dir, program string) (*chaos.Poser, error)
	}{{&s.runc, "runc", chaos.NewRunc}, {&s.cni, "cni/bridge", chaos.NewPlugin}} {
		program, err := project.Bin(p.real)
		if err != nil {
			return err
		}
		if *p.poser, err = p.pose(home.Tmp(), program); err != nil {
			return err
		}
	}
	if f.smallDisks {
		if err := errors.Join(chaos.SmallDisk(home.Root(), "192m"), chaos.SmallDisk(home.State(), "64m")); err != nil {
			return err
		}
	}
	err := errors.Join(chaos.Pose(filepath.Join(home.CNIConf(), "10-"+home.Name+".conflist")), kit.WriteHosts(home.Certs(), registry))
	if err != nil {
		return err
	}
	var kind harness.Kind = harness.Crid{Level: "info", Runc: s.runc.Path, Plugins: home.Tmp()}
	if runtime == "containerd" {
		kind = harness.Containerd{Runc: s.runc.Path, Plugins: home.Tmp()}
	}
	if s.Daemon, err = harness.Launch(ctx, home, kind); err != nil {
		return err
	}
	if s.cri, err = harness.Dial(home.Socket()); err != nil {
		return err
	}
	if err := errors.Join(s.cri.Have(ctx, kit.Busybox), s.cri.Have(ctx, kit.Pause)); err != nil {
		return err
	}
	warm := home.Pod("warm-up")
	pod, err := s.cri.RunPod(ctx, warm, "")
	if err != nil {
		return err
	}
	_, err = s.cri.Run(ctx, pod, harness.Container("warm-up"), warm)
	return errors.Join(err, s.cri.RemovePodFully(ctx, pod), home.Forget(warm))
}

// up runs the pod and its container, and finds their processes.
func (s *subject) up(ctx context.Context, f fault) error {
	s.config = s.Home.Pod("subject")
	var err error
	if s.pod, err = s.cri.RunPod(ctx, s.config, ""); err != nil {
		return err
	}
	script, memory := workload, int64(0)
	if f.script != "" {
		script, memory = f.script, 32<<20
	}
	config := harness.Container("main", "sh", "-c", script)
	if memory > 0 {
		config.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: memory}
	}
	if s.id, err = s.cri.Run(ctx, s.pod, config, s.config); err != nil {
		return err
	}
	if f.script != "" {
		return nil // it may be gone already
	}
	return s.find(ctx)
}

func (s *subject) find(ctx context.Context) error {
	v, err := s.cri.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: s.id, Verbose: true})
	if err != nil {
		return err
	}
	var info struct {
		Pid int `json:"pid"`
	}
	if err := json.Unmarshal([]byte(v.GetInfo()["info"]), &info); err != nil {
		return err
	}
	var there bool
	if s.init, there = harness.Find(info.Pid); !there {
		return fmt.Errorf("the container has no process %d", info.Pid)
	}
	shims := s.Home.Shims()
	if len(shims) != 1 {
		return fmt.Errorf("%d shims for one pod", len(shims))
	}
	s.shim = shims[0]
	return nil
}

// container is what CRI says of the container, with a word if the kernel says otherwise, and its exit code.
func container(ctx context.Context, s *subject) (text, code string) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	list, err := s.cri.Containers(ctx)
	if err != nil {
		return "no answer (" + word(err) + ")", "-"
	}
	at := slices.IndexFunc(list, func(c *runtimeapi.Container) bool { return c.GetId() == s.id })
	if at < 0 {
		text = "not listed"
	} else {
		text = strings.TrimPrefix(list[at].GetState().String(), "CONTAINER_")
	}
	lives := s.init.Pid != 0 && s.init.Lives() || len(harness.ProcsIn(s.Home.CgroupsOf(s.id))) > 0
	switch {
	case text == "RUNNING" && !lives:
		text = "**RUNNING, and dead**"
	case text != "RUNNING" && lives:
		text = "**" + text + ", and alive**"
	}
	code = "-"
	if st, err := s.cri.Status(ctx, s.id); err == nil && st.GetState() == runtimeapi.ContainerState_CONTAINER_EXITED {
		code = fmt.Sprint(st.GetExitCode())
		if r := st.GetReason(); r != "Completed" && r != "Error" && r != "" {
			code += " " + r
		}
	}
	return text, code
}

// sandbox is what CRI says of the pod.
func sandbox(ctx context.Context, s *subject) (text, code string) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	list, err := s.cri.Pods(ctx)
	if err != nil {
		return "no answer (" + word(err) + ")", "-"
	}
	var states []string
	for _, p := range list {
		if p.GetMetadata().GetUid() == s.config.GetMetadata().GetUid() {
			states = append(states, strings.TrimPrefix(p.GetState().String(), "SANDBOX_"))
		}
	}
	if len(states) == 0 {
		return "no pod", "-"
	}
	slices.Sort(states)
	return "pod " + strings.Join(states, ", another "), "-"
}

// remove takes everything away as a kubelet does: first while the fault lasts, then after it.
func (s *subject) remove(ctx context.Context) string {
	first, cancel := context.WithTimeout(ctx, 20*time.Second)
	text := timed(func() error { return s.clear(first) })
	cancel()
	for _, heal := range slices.Backward(s.heals) {
		heal()
	}
	if strings.HasPrefix(text, "ok") {
		return text
	}
	start := time.Now()
	var err error
	for time.Since(start) < time.Minute {
		again, cancel := context.WithTimeout(ctx, 20*time.Second)
		err = s.clear(again)
		cancel()
		if err == nil {
			return fmt.Sprintf("%s; when it was over: ok, %.1f s", text, time.Since(start).Seconds())
		}
		time.Sleep(time.Second)
	}
	return fmt.Sprintf("%s; a minute after it was over: **%s**", text, word(err))
}

func (s *subject) clear(ctx context.Context) error {
	pods, err := s.cri.Pods(ctx)
	if err != nil {
		return err
	}
	for _, p := range pods {
		if err := s.cri.RemovePodFully(ctx, p.GetId()); err != nil {
			return err
		}
	}
	containers, err := s.cri.Containers(ctx)
	for _, c := range containers { // of a pod that is not listed
		err = errors.Join(err, s.cri.StopContainer(ctx, c.GetId(), 0), s.cri.RemoveContainer(ctx, c.GetId()))
	}
	return err
}

func (s *subject) end() error {
	if s.cri != nil {
		s.cri.Close()
	}
	_ = s.Kill() // the home's end takes what is left
	return s.Home.Remove()
}

// word is an error as short as a table wants it.
func word(err error) string {
	st, ok := status.FromError(err)
	if !ok {
		return fmt.Sprintf("%.60s", err)
	}
	text := st.Message()
	for _, known := range []string{"is reserved", "already exists", "no space left on device", "not ready"} {
		if strings.Contains(text, known) {
			return st.Code().String() + " (" + known + ")"
		}
	}
	return st.Code().String()
}

// kinds of what can be left, as the census and as the table name them.
var kinds = [][2]string{{"process in a cgroup", "process"}, {"shim or helper", "shim"}, {"mount ", "mount"}, {"cgroup /", "cgroup"}, {"veth ", "veth"}, {"address lease", "lease"},
	{"iptables", "iptables rule"}, {"folder ", "folder"}, {"fifo ", "fifo"}, {"socket ", "socket"}}

// left counts what was left behind.
func (r row) left() string {
	count := map[string]int{}
	for _, l := range r.leaks {
		for _, k := range kinds {
			if strings.Contains(l, k[0]) {
				n := 1
				_, _ = fmt.Sscanf(l, "+ %d times", &n)
				count[k[1]] += n
				break
			}
		}
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(count)) {
		n, plural := count[name], ""
		if n > 1 {
			plural = "s"
			if name == "process" {
				plural = "es"
			}
		}
		out = append(out, fmt.Sprintf("%d %s%s", n, name, plural))
	}
	if len(out) == 0 {
		return "nothing"
	}
	return "**" + strings.Join(out, ", ") + "**"
}
