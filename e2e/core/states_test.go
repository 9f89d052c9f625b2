//go:build e2e

package core

import (
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/images/kit"
	"github.com/crid-project/crid/e2e/story"
)

// A kubelet decides by these fields: a state it cannot believe makes it restart what runs, or forget what does not.
func TestTheStatusOfEveryState(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("states")
	config := story.Shell("c", "trap 'exit 7' TERM; echo ready; while :; do sleep 1 & wait $!; done")
	config.Labels, config.Annotations = map[string]string{"k": "v"}, map[string]string{"a": "b"}
	c := p.Make(config)

	st := c.WantState(created)
	if st.GetStartedAt() != 0 || st.GetFinishedAt() != 0 || st.GetCreatedAt() == 0 || st.GetExitCode() != 0 || st.GetReason() != "" {
		t.Errorf("created: started %d, finished %d, created %d, code %d, reason %q", st.GetStartedAt(), st.GetFinishedAt(), st.GetCreatedAt(), st.GetExitCode(), st.GetReason())
	}
	c.Start()
	c.Heard("ready")
	st = c.WantState(running)
	if st.GetStartedAt() < st.GetCreatedAt() || st.GetFinishedAt() != 0 {
		t.Errorf("running: created %d, started %d, finished %d", st.GetCreatedAt(), st.GetStartedAt(), st.GetFinishedAt())
	}
	c.Stop(10)
	st = c.WantState(exited)
	if st.GetExitCode() != 7 || st.GetReason() != "Error" || st.GetFinishedAt() < st.GetStartedAt() {
		t.Errorf("exited: code %d, reason %q, started %d, finished %d", st.GetExitCode(), st.GetReason(), st.GetStartedAt(), st.GetFinishedAt())
	}
	if st.GetLabels()["k"] != "v" || st.GetAnnotations()["a"] != "b" || st.GetMetadata().GetName() != "c" || st.GetLogPath() != c.Log() || !strings.HasPrefix(st.GetImageRef(), "") ||
		st.GetImage().GetImage() != kit.Busybox || st.GetImageRef() == "" || st.GetImageId() == "" {
		t.Errorf("the status has lost something: %v", st)
	}
	if err := p.StartContainer(t.Context(), c.ID); err == nil {
		t.Error("a container that has ended is started a second time")
	} else {
		s.WantCode("start of an exited container", err, codes.FailedPrecondition)
	}
	c.Remove()
	_, err := p.Daemon.Status(t.Context(), c.ID)
	s.WantCode("status of a removed container", err, codes.NotFound)

	if st := p.Status(); st.GetState() != runtimeapi.PodSandboxState_SANDBOX_READY || st.GetNetwork().GetIp() == "" || st.GetCreatedAt() == 0 {
		t.Errorf("the pod: %v", st)
	}
	ip := p.Status().GetNetwork().GetIp()
	if err := s.StopPod(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	if st := p.Status(); st.GetState() != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
		t.Errorf("a stopped pod is %s (had address %s)", st.GetState(), ip)
	}
	if err := s.RemovePod(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	_, err = s.Runtime.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: p.ID})
	s.WantCode("status of a removed pod", err, codes.NotFound)
}

// The pod's status carries its containers, so that an evented kubelet sees one moment and not two.
func TestThePodsStatusTellsOfItsContainers(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("whole")
	p.Go(story.Sleeper("one"))
	p.Make(story.Sleeper("two"))
	r, err := s.Runtime.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: p.ID, Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]runtimeapi.ContainerState{}
	for _, c := range r.GetContainersStatuses() {
		got[c.GetMetadata().GetName()] = c.GetState()
	}
	if len(got) != 2 || got["one"] != running || got["two"] != created || r.GetTimestamp() == 0 {
		t.Errorf("containers %v, timestamp %d", got, r.GetTimestamp())
	}
	if !strings.Contains(r.GetInfo()["info"], "pid") {
		t.Errorf("the verbose status tells nothing: %v", r.GetInfo())
	}
}

// List with a filter must not show what the filter leaves out: a kubelet would kill what is not its own.
func TestFilters(t *testing.T) {
	s := story.Begin(t)
	ctx := t.Context()
	a, b := s.Pod("filter-a"), s.Pod("filter-b")
	ca := a.Go(story.Sleeper("ca"))
	config := story.Sleeper("cb")
	config.Labels = map[string]string{"which": "b"}
	cb := b.Make(config)
	for what, f := range map[string]struct {
		filter *runtimeapi.ContainerFilter
		want   []string
	}{
		"none":            {nil, []string{ca.ID, cb.ID}},
		"id":              {&runtimeapi.ContainerFilter{Id: ca.ID}, []string{ca.ID}},
		"prefix of id":    {&runtimeapi.ContainerFilter{Id: ca.ID[:13]}, []string{ca.ID}},
		"pod":             {&runtimeapi.ContainerFilter{PodSandboxId: b.ID}, []string{cb.ID}},
		"state":           {&runtimeapi.ContainerFilter{State: &runtimeapi.ContainerStateValue{State: running}}, []string{ca.ID}},
		"label":           {&runtimeapi.ContainerFilter{LabelSelector: map[string]string{"which": "b"}}, []string{cb.ID}},
		"label of others": {&runtimeapi.ContainerFilter{LabelSelector: map[string]string{"which": "c"}}, nil},
		"id and pod":      {&runtimeapi.ContainerFilter{Id: ca.ID, PodSandboxId: b.ID}, nil},
		"unknown id":      {&runtimeapi.ContainerFilter{Id: unknown}, nil},
	} {
		r, err := s.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: f.filter})
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		got := map[string]bool{}
		for _, c := range r.GetContainers() {
			got[c.GetId()] = true
		}
		if len(got) != len(f.want) {
			t.Errorf("%s: %d containers, not %d", what, len(got), len(f.want))
		}
		for _, id := range f.want {
			if !got[id] {
				t.Errorf("%s: %s is missing", what, id)
			}
		}
	}
	r, err := s.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: map[string]string{"e2e": "filter-a"},
		State: &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY}}})
	if err != nil || len(r.GetItems()) != 1 || r.GetItems()[0].GetId() != a.ID {
		t.Errorf("pods by label and state: %v (%v)", r.GetItems(), err)
	}
}

// Unique prefixes of ids are what people type.
func TestAnIdMayBeCutShort(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("short")
	c := p.Go(story.Sleeper("c"))
	if st, err := s.Status(t.Context(), c.ID[:12]); err != nil || st.GetId() != c.ID {
		t.Errorf("by its first 12 letters the container is %q (%v)", st.GetId(), err)
	}
	if err := s.StopContainer(t.Context(), c.ID[:12], 2); err != nil {
		t.Error(err)
	}
	c.WantState(exited)
}

// A start that cannot work leaves an exited container with the reason, not a created one that a kubelet would start for ever.
func TestAProgramThatIsNotThere(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("missing")
	c := p.Make(harness.Container("c", "/no/such/program"))
	err := s.StartContainer(t.Context(), c.ID)
	if err == nil || !strings.Contains(err.Error(), "/no/such/program") {
		t.Errorf("the error does not name the program: %v", err)
	}
	st := c.WantState(exited)
	if st.GetExitCode() == 0 || st.GetReason() == "" || st.GetReason() == "Completed" || st.GetFinishedAt() == 0 {
		t.Errorf("code %d, reason %q, message %q, finished %d", st.GetExitCode(), st.GetReason(), st.GetMessage(), st.GetFinishedAt())
	}
	if c := p.Go(story.Shell("after", "exit 0")); c.Exited().GetExitCode() != 0 {
		t.Error("after a failed start the pod's next container does not run")
	}
}

// What a container wrote to its own files is gone with it, and a new one begins with the image.
func TestEveryContainerBeginsWithTheImage(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("fresh")
	a := p.Go(story.Shell("a", "echo changed > /etc/passwd; rm /etc/group; touch /new"))
	if a.Exited().GetExitCode() != 0 {
		t.Fatal(a.Said("stderr"))
	}
	b := p.Go(story.Shell("b", "grep -q root /etc/passwd && [ -e /etc/group ] && [ ! -e /new ]"))
	if st := b.Exited(); st.GetExitCode() != 0 {
		t.Error("a container sees what another one wrote")
	}
}

// The environment, the directory and the arguments are the configuration's over the image's.
func TestCommandEnvironmentAndDirectory(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("process")
	config := harness.Container("c", "sh", "-c")
	config.Args = []string{"echo $0 $1 $A-$B; pwd; echo $HOSTNAME; cat /proc/self/oom_score_adj; ulimit -n", "zero", "one"}
	config.Envs = []*runtimeapi.KeyValue{{Key: "A", Value: []byte("x y")}, {Key: "B", Value: []byte("=$C")}}
	config.WorkingDir = "/not/there/yet"
	config.Linux.Resources = &runtimeapi.LinuxContainerResources{OomScoreAdj: 777}
	c := p.Go(config)
	if st := c.Exited(); st.GetExitCode() != 0 {
		t.Fatal(c.Said("stderr"))
	}
	lines := strings.Split(c.Said("stdout"), "\n")
	if lines[0] != "zero one x y-=$C" || lines[1] != "/not/there/yet" || lines[3] != "777" {
		t.Errorf("got %q", lines)
	}
}

// Exited within 2 seconds of the kernel's truth, whoever ended it.
func TestADeathFromOutsideIsSeenAtOnce(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("outside")
	c := p.Go(story.Sleeper("c"))
	proc, err := os.FindProcess(c.Pid())
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Release()
	at := time.Now()
	if err := proc.Kill(); err != nil {
		t.Fatal(err)
	}
	st := c.Exited()
	if took := time.Since(at); took > 2*time.Second {
		t.Errorf("%s until the death is told", took)
	}
	if st.GetExitCode() != 137 || st.GetReason() != "Error" {
		t.Errorf("code %d, reason %q", st.GetExitCode(), st.GetReason())
	}
	if d := time.Unix(0, st.GetFinishedAt()).Sub(at); d < -time.Second || d > 2*time.Second {
		t.Errorf("finished %s after the kill", d)
	}
}
