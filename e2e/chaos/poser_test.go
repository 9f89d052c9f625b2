package chaos

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A poser that did not misbehave would make every test with it a lie.
func TestAPoserDoesWhatItIsTold(t *testing.T) {
	dir := t.TempDir()
	done := filepath.Join(dir, "done")
	program := filepath.Join(dir, "real")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho real >>"+done+"\necho answer\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	p, err := NewRunc(dir, program)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		verb, how string
		real, ok  bool
	}{
		{"-", "-", true, true}, {"delete", Fail, true, true}, {"kill", Fail, false, false}, {"kill", Hang, false, false}, {"kill", Nothing, false, true},
		{"kill", Slow, true, true}, {"kill", Late, true, true}, {"kill", Broken, true, false}, {"kill", Garbage, false, true},
	} {
		_ = os.Remove(done)
		if err := p.Set(c.verb, c.how, 0); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), p.Path, "--root", "/x", "kill", "id", "9").CombinedOutput()
		_, e := os.Stat(done)
		if (err == nil) != c.ok || (e == nil) != c.real {
			t.Errorf("%s %s: status %v, the real one ran: %v; want %v, %v\n%s", c.verb, c.how, err, e == nil, c.ok, c.real, out)
		}
	}
}

func TestAPosingPluginTakesTheBridgesPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "10-x.conflist")
	if err := os.WriteFile(path, []byte(`{"plugins": [{"type": "bridge", "ipam": {"type": "host-local"}}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Pose(path); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(path); !strings.Contains(string(text), PluginName) || !strings.Contains(string(text), "host-local") {
		t.Errorf("%s", text)
	}
	if err := Pose(path); err == nil {
		t.Error("there is no bridge in it any more")
	}
}
