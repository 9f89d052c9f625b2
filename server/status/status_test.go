package status_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/server/internal/worldtest"
	"github.com/crid-project/crid/server/status"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

const second = int64(time.Second)

func TestAPodIsReadyInOnePhaseOnly(t *testing.T) {
	for phase, want := range map[lifecycle.PodPhase]cri.PodSandboxState{
		lifecycle.PodMaking: cri.PodSandboxState_SANDBOX_NOTREADY, lifecycle.Ready: cri.PodSandboxState_SANDBOX_READY,
		lifecycle.Broken: cri.PodSandboxState_SANDBOX_NOTREADY, lifecycle.Stopping: cri.PodSandboxState_SANDBOX_NOTREADY,
		lifecycle.Stopped: cri.PodSandboxState_SANDBOX_NOTREADY, lifecycle.PodRemoving: cri.PodSandboxState_SANDBOX_NOTREADY,
		lifecycle.PodGone: cri.PodSandboxState_SANDBOX_NOTREADY,
	} {
		if got := status.PodState(&store.Pod{State: lifecycle.Pod{Phase: phase}}); got != want {
			t.Errorf("%v is %v", phase, got)
		}
	}
}

// A user saw "Error" where the kernel had killed for memory, and a kubelet
// restarted what had never run. The reason comes from how it ended.
func TestHowAContainerEndedIsTold(t *testing.T) {
	l := worldtest.Ledger(t)
	pod := worldtest.Pod(t, l, "p", nil)
	exit := func(name string, e lifecycle.SeenExited) *store.Container {
		return worldtest.Exited(t, l, pod.ID, name, e)
	}
	startFailed := worldtest.Step(t, l, worldtest.Container(t, l, pod.ID, "bad", nil).ID,
		lifecycle.AskStart{}, lifecycle.LaunchBegun{}, lifecycle.StartFailed{At: second, Message: "no such file"})
	for _, c := range []struct {
		name            string
		c               *store.Container
		state           cri.ContainerState
		code            int32
		reason, message string
		started, ended  bool
	}{
		{"created", worldtest.Container(t, l, pod.ID, "created", nil), cri.ContainerState_CONTAINER_CREATED, 0, "", "", false, false},
		{"starting", worldtest.Step(t, l, worldtest.Container(t, l, pod.ID, "starting", nil).ID, lifecycle.AskStart{}), cri.ContainerState_CONTAINER_CREATED, 0, "", "", false, false},
		{"running", worldtest.Running(t, l, pod.ID, "running", nil), cri.ContainerState_CONTAINER_RUNNING, 0, "", "", true, false},
		{"orphaned", worldtest.Step(t, l, worldtest.Running(t, l, pod.ID, "orphan", nil).ID, lifecycle.SeenNoTask{}), cri.ContainerState_CONTAINER_RUNNING, 0, "Orphaned", "shim", true, false},
		{"done", exit("done", lifecycle.SeenExited{Source: lifecycle.Kernel}), cri.ContainerState_CONTAINER_EXITED, 0, "Completed", "", true, true},
		{"failed", exit("failed", lifecycle.SeenExited{Code: 3, Source: lifecycle.Shim}), cri.ContainerState_CONTAINER_EXITED, 3, "Error", "", true, true},
		{"oom", exit("oom", lifecycle.SeenExited{Code: 137, Signal: 9, Source: lifecycle.Kernel, OOMKill: true}), cri.ContainerState_CONTAINER_EXITED, 137, "OOMKilled", "", true, true},
		{"nobody knows", exit("lost", lifecycle.SeenExited{}), cri.ContainerState_CONTAINER_EXITED, 255, "Unknown", "nobody could tell", true, true},
		{"never ran", startFailed, cri.ContainerState_CONTAINER_EXITED, 128, "StartError", "no such file", false, true},
		{"removed before it ran", worldtest.Step(t, l, worldtest.Container(t, l, pod.ID, "unused", nil).ID, lifecycle.AskRemove{}), cri.ContainerState_CONTAINER_CREATED, 0, "", "", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := status.Container(c.c, worldtest.Names)
			if st.State != c.state || st.ExitCode != c.code || st.Reason != c.reason || !strings.Contains(st.Message, c.message) {
				t.Errorf("got %v, code %d, %q %q", st.State, st.ExitCode, st.Reason, st.Message)
			}
			if (st.StartedAt > 0) != c.started || (st.FinishedAt > 0) != c.ended {
				t.Errorf("started %d, finished %d", st.StartedAt, st.FinishedAt)
			}
			if st.FinishedAt > 0 && st.FinishedAt < st.StartedAt {
				t.Error("finished before it started")
			}
		})
	}
}

func TestEveryFieldOfAContainerStatusIsTold(t *testing.T) {
	l := worldtest.Ledger(t)
	pod := worldtest.Pod(t, l, "p", nil)
	c := worldtest.Running(t, l, pod.ID, "c", map[string]string{"app": "a"})
	st := status.Container(c, worldtest.Names)
	if st.Id != c.ID || st.Metadata.GetName() != "c" || st.Labels["app"] != "a" || st.Annotations["note"] != "of c" || st.LogPath != "/logs/c" {
		t.Errorf("got %v", st)
	}
	if st.Image.GetImage() != "docker.io/library/busybox:latest" || st.ImageRef != "docker.io/library/busybox@sha256:def" || st.ImageId != "sha256:abc" {
		t.Errorf("image %v, ref %s, id %s", st.Image, st.ImageRef, st.ImageId)
	}
	if u := st.User.GetLinux(); u.GetUid() != 1000 || u.GetGid() != 2000 || len(u.GetSupplementalGroups()) != 1 {
		t.Errorf("user %v", u)
	}
	if st.StopSignal != cri.Signal_SIGNAL_SIGUSR1 || st.Resources.GetLinux().GetCpuShares() != 100 {
		t.Errorf("stop signal %v, resources %v", st.StopSignal, st.Resources)
	}
	if st := status.Container(c, func(string) (a, b []string) { return nil, nil }); st.Image.GetImage() != "sha256:abc" {
		t.Errorf("with its image gone: %v", st.Image)
	}
}

func TestStopSignalsHaveTheNamesOfCRI(t *testing.T) {
	for n, want := range map[int]cri.Signal{
		0: cri.Signal_SIGNAL_RUNTIME_DEFAULT, 15: cri.Signal_SIGNAL_SIGTERM, 34: cri.Signal_SIGNAL_SIGRTMIN,
		37: cri.Signal_SIGNAL_SIGRTMINPLUS3, 62: cri.Signal_SIGNAL_SIGRTMAXMINUS2, 64: cri.Signal_SIGNAL_SIGRTMAX, 99: cri.Signal_SIGNAL_RUNTIME_DEFAULT,
	} {
		if got := status.Container(&store.Container{StopSignal: n}, nil).StopSignal; got != want {
			t.Errorf("signal %d is %v, want %v", n, got, want)
		}
	}
}

func TestPodStatusNamesAllAddresses(t *testing.T) {
	l := worldtest.Ledger(t)
	p := worldtest.Pod(t, l, "p", nil)
	st := status.Pod(p)
	if st.Network.GetIp() != "10.0.0.1" || len(st.Network.GetAdditionalIps()) != 1 || st.Network.GetAdditionalIps()[0].GetIp() != "fd00::1" {
		t.Errorf("network %v", st.Network)
	}
	if st.RuntimeHandler != "runc" || st.Linux.GetNamespaces().GetOptions() == nil || st.Metadata.GetAttempt() != 1 || st.CreatedAt <= 0 {
		t.Errorf("got %v", st)
	}
	host := *p
	host.IPs = nil
	if n := status.Pod(&host).Network; n == nil || n.Ip != "" {
		t.Errorf("host network: %v", n)
	}
}

func TestTheTimestampIsNeverOlderThanWhatIsTold(t *testing.T) {
	l := worldtest.Ledger(t)
	p := worldtest.Pod(t, l, "p", nil)
	c := worldtest.Exited(t, l, p.ID, "c", lifecycle.SeenExited{Source: lifecycle.Kernel})
	if got := status.Timestamp(5, p, []*store.Container{c}); got != c.FinishedAt() {
		t.Errorf("with a clock that was set back: %d, want %d", got, c.FinishedAt())
	}
}

func TestFiltersWantAllThatIsSet(t *testing.T) {
	l := worldtest.Ledger(t)
	a, b := worldtest.Pod(t, l, "a", map[string]string{"app": "x", "tier": "1"}), worldtest.Pod(t, l, "b", map[string]string{"app": "x"})
	worldtest.StepPod(t, l, b.ID, lifecycle.SeenPodBroken{Why: "test"})
	run := worldtest.Running(t, l, a.ID, "run", map[string]string{"c": "1"})
	made := worldtest.Container(t, l, b.ID, "made", nil)
	worldtest.Making(t, l, a.ID, "unseen", nil)
	ready := &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_READY}
	for _, c := range []struct {
		name string
		f    *cri.PodSandboxFilter
		want int
	}{
		{"nil", nil, 2}, {"empty", &cri.PodSandboxFilter{}, 2},
		{"id", &cri.PodSandboxFilter{Id: a.ID}, 1}, {"prefix", &cri.PodSandboxFilter{Id: a.ID[:9]}, 1}, {"unknown id", &cri.PodSandboxFilter{Id: "zz"}, 0},
		{"ready", &cri.PodSandboxFilter{State: ready}, 1}, {"label", &cri.PodSandboxFilter{LabelSelector: map[string]string{"app": "x"}}, 2},
		{"two labels", &cri.PodSandboxFilter{LabelSelector: map[string]string{"app": "x", "tier": "1"}}, 1},
		{"wrong value", &cri.PodSandboxFilter{LabelSelector: map[string]string{"app": ""}}, 0},
		{"id and state", &cri.PodSandboxFilter{Id: b.ID, State: ready}, 0},
	} {
		if got := status.Pods(l, status.PodFilter(c.f)); len(got) != c.want {
			t.Errorf("pods, %s: %d, want %d", c.name, len(got), c.want)
		}
	}
	running := &cri.ContainerStateValue{State: cri.ContainerState_CONTAINER_RUNNING}
	for _, c := range []struct {
		name string
		f    *cri.ContainerFilter
		want string
	}{
		{"nil", nil, "both"}, {"id", &cri.ContainerFilter{Id: run.ID[:12]}, run.ID}, {"pod", &cri.ContainerFilter{PodSandboxId: b.ID}, made.ID},
		{"state", &cri.ContainerFilter{State: running}, run.ID}, {"label", &cri.ContainerFilter{LabelSelector: map[string]string{"c": "1"}}, run.ID},
		{"pod and state", &cri.ContainerFilter{PodSandboxId: b.ID, State: running}, ""},
	} {
		got := status.Containers(l, status.ContainerFilter(c.f))
		switch {
		case c.want == "both" && len(got) == 2, c.want == "" && len(got) == 0, len(got) == 1 && got[0].ID == c.want:
		default:
			t.Errorf("containers, %s: %d", c.name, len(got))
		}
	}
}

func TestVerboseStatusHasWhatOneLooksForAtNight(t *testing.T) {
	l := worldtest.Ledger(t)
	p := worldtest.Pod(t, l, "p", nil)
	p, _ = l.UpdatePod(p.ID, func(p *store.Pod) {
		p.Shim = store.ShimRef{Address: "unix:///s/1", Process: store.Process{Pid: 99, StartTime: 1}, Bundle: "/nowhere"}
		p.Net = []byte("not json")
	})
	c := worldtest.Exited(t, l, p.ID, "c", lifecycle.SeenExited{Code: 2, Source: lifecycle.Kernel})
	bundle := t.TempDir()
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), []byte(`{"ociVersion":"1.2.0"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(status.ContainerInfo(c, p, bundle)["info"]), &got); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{"pid": 4242.0, "shimPid": 99.0, "shimAddress": "unix:///s/1", "bundle": bundle, "runtimeHandler": "runc", "state": "exited", "exitCodeFrom": "kernel"} {
		if got[key] != want {
			t.Errorf("%s is %v, want %v", key, got[key], want)
		}
	}
	if spec, _ := got["runtimeSpec"].(map[string]any); spec["ociVersion"] != "1.2.0" {
		t.Errorf("runtimeSpec is %v", got["runtimeSpec"])
	}
	got = nil
	if err := json.Unmarshal([]byte(status.PodInfo(p)["info"]), &got); err != nil || got["shimPid"] != 99.0 || got["state"] != "ready" {
		t.Errorf("pod with a result that is not JSON: %v, %v", got, err)
	}
}

// List has to answer in microseconds however many pods there are.
func BenchmarkList(b *testing.B) {
	l := worldtest.Ledger(b)
	p := worldtest.Pod(b, l, "p", nil)
	for i := range 200 {
		worldtest.Running(b, l, p.ID, "c"+string(rune('a'+i%26))+string(rune('a'+i/26)), nil)
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, c := range status.Containers(l, nil) {
			status.ContainerItem(c, worldtest.Names)
		}
	}
}
