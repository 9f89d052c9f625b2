//go:build e2e

package restart

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crid-project/crid/e2e/faults/inject"
	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/project"
	"github.com/crid-project/crid/e2e/story"
)

// faulty starts a daemon whose handler "faulty" has a program of ours for runc: a shell script, in which $RUNC is the real one, $verb what
// is asked and $mode the content of a file that the test writes.
func faulty(t *testing.T, script string) (s *story.Story, mode func(string)) {
	t.Helper()
	runc, err := project.Bin("runc")
	if err != nil {
		t.Fatal(err)
	}
	shim, err := project.Bin("containerd-shim-runc-v2")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program, control := filepath.Join(dir, "faulty-runc"), filepath.Join(dir, "mode")
	text := fmt.Sprintf(`#!/bin/bash
RUNC=%s
mode=$(cat %s)
for a in "$@"; do case $a in create|start|kill|delete|state|exec|update|ps|features) verb=$a; break;; esac; done
%s
exec $RUNC "$@"
`, runc, control, script)
	if err := os.WriteFile(program, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	mode = func(m string) {
		if err := os.WriteFile(control, []byte(m), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mode("well")
	s = story.Alone(t, harness.Crid{Config: fmt.Sprintf("[runtimes.faulty]\ntype = \"io.containerd.runc.v2\"\npath = %q\noptions = { BinaryName = %q, SystemdCgroup = false }\n", shim, program)})
	t.Cleanup(func() { mode("well") })
	return s, mode
}

// onFaulty runs a pod on that handler.
func onFaulty(s *story.Story, name string) *story.Pod {
	s.T.Helper()
	config := s.Home.Pod(name)
	id, err := s.RunPod(s.T.Context(), config, "faulty")
	if err != nil {
		s.T.Fatal(err)
	}
	return &story.Pod{Story: s, ID: id, Config: config}
}

// gone waits until the home has no process of ours but shims and what the test runs on purpose.
func gone(s *story.Story, what, command string) {
	s.T.Helper()
	s.Eventually(what, 20*time.Second, func() bool {
		for thing := range s.Census(s.T.Context()) {
			if strings.HasPrefix(thing, "process in a cgroup: ") && strings.Contains(thing, command) {
				return false
			}
		}
		return true
	})
}

// `runc kill` that hangs or does nothing must not keep a container alive: signals go to the process itself.
func TestRuncCannotKill(t *testing.T) {
	s, mode := faulty(t, `case $mode-$verb in hang-kill) sleep 300;; nothing-kill) exit 0;; fail-kill) echo no >&2; exit 1;; esac`)
	for _, how := range []string{"hang", "nothing", "fail"} {
		p := onFaulty(s, how)
		c := p.Go(story.Sleeper("c"))
		pid := c.Pid()
		mode(how)
		inject.Within(t, "a stop while runc kill is to "+how, c.Stop(1), 31*time.Second)
		c.WantState(exited)
		if harness.Alive(pid) {
			t.Errorf("%s: told as exited, and its process lives", how)
		}
		if err := s.RemovePodFully(t.Context(), p.ID); err != nil {
			t.Errorf("%s: %v", how, err)
		}
		mode("well")
	}
}

// `runc delete` that fails or does nothing must not make a zombie: the end is the kernel's to tell, and what is left is cleared by us.
func TestRuncCannotDelete(t *testing.T) {
	s, mode := faulty(t, `case $mode-$verb in hang-delete) sleep 300;; nothing-delete) exit 0;; fail-delete) echo no >&2; exit 1;; esac`)
	for _, how := range []string{"fail", "nothing", "hang"} {
		p := onFaulty(s, how)
		c := p.Go(story.Shell("c", "sleep 0.3; exit 9"))
		mode(how)
		start := time.Now()
		st := c.Exited()
		inject.Within(t, "an end while runc delete is to "+how, time.Since(start), 3*time.Second)
		if st.GetExitCode() != 9 {
			t.Errorf("%s: ended with %d", how, st.GetExitCode())
		}
		start = time.Now()
		if err := s.RemovePodFully(t.Context(), p.ID); err != nil {
			t.Errorf("%s: %v", how, err)
		}
		inject.Within(t, "a removal while runc delete is to "+how, time.Since(start), 40*time.Second)
		mode("well")
	}
}

// A create that hangs ends with its caller's patience or ours, and leaves no half container; the name can be used again.
func TestRuncHangsInCreate(t *testing.T) {
	s, mode := faulty(t, `case $mode-$verb in hang-create) sleep 25;; late-create) $RUNC "$@"; code=$?; sleep 25; exit $code;; fail-create) echo "create is not possible today" >&2; exit 1;; esac`)
	for _, how := range []string{"fail", "hang", "late"} {
		p := onFaulty(s, how)
		c := p.Make(story.Sleeper("c"))
		mode(how)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		err := s.StartContainer(ctx, c.ID)
		cancel()
		if err == nil {
			t.Errorf("%s: it starts", how)
		}
		mode("well")
		inject.Within(t, "the stop after a start that is to "+how, c.Stop(1), 31*time.Second)
		start := time.Now()
		c.Remove()
		inject.Within(t, "the removal after a start that is to "+how, time.Since(start), 31*time.Second)
		gone(s, how+": nothing of the start is left", "sleep 3600")
		p.Go(story.Sleeper("c")).Sh("true") // the same name, the same pod
		if err := s.RemovePodFully(t.Context(), p.ID); err != nil {
			t.Errorf("%s: %v", how, err)
		}
	}
}

// The error of a runtime is passed on, bounded; one that is not there is named.
func TestRuncSaysTooMuchOrIsNotThere(t *testing.T) {
	s, mode := faulty(t, `case $mode-$verb in much-create) head -c 3000000 /dev/zero | tr '\0' e >&2; exit 1;; crash-create) kill -SEGV $$;; esac`)
	p := onFaulty(s, "words")
	for _, how := range []string{"much", "crash"} {
		c := p.Make(story.Sleeper(how))
		mode(how)
		// What runc says goes into the container's own pipe, which nobody empties before it runs: the shim hangs until it is helped.
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		start := time.Now()
		err := s.StartContainer(ctx, c.ID)
		cancel()
		if err == nil || len(err.Error()) > 8<<10 {
			t.Errorf("%s: the error has %d bytes", how, len(fmt.Sprint(err)))
		}
		inject.Within(t, how+": the error", time.Since(start), 15*time.Second)
		mode("well")
		start = time.Now()
		c.Remove()
		inject.Within(t, how+": the removal", time.Since(start), 31*time.Second)
	}
	p.Go(story.Sleeper("after")).Sh("true")
}

// Shims that are none: a clear error in time, and nothing left.
func TestShimsThatAreNone(t *testing.T) {
	dir := t.TempDir()
	var tables strings.Builder
	scripts := map[string]string{"garbage": "head -c 100000 /dev/urandom; exit 0", "silent": "exit 0", "failing": "echo shim says no >&2; exit 3", "liar": "echo unix:///no/such/socket", "hanging": "sleep 300"}
	for name, text := range scripts {
		program := filepath.Join(dir, "shim-"+name)
		if err := os.WriteFile(program, []byte("#!/bin/bash\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&tables, "[runtimes.%s]\ntype = \"io.containerd.runc.v2\"\npath = %q\n", name, program)
	}
	s := story.Alone(t, harness.Crid{Config: tables.String()})
	for name := range scripts {
		config := s.Home.Pod(name)
		start := time.Now()
		id, err := s.RunPod(t.Context(), config, name)
		if err == nil {
			t.Errorf("%s: a pod %s runs", name, id)
			continue
		}
		inject.Within(t, name+": the error", time.Since(start), 35*time.Second)
		if name == "failing" && !strings.Contains(err.Error(), "shim says no") {
			t.Errorf("what the shim says is lost: %v", err)
		}
		if len(err.Error()) > 8<<10 {
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
		again, err := s.RunPod(t.Context(), config, "runc")
		if err != nil {
			t.Errorf("%s: its name is not free after that: %v", name, err)
			continue
		}
		if err := s.RemovePodFully(t.Context(), again); err != nil {
			t.Error(err)
		}
	}
	if pods, err := s.Pods(t.Context()); err != nil || len(pods) != 0 {
		t.Errorf("pods: %v (%v)", pods, err)
	}
}
