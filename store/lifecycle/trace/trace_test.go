package trace

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"

	"github.com/crid-project/crid/store/lifecycle"
)

func life(t *testing.T) []Step {
	t.Helper()
	var steps []Step
	var c lifecycle.Container
	for _, e := range []lifecycle.Event{lifecycle.Made{}, lifecycle.AskStart{}, lifecycle.LaunchBegun{}, lifecycle.StartDone{}, lifecycle.AskStop{Now: 5, KillAt: 9},
		lifecycle.TermDone{}, lifecycle.SeenExited{Code: 3, Source: lifecycle.Kernel, Empty: true, At: 7}, lifecycle.ReapDone{}} {
		next, err := c.Step(e)
		if err != nil {
			t.Fatal(err)
		}
		steps = append(steps, Of("c1", e, c, next))
		c = next
	}
	return steps
}

func TestALifeIsReplayed(t *testing.T) {
	var c Checker
	for _, s := range life(t) {
		if err := c.Take(s); err != nil {
			t.Error(err)
		}
	}
	p, _ := lifecycle.Pod{}.Step(lifecycle.PodHold{What: lifecycle.HoldsNS})
	if err := c.Take(OfPod("p1", lifecycle.PodHold{What: lifecycle.HoldsNS}, lifecycle.Pod{}, p)); err != nil {
		t.Error(err)
	}
}

// A check that lets everything pass is none.
func TestWhatTheLawDoesNotDoIsFound(t *testing.T) {
	for name, spoil := range map[string]func([]Step) []Step{
		"another state":         func(s []Step) []Step { s[6].Now = strings.Replace(s[6].Now, `"code":3`, `"code":4`, 1); return s },
		"another input":         func(s []Step) []Step { s[6].Input = strings.Replace(s[6].Input, `3`, `4`, 1); return s },
		"other work":            func(s []Step) []Step { s[4].Owes = "kill"; return s },
		"an event that is none": func(s []Step) []Step { s[3].Event = "AskTwice"; return s },
		"a step is missing":     func(s []Step) []Step { return append(s[:3:3], s[4:]...) },
		"from nowhere":          func(s []Step) []Step { return s[2:] },
		"of nothing":            func(s []Step) []Step { s[0].Kind = ""; return s },
	} {
		var c Checker
		found := false
		for _, s := range spoil(life(t)) {
			found = c.Take(s) != nil || found
		}
		if !found {
			t.Errorf("%s: not found", name)
		}
	}
}

// A record that was not on disk may be older after a restart, and may not be
// something that it never was.
func TestARestartMayLoseTheLastSteps(t *testing.T) {
	var c Checker
	all := life(t)
	for _, s := range all[:6] {
		if err := c.Take(s); err != nil {
			t.Fatal(err)
		}
	}
	c.Restarted()
	if err := c.Take(all[4]); err != nil {
		t.Errorf("two steps were lost: %v", err)
	}
	c.Restarted()
	if err := c.Take(all[7]); err == nil {
		t.Error("a state that it never had is taken for one")
	}
}

// An event that is new in the law has to be in the tables, or its steps cannot be
// replayed.
func TestEveryEventCanBeRead(t *testing.T) {
	for _, file := range []string{"container.go", "pod.go"} {
		f, err := parser.ParseFile(token.NewFileSet(), "../"+file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			m, ok := d.(*ast.FuncDecl)
			if !ok || m.Name.Name != "on" || m.Recv == nil {
				continue
			}
			name, _ := m.Recv.List[0].Type.(*ast.Ident)
			if name != nil && containerEvents[name.Name] == nil && podEvents[name.Name] == nil {
				t.Errorf("%s is not in the tables", name.Name)
			}
		}
	}
	for name, read := range containerEvents {
		if e, err := read([]byte("{}")); err != nil || e == nil {
			t.Errorf("%s cannot be read: %v", name, err)
		}
	}
	for name, read := range podEvents {
		if e, err := read([]byte("{}")); err != nil || e == nil {
			t.Errorf("%s cannot be read: %v", name, err)
		}
	}
}
