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
	"github.com/crid-project/crid/e2e/story"
)

// faultyNetwork starts a daemon whose pods get, after the bridge, a plugin of ours: a shell script in which $CNI_COMMAND is the verb and
// $mode the content of a file that the test writes.
func faultyNetwork(t *testing.T, script string) (s *story.Story, mode func(string)) {
	t.Helper()
	dir := t.TempDir()
	control := filepath.Join(dir, "mode")
	mode = func(m string) {
		if err := os.WriteFile(control, []byte(m), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mode("well")
	text := fmt.Sprintf(`#!/bin/bash
cat >/dev/null
mode=$(cat %s)
case $CNI_COMMAND in VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}'; exit 0;; esac
%s
case $CNI_COMMAND in ADD) echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"'$CNI_NETNS'"}],"ips":[{"address":"10.249.200.9/24","interface":0}]}';; esac
exit 0
`, control, script)
	if err := os.WriteFile(filepath.Join(dir, "crid-faulty"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	s = story.AloneIn(t, harness.Crid{Plugins: dir}, func(h *harness.Home) error {
		path := filepath.Join(h.CNIConf(), "10-"+h.Name+".conflist")
		list, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		end := strings.LastIndexByte(string(list), ']')
		return os.WriteFile(path, []byte(string(list[:end])+`, {"type": "crid-faulty"} `+string(list[end:])), 0o600)
	})
	t.Cleanup(func() { mode("well") })
	return s, mode
}

// An ADD that fails, in whatever way, leaves no address, no interface and no rule, and the pod's name is free.
func TestANetworkThatCannotBeAdded(t *testing.T) {
	s, mode := faultyNetwork(t, `case $mode-$CNI_COMMAND in
error-ADD) echo '{"cniVersion":"1.0.0","code":111,"msg":"no more wires"}'; exit 1;;
silent-ADD) exit 1;;
garbage-ADD) head -c 5000 /dev/urandom; exit 0;;
crash-ADD) kill -SEGV $$;;
esac`)
	before := s.Census(t.Context())
	for _, how := range []string{"error", "silent", "garbage", "crash"} {
		mode(how)
		config := s.Home.Pod(how)
		start := time.Now()
		id, err := s.RunPod(t.Context(), config, "")
		inject.Within(t, how+": the answer", time.Since(start), 15*time.Second)
		if err == nil {
			t.Errorf("%s: pod %s runs", how, id)
		} else if how == "error" && !strings.Contains(err.Error(), "no more wires") {
			t.Errorf("the plugin's words are lost: %v", err)
		}
		for _, leak := range s.Settle(t.Context(), before, 15*time.Second) {
			t.Errorf("%s: left behind: %s", how, leak)
		}
		mode("well")
		if id, err = s.RunPod(t.Context(), config, ""); err != nil {
			t.Errorf("%s: the name is not free: %v", how, err)
		} else if err := s.RemovePodFully(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}

// A DEL that fails is owed: the stop says so, a retry does it, and nothing is taken away before.
func TestANetworkThatCannotBeDeleted(t *testing.T) {
	s, mode := faultyNetwork(t, `case $mode-$CNI_COMMAND in error-DEL) echo '{"cniVersion":"1.0.0","code":111,"msg":"still in use"}'; exit 1;; esac`)
	p := s.Pod("owed")
	c := p.Go(story.Sleeper("c"))
	mode("error")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := s.StopPod(ctx, p.ID)
	if err == nil || !strings.Contains(err.Error(), "still in use") {
		t.Errorf("a DEL that fails is told as: %v", err)
	}
	c.WantState(exited) // what is stopped is stopped
	mode("well")
	s.Eventually("the stop works, now that the plugin does", 30*time.Second, func() bool { return s.StopPod(t.Context(), p.ID) == nil })
	if err := s.RemovePod(t.Context(), p.ID); err != nil {
		t.Error(err)
	}
	// and across a crash: the debt is on disk
	p = s.Pod("owed")
	mode("error")
	short, done := context.WithTimeout(t.Context(), 2*time.Second)
	defer done()
	_ = s.StopPod(short, p.ID)
	inject.Crash(s)
	inject.Again(s)
	mode("well")
	s.Eventually("the stop works after the crash", 30*time.Second, func() bool { return s.StopPod(t.Context(), p.ID) == nil })
	if err := s.RemovePod(t.Context(), p.ID); err != nil {
		t.Error(err)
	}
}

// The configuration changes while pods are up: they are deleted by what they were added by.
func TestTheNetworksConfigurationChanges(t *testing.T) {
	s := alone(t)
	p := s.Pod("before")
	p.Go(story.Sleeper("c"))
	path := filepath.Join(s.Home.CNIConf(), "10-"+s.Home.Name+".conflist")
	list, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(`{"cniVersion":"1.0.0","name":"other","plugins":[{"type":"no-such-plugin"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Eventually("new pods are refused, with the plugin's name", 10*time.Second, func() bool {
		id, err := s.RunPod(t.Context(), s.Home.Pod("refused"), "")
		if err == nil {
			if err := s.RemovePodFully(t.Context(), id); err != nil {
				t.Error(err)
			}
			return false
		}
		return strings.Contains(err.Error(), "no-such-plugin")
	})
	if err := s.RemovePodFully(t.Context(), p.ID); err != nil {
		t.Errorf("the old pod: %v", err)
	}
	if err := os.WriteFile(path, list, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Eventually("pods run again", 10*time.Second, func() bool {
		id, err := s.RunPod(t.Context(), s.Home.Pod("after"), "")
		return err == nil && s.RemovePodFully(t.Context(), id) == nil
	})
}
