package plan

import (
	"reflect"
	"testing"

	oci "github.com/opencontainers/runtime-spec/specs-go"
)

func TestAnExecIsTheContainersProcessWithOtherArguments(t *testing.T) {
	adj := 5
	spec := func() *oci.Spec {
		return &oci.Spec{Process: &oci.Process{
			Args: []string{"nginx"}, Env: []string{"A=1"}, Cwd: "/srv", User: oci.User{UID: 5, GID: 6, AdditionalGids: []uint32{6, 7}},
			Capabilities:    &oci.LinuxCapabilities{Bounding: []string{"CAP_CHOWN"}, Ambient: []string{"CAP_KILL"}},
			NoNewPrivileges: true, ApparmorProfile: "a", SelinuxLabel: "s", OOMScoreAdj: &adj, ConsoleSize: &oci.Box{Width: 1},
		}}
	}
	s := spec()
	p := ExecProcess(s, []string{"sh"}, true)
	want := *spec().Process
	want.Args, want.Terminal, want.ConsoleSize, want.Env = []string{"sh"}, true, nil, []string{"A=1", "TERM=xterm"}
	if !reflect.DeepEqual(p, &want) {
		t.Errorf("got  %+v\nwant %+v", p, want)
	}
	p.Env[0], p.Capabilities.Bounding[0], p.User.AdditionalGids[0] = "x", "x", 9
	if !reflect.DeepEqual(s, spec()) {
		t.Errorf("the container's spec changed: %+v", s.Process)
	}
}

func TestExecKeepsTheContainersTERM(t *testing.T) {
	s := &oci.Spec{Process: &oci.Process{Env: []string{"TERM=vt100"}, Terminal: true}}
	if got := ExecProcess(s, nil, true).Env; len(got) != 1 || got[0] != "TERM=vt100" {
		t.Errorf("got %q", got)
	}
	if ExecProcess(s, nil, false).Terminal {
		t.Error("has a terminal that nobody asked for")
	}
	if p := ExecProcess(&oci.Spec{}, []string{"sh"}, false); p.Cwd != "/" || p.Args[0] != "sh" {
		t.Errorf("without a process: %+v", p)
	}
}
