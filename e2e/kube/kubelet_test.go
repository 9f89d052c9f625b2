//go:build e2e

package kube

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/hack/kube/pods"
)

// static is one static pod of a standalone kubelet. Its file's name gives the pod's, to which the kubelet adds the node's.
type static struct {
	*node
	name string
}

func (s static) get(ctx context.Context) (*pod, error) {
	all, err := s.pods(ctx)
	if err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].Metadata.Name == s.name+"-"+s.k.Name {
			return &all[i], nil
		}
	}
	return nil, errorf("the kubelet shows no pod %s", s.name)
}

// until waits for a condition of the pod.
func (s static) until(t *testing.T, what string, condition func(*pod) error) *pod {
	t.Helper()
	var last *pod
	await(t, 3*time.Minute, s.name+": "+what, func(ctx context.Context) error {
		p, err := s.get(ctx)
		if err != nil {
			return err
		}
		last = p
		return condition(p)
	})
	return last
}

func (s static) untilReady(t *testing.T) *pod {
	t.Helper()
	return s.until(t, "ready", func(p *pod) error {
		if !p.ready() {
			return errorf("it is %+v", p.Status)
		}
		return nil
	})
}

// remove takes the manifest away and waits until the pod is gone.
func (s static) remove(t *testing.T) {
	t.Helper()
	if err := os.Remove(pods.File(s.name, s.k.Manifests())); err != nil {
		t.Fatal(err)
	}
	s.gone(t)
}

func (s static) gone(t *testing.T) {
	t.Helper()
	// The kubelet's API forgets a static pod at once; what counts is the runtime.
	c := s.cri()
	await(t, 3*time.Minute, s.name+": gone", func(ctx context.Context) error {
		if _, err := s.get(ctx); err == nil {
			return errorf("the kubelet shows it")
		}
		sandboxes, err := c.Pods(ctx)
		if err != nil {
			return err
		}
		for _, p := range sandboxes {
			if p.GetMetadata().GetName() == s.name+"-"+s.k.Name && p.GetState() == runtimeapi.PodSandboxState_SANDBOX_READY {
				return errorf("its sandbox is ready")
			}
		}
		return nil
	})
}

// exec runs a command in a container by CRI.
func (s static) exec(t *testing.T, p *pod, container string, command ...string) string {
	t.Helper()
	c := s.cri()
	r, err := c.Exec(t.Context(), bare(p.container(container).ContainerID), command...)
	if err != nil {
		t.Fatalf("exec in %s: %v", container, err)
	}
	return string(bytes.TrimSpace(r.GetStdout()))
}

// bare is a container's id without "crid://".
func bare(id string) string { return strings.TrimPrefix(id, "crid://") }

func TestKubelet(t *testing.T) {
	n := startNode(t, settings{})
	for _, name := range pods.Names() {
		if err := pods.Write(name, n.k.Manifests(), n.hostDir); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		test func(*testing.T, static)
	}{
		{"duo", twoContainers}, {"init", initAndSidecar}, {"probes", probes}, {"hooks", hooks}, {"grace", gracePeriods},
		{"limits", limits}, {"loop", restartLoop}, {"once", runOnce},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, static{n, c.name}) })
	}
	t.Run("restarts of crid and kubelet", func(t *testing.T) { restartsGoUnnoticed(t, n) })
	t.Run("all are removed", func(t *testing.T) {
		for _, name := range pods.Names() {
			if err := os.Remove(pods.File(name, n.k.Manifests())); err != nil && !os.IsNotExist(err) {
				t.Error(err)
			}
		}
		for _, name := range pods.Names() {
			static{n, name}.gone(t)
		}
	})
}

func twoContainers(t *testing.T, s static) {
	p := s.untilReady(t)
	if got := s.exec(t, p, "writer", "wget", "-qO-", "http://127.0.0.1/index.html"); got != "hello from the writer" {
		t.Errorf("the other container's server says %q", got)
	}
	if p.Status.PodIP == "" || s.exec(t, p, "web", "hostname", "-i") != p.Status.PodIP {
		t.Errorf("the pod's address is %q, inside it is %q", p.Status.PodIP, s.exec(t, p, "web", "hostname", "-i"))
	}
	log := filepath.Join(s.k.Logs(), "default_"+p.Metadata.Name+"_"+p.Metadata.UID, "writer", "0.log")
	if !strings.Contains(read(t, log), "stdout F hello from the writer") {
		t.Errorf("%s has %q", log, read(t, log))
	}
}

func initAndSidecar(t *testing.T, s static) {
	p := s.untilReady(t)
	log := filepath.Join(s.hostDir, "init", "log")
	await(t, time.Minute, "the main container's word", func(context.Context) error {
		if got := read(t, log); got != "first\nsidecar\nmain sees up\n" {
			return errorf("they wrote %q", got)
		}
		return nil
	})
	if first := p.container("first").State.Terminated; first == nil || first.ExitCode != 0 || first.Reason != "Completed" {
		t.Errorf("the init container is %+v", p.container("first").State)
	}
	if p.container("sidecar").State.Running == nil {
		t.Errorf("the sidecar is %+v", p.container("sidecar").State)
	}
	s.remove(t)
	if got := read(t, log); !strings.HasSuffix(got, "main ends\nsidecar ends\n") {
		t.Errorf("at the end they wrote %q: the sidecar ends last", got)
	}
}

func probes(t *testing.T, s static) {
	p := s.until(t, "all but one ready", func(p *pod) error {
		if !p.container("well").Ready || p.container("unready").State.Running == nil {
			return errorf("%+v", p.Status.ContainerStatuses)
		}
		return nil
	})
	if p.container("unready").Ready || p.ready() {
		t.Error("ready although the probe's file is not there")
	}
	s.exec(t, p, "unready", "touch", "/tmp/ready")
	s.until(t, "ready after its file has come", func(p *pod) error {
		if !p.container("unready").Ready {
			return errorf("%+v", p.container("unready"))
		}
		return nil
	})
	s.until(t, "started again by its liveness probe", func(p *pod) error {
		if c := p.container("sick"); c.RestartCount < 1 || c.LastState.Terminated == nil {
			return errorf("%+v", c)
		}
		return nil
	})
	if p, err := s.get(t.Context()); err != nil || p.container("well").RestartCount != 0 {
		t.Errorf("what was well: %+v, %v", p.container("well"), err)
	}
}

func hooks(t *testing.T, s static) {
	s.untilReady(t)
	s.remove(t)
	if got, want := read(t, filepath.Join(s.hostDir, "hooks", "log")), "postStart\npreStop\npreStop done\nTERM\n"; got != want {
		t.Errorf("the hooks wrote %q, not %q", got, want)
	}
}

func gracePeriods(t *testing.T, s static) {
	s.untilReady(t)
	begun := time.Now()
	s.remove(t)
	took := time.Since(begun)
	if took < 5*time.Second {
		t.Errorf("the pod with a container that ignores SIGTERM for 6 s was gone after %s", took)
	}
	if got := read(t, filepath.Join(s.hostDir, "grace", "quick")); strings.Count(got, "TERM") != 1 {
		t.Errorf("the quick one was told %q", got)
	}
	var term, last int
	for line := range strings.Lines(read(t, filepath.Join(s.hostDir, "grace", "deaf"))) {
		f := strings.Fields(line)
		if n, err := strconv.Atoi(f[1]); err == nil {
			if last = n; f[0] == "TERM" {
				term = n
			}
		}
	}
	// What it wrote last came a second before SIGKILL at most, and the clock has seconds.
	if term == 0 || last-term < 4 || last-term > 12 {
		t.Errorf("SIGTERM came at %d, the last sign of life at %d, with 6 s between them granted", term, last)
	}
}

func limits(t *testing.T, s static) {
	p := s.until(t, "the greedy one killed", func(p *pod) error {
		if c := p.container("greedy"); c.LastState.Terminated == nil {
			return errorf("%+v", c)
		}
		return nil
	})
	if last := p.container("greedy").LastState.Terminated; last.Reason != "OOMKilled" || last.ExitCode != 137 {
		t.Errorf("the greedy one ended with %+v", last)
	}
	for file, want := range map[string]string{"memory/memory.limit_in_bytes": "67108864", "cpu/cpu.cfs_quota_us": "25000", "cpu/cpu.shares": "102"} {
		if got := s.cgroupFile(t, p, "main", file); got != want {
			t.Errorf("%s is %q, not %q", file, got, want)
		}
	}
	if p.container("main").RestartCount != 0 || p.Status.QOSClass != "Burstable" {
		t.Errorf("its neighbour: %+v, class %s", p.container("main"), p.Status.QOSClass)
	}
}

func restartLoop(t *testing.T, s static) {
	s.until(t, "started again and again", func(p *pod) error {
		for name, want := range map[string]struct {
			code    int
			message string
		}{"from-file": {3, "ended on purpose\n"}, "from-log": {4, "the last line of the log\n"}} {
			c := p.container(name)
			if c.RestartCount < 3 || c.LastState.Terminated == nil {
				return errorf("%+v", c)
			}
			if last := c.LastState.Terminated; last.ExitCode != want.code || last.Message != want.message {
				t.Fatalf("%s ended with %+v, not with %d and %q", name, *last, want.code, want.message)
			}
		}
		return nil
	})
}

func runOnce(t *testing.T, s static) {
	p := s.until(t, "over", func(p *pod) error {
		if p.Status.Phase != "Failed" {
			return errorf("%s", p.Status.Phase)
		}
		return nil
	})
	if got := p.container("good").State.Terminated; got == nil || got.ExitCode != 0 {
		t.Errorf("the good one: %+v", p.container("good"))
	}
	if got := p.container("bad").State.Terminated; got == nil || got.ExitCode != 7 || got.Reason != "Error" {
		t.Errorf("the bad one: %+v", p.container("bad"))
	}
	log := read(t, filepath.Join(s.k.Logs(), "default_"+p.Metadata.Name+"_"+p.Metadata.UID, "good", "0.log"))
	if !strings.Contains(log, "hello from "+p.Metadata.Name+" at "+p.Status.PodIP) || !strings.Contains(log, "tmpfs") {
		t.Errorf("it wrote %q", log)
	}
}

// restartsGoUnnoticed ends crid and the kubelet in turns, and then both: containers are the same afterwards.
func restartsGoUnnoticed(t *testing.T, n *node) {
	s := static{n, "duo"}
	before := s.untilReady(t)
	for _, what := range []string{"crid killed", "crid stopped", "kubelet", "both"} {
		if what != "kubelet" {
			n.restartCrid(what != "crid stopped")
		}
		if what == "kubelet" || what == "both" {
			if err := n.k.Stop(); err != nil {
				t.Error(err)
			}
			if err := n.k.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		after := s.untilReady(t)
		for _, name := range []string{"web", "writer"} {
			if b, a := before.container(name), after.container(name); a.ContainerID != b.ContainerID || a.RestartCount != b.RestartCount {
				t.Errorf("%s: %s was %s, restarted %d times, and is %s, %d", what, name, b.ContainerID, b.RestartCount, a.ContainerID, a.RestartCount)
			}
		}
		if got := s.exec(t, after, "writer", "wget", "-qO-", "http://127.0.0.1/index.html"); got != "hello from the writer" {
			t.Errorf("%s: the server says %q", what, got)
		}
	}
}

// cgroupFile reads a file of a container's cgroup, named as on v1: "memory/memory.limit_in_bytes".
func (n *node) cgroupFile(t *testing.T, p *pod, container, file string) string {
	t.Helper()
	controller, name, _ := strings.Cut(file, "/")
	pattern := filepath.Join("/sys/fs/cgroup", controller, n.d.Home.Cgroup, "kubepods", "*", "pod"+p.Metadata.UID, bare(p.container(container).ContainerID), name)
	found, _ := filepath.Glob(pattern)
	more, _ := filepath.Glob(strings.Replace(pattern, "/*/", "/", 1)) // guaranteed pods have no class folder
	found = slices.Concat(found, more)
	if len(found) != 1 {
		t.Fatalf("no one file %s: %v", pattern, found)
	}
	return strings.TrimSpace(read(t, found[0]))
}
