//go:build e2e

package shims

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/crid-project/crid/e2e/faults/inject"
	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/project"
	"github.com/crid-project/crid/e2e/story"
)

func itoa(n int) string { return strconv.Itoa(n) }

// F33: the shim's binary is replaced, by a newer and by an older release, while pods run. Old pods go on with their shim, new containers in them
// join it, new pods get the new one, and a restart finds them all.
func TestF33TheShimIsUpgradedAndDowngradedUnderRunningPods(t *testing.T) {
	t.Parallel()
	older, err := project.Bin("peer/containerd-shim-runc-v2-1.7")
	if err != nil {
		t.Skipf("needs a shim of an older release: %v", err)
	}
	newer, err := project.Bin("containerd-shim-runc-v2")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "containerd-shim-runc-v2")
	install := func(program string) {
		t.Helper()
		data, err := os.ReadFile(program)
		if err == nil {
			if err = os.WriteFile(path+".new", data, 0o755); err == nil {
				err = os.Rename(path+".new", path)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	install(older)
	runc, err := project.Bin("runc")
	if err != nil {
		t.Fatal(err)
	}
	s := story.Alone(t, harness.Crid{Config: fmt.Sprintf("[runtimes.%s]\ntype = \"io.containerd.runc.v2\"\npath = %q\noptions = { BinaryName = %q, SystemdCgroup = false }\n", inject.Handler, path, runc)})
	var pods []*story.Pod
	var all []*story.Container
	for round, program := range []string{older, newer, older} {
		install(program)
		p := inject.Pod(s, fmt.Sprintf("p%d", round))
		pods = append(pods, p)
		shims := map[*story.Pod]int{}
		for n, p := range pods {
			c := p.Go(story.Shell(fmt.Sprintf("c-%d-%d", round, n), "trap 'exit 3' TERM; echo ready; while :; do sleep 1 & wait $!; done"))
			c.Heard("ready")
			all = append(all, c)
			shims[p] = c.ShimPid()
		}
		if round == 1 {
			inject.Crash(s)
			inject.Again(s)
		}
		for _, c := range all {
			c.WantState(running)
			c.Sh("true")
			if c.ShimPid() != shims[c.Pod] {
				t.Errorf("round %d: a pod has two shims", round)
			}
		}
	}
	for _, c := range all {
		c.Stop(10)
		if st := c.WantState(exited); st.GetExitCode() != 3 {
			t.Errorf("%s: code %d", c.Config.GetMetadata().GetName(), st.GetExitCode())
		}
	}
	for _, p := range pods {
		inject.Clear(s, p, 30*time.Second)
	}
}

// F33 and F34: shims that answer what nobody can use, that are not there, or cannot be executed. A clear error in time, and nothing left.
func TestF34ShimsThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	shim := inject.Shim(t)
	dir := t.TempDir()
	noexec := filepath.Join(dir, "noexec")
	if err := os.WriteFile(noexec, []byte("#!/bin/sh\nexit 0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	tables := shim.Table()
	for name, path := range map[string]string{"missing": filepath.Join(dir, "missing"), "noexec": noexec} {
		tables += fmt.Sprintf("[runtimes.%s]\ntype = \"io.containerd.runc.v2\"\npath = %q\n", name, path)
	}
	s := story.Alone(t, harness.Crid{Config: tables})
	refused := func(what, handler string) {
		t.Helper()
		config := s.Home.Pod(what)
		start := time.Now()
		id, err := s.RunPod(t.Context(), config, handler)
		if err == nil {
			t.Errorf("%s: a pod %s runs", what, id)
			return
		}
		if len(err.Error()) > 8<<10 {
			t.Errorf("%s: an error of %d bytes", what, len(err.Error()))
		}
		t.Logf("%s, after %s: %.300s", what, time.Since(start).Round(time.Millisecond), err)
		inject.Within(t, what+": the error", time.Since(start), 35*time.Second)
		shim.Well()
		again, err := s.RunPod(t.Context(), config, "runc")
		if err != nil {
			t.Errorf("%s: its name is not free after that: %v", what, err)
			return
		}
		if err := s.RemovePodFully(t.Context(), again); err != nil {
			t.Error(err)
		}
	}
	refused("missing", "missing")
	refused("noexec", "noexec")
	for what, act := range map[string]inject.Act{
		"version-4":    {Exit: inject.Code(0), Stdout: `{"version":4,"address":"unix:///run/x","protocol":"ttrpc"}`},
		"grpc":         {Exit: inject.Code(0), Stdout: `{"version":3,"address":"unix:///run/x","protocol":"grpc"}`},
		"flood":        {Exit: inject.Code(0), Flood: 20 << 20},
		"empty":        {Exit: inject.Code(0)},
		"words":        {Exit: inject.Code(1), Stderr: strings.Repeat("the shim says no. ", 100000)},
		"elsewhere":    {Exit: inject.Code(0), Stdout: "unix:///etc/passwd"},
		"slow-to-fail": {Before: 3 * time.Second, Exit: inject.Code(2)},
	} {
		shim.Do(map[string]inject.Act{"start": act})
		refused(what, inject.Handler)
	}
	if left := shim.Left(); len(left) > 0 {
		t.Errorf("shims that are none are left: %v", left)
	}
	p := inject.Pod(s, "well")
	p.Go(story.Sleeper("c")).Sh("true")
	inject.Clear(s, p, 20*time.Second)
}
