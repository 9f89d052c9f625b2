//go:build e2e

package crash

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/harness"
)

// scenes answers how each call is made.
var scenes = map[string]func(*node, run) scene{
	"RunPodSandbox":            func(n *node, r run) scene { return &runPod{pod: pod{node: n, run: r}} },
	"StopPodSandbox":           func(n *node, r run) scene { return &stopPod{pod: pod{node: n, run: r}} },
	"RemovePodSandbox":         func(n *node, r run) scene { return &removePod{pod: pod{node: n, run: r}} },
	"CreateContainer":          func(n *node, r run) scene { return &create{ctr: ctr{pod: pod{node: n, run: r}}} },
	"StartContainer":           func(n *node, r run) scene { return &start{ctr: ctr{pod: pod{node: n, run: r}}} },
	"StopContainer":            func(n *node, r run) scene { return &stop{ctr: ctr{pod: pod{node: n, run: r}}} },
	"RemoveContainer":          func(n *node, r run) scene { return &remove{ctr: ctr{pod: pod{node: n, run: r}}} },
	"UpdateContainerResources": func(n *node, r run) scene { return &update{ctr: ctr{pod: pod{node: n, run: r}}} },
	"ExecSync":                 func(n *node, r run) scene { return &execute{ctr: ctr{pod: pod{node: n, run: r}}} },
	"PullImage":                func(n *node, r run) scene { return &pull{pod: pod{node: n, run: r}} },
	"RemoveImage":              func(n *node, r run) scene { return &removeImage{pod: pod{node: n, run: r}} },
}

// number of a point: 4 for "p4".
func (r run) number() int {
	n, _ := strconv.Atoi(r.at.name[1:])
	return n
}

// pod is a scene with a pod, which has a sandbox process: that form has every step that there is.
type pod struct {
	*node
	run    run
	config *runtimeapi.PodSandboxConfig
	id     string
	before harness.Census
}

func (p *pod) runPod(t *testing.T) {
	t.Helper()
	p.config = harness.SharedPID(p.Home.Pod(p.run.at.name))
	id, err := p.RunPod(t.Context(), p.config, "")
	if err != nil {
		t.Fatal(err)
	}
	p.id = id
}

// whole is the census of a pod that is there: its sandbox process is a moment on the way from the OCI runtime's program to its own.
func (p *pod) whole(t *testing.T) (now harness.Census) {
	t.Helper()
	eventually(t, "the sandbox process is itself", 20*time.Second, func() bool {
		now = p.Census(t.Context())
		return now["process in a cgroup: /pause"] == 1
	})
	return now
}

func (p *pod) over(*testing.T) {}
func (p *pod) retry() bool     { return true }

// shown answers the state of the pod of a scene, or -1 if it is not there. Two of a name fail the test.
func (p *pod) shown(t *testing.T) (state runtimeapi.PodSandboxState, id string) {
	t.Helper()
	pods, err := p.Pods(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	state = -1
	for _, v := range pods {
		if v.GetMetadata().GetUid() == p.config.GetMetadata().GetUid() {
			if state != -1 {
				t.Errorf("two pods of one name: %s and %s", id, v.GetId())
			}
			state, id = v.GetState(), v.GetId()
		}
	}
	return state, id
}

const (
	ready    = runtimeapi.PodSandboxState_SANDBOX_READY
	notReady = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	absent   = -1
)

// works fails the test unless the pod is ready, has its address, and runs containers.
func (p *pod) works(t *testing.T) {
	t.Helper()
	state, id := p.shown(t)
	if state != ready || id != p.id {
		t.Fatalf("the pod is %s (%s), not ready (%s)", state, id, p.id)
	}
	st, err := p.Runtime.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
	if err != nil {
		t.Fatal(err)
	}
	if st.GetStatus().GetNetwork().GetIp() == "" {
		t.Error("a ready pod has no address")
	}
	c, err := p.Run(t.Context(), id, harness.Container("works", "sh", "-c", "ip route | grep -q default && echo on the net; sleep 1000"), p.config)
	if err != nil {
		t.Fatalf("run a container in the pod: %v", err)
	}
	log := p.config.GetLogDirectory() + "/works_0.log"
	eventually(t, "the container finds itself on the network", 20*time.Second, func() bool { return strings.Contains(read(log), "on the net") })
	if st, err := p.Status(t.Context(), c); err != nil || st.GetState() != running {
		t.Errorf("the container is %s (%v)", st.GetState(), err)
	}
}

// RunPodSandbox: F1 to F4, F15, F16.
type runPod struct {
	pod
	ids []string
}

func (s *runPod) set(*testing.T) { s.config = harness.SharedPID(s.Home.Pod(s.run.at.name)) }

func (s *runPod) call(ctx context.Context) error {
	id, err := s.RunPod(ctx, s.config, "")
	if err == nil {
		s.id = id
	}
	return err
}

// Until READY is on record a crash takes everything back, with no call from outside; from then on the pod is there.
func (s *runPod) crashed(t *testing.T, answered bool) {
	state, id := s.shown(t)
	if s.run.number() < 16 {
		if answered {
			t.Error("answered before it was made")
		}
		if state == ready {
			t.Error("a pod that was never made is ready")
		}
		s.settled(t, "by a pod that was never made")
		if state, _ := s.shown(t); state != absent {
			t.Errorf("a pod that was never made is %s", state)
		}
		return
	}
	if state != ready {
		t.Errorf("the pod is %s after the crash, not ready", state)
	}
	s.ids = append(s.ids, id)
}

func (s *runPod) failed(t *testing.T, err error) {
	if err == nil {
		t.Error("the step failed and the call did not")
	}
	if s.run.number() < 17 {
		s.settled(t, "by a call that failed")
		if state, _ := s.shown(t); state != absent {
			t.Errorf("a pod whose making failed is %s", state)
		}
		return
	}
	_, id := s.shown(t)
	s.ids = append(s.ids, id)
}

func (s *runPod) done(t *testing.T) {
	for _, id := range s.ids {
		if id != s.id {
			t.Errorf("the retry gives pod %s, and %s was there", s.id, id)
		}
	}
	s.works(t)
}

// StopPodSandbox: F12, F15, F16.
type stopPod struct{ pod }

func (s *stopPod) set(t *testing.T) {
	s.runPod(t)
	if _, err := s.Run(t.Context(), s.id, harness.Container("member"), s.config); err != nil {
		t.Fatal(err)
	}
}

func (s *stopPod) call(ctx context.Context) error { return s.StopPod(ctx, s.id) }

func (s *stopPod) crashed(t *testing.T, answered bool) {
	if state, _ := s.shown(t); state == absent || answered && state != notReady {
		t.Errorf("the pod is %s (its stop was answered: %t)", state, answered)
	}
}

func (s *stopPod) failed(t *testing.T, err error) { s.crashed(t, err == nil) }

// done: nothing but the record and the writable layers is left, and the address is free.
func (s *stopPod) done(t *testing.T) {
	if state, _ := s.shown(t); state != notReady {
		t.Errorf("the pod is %s after its stop", state)
	}
	containers, err := s.Containers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range containers {
		if c.GetState() != exited {
			t.Errorf("a container of a stopped pod is %s", c.GetState())
		}
	}
	var left []string
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		left = left[:0]
		for _, line := range s.quiet.Leaks(s.Census(t.Context())) {
			for _, kind := range []string{"process in a cgroup", "shim or helper", "address lease", "iptables", "veth", "netns", "mount ", "open file", "goroutine"} {
				if strings.Contains(line, kind) {
					left = append(left, line)
				}
			}
		}
		if len(left) == 0 || time.Now().After(end) {
			break
		}
	}
	for _, line := range left {
		t.Errorf("left behind by a stopped pod: %s", line)
	}
}

// RemovePodSandbox: F11, F15, F16.
type removePod struct{ pod }

func (s *removePod) set(t *testing.T) {
	s.runPod(t)
	if err := s.StopPod(t.Context(), s.id); err != nil {
		t.Fatal(err)
	}
}

func (s *removePod) call(ctx context.Context) error { return s.RemovePod(ctx, s.id) }

func (s *removePod) crashed(t *testing.T, answered bool) {
	if state, _ := s.shown(t); state == ready || answered && state != absent {
		t.Errorf("the pod is %s (its removal was answered: %t)", state, answered)
	}
	s.settled(t, "by a removal that was cut short") // it goes on by itself
}

func (s *removePod) failed(t *testing.T, err error) {
	if state, _ := s.shown(t); state == ready || err == nil && state != absent {
		t.Errorf("the pod is %s (%v)", state, err)
	}
}

func (s *removePod) done(t *testing.T) {
	if state, _ := s.shown(t); state != absent {
		t.Fatalf("the pod is %s after its removal", state)
	}
	id, err := s.RunPod(t.Context(), s.config, "")
	if err != nil {
		t.Fatalf("use the name again: %v", err)
	}
	s.id = id
	s.works(t)
}
