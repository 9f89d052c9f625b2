package hack

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// floors is the order of imports: "a, b < c, d" says that c and d may import a and b, and everything that a and b may. NONE imports
// nothing of this project. A folder that is not named lives on the floor of the nearest one above it that is, and folders that share
// a floor in this way may import each other.
//
// This is a statement of policy. DO NOT CHANGE IT TO MAKE A BUILD PASS: move the code to where it belongs, or let the upper floor hand
// down what the lower one needs.
const floors = `
	NONE
	< config, store/lifecycle, container/logs, container/plan, sandbox/plan;

	config
	< cni, image, container/spec, sandbox/spec;

	# Where the hands work, tests may have them die. The law, the ledger's words and the specs have no such moments.
	NONE < failpoint < cni, image, store, shimclient;

	container/plan < container/spec;
	# The two configurations say much in the same words (namespaces, profiles, limits, labels), and only these two may open them.
	container/plan, container/spec, sandbox/plan < sandbox/spec;

	config, store/lifecycle
	< store, shimclient;

	store, shimclient, image, container/logs, container/plan
	< container;

	container, cni, sandbox/plan
	< sandbox;

	sandbox
	< sandbox/reconcile, streaming;

	sandbox/reconcile, streaming, container/spec, sandbox/spec
	< server;

	server
	< cmd/crid;

	# The proof sees crid from the outside only.
	NONE < e2e < hack;
`

// outside says who alone may import what of other modules. Tests, e2e and hack may import anything.
var outside = []struct {
	path    string
	allowed []string // floors; none: nobody
	why     string
}{
	{"k8s.io/cri-api", []string{"server", "container/spec", "sandbox/spec"}, "CRI messages stop at the server; the spec packages open the two configurations"},
	{"k8s.io/client-go", nil, "it makes an idle daemon several times larger"},
	{"github.com/containerd/containerd/v2/client", nil, "there is no containerd to be a client of"},
	{"go.etcd.io/bbolt", nil, "the ledger is files"},
	{"testing", nil, "it belongs into tests"},
	{"github.com/containerd/ttrpc", []string{"shimclient"}, "only shimclient talks to shims"},
	{"github.com/containerd/containerd/api", []string{"shimclient", "image"}, "only shimclient talks to shims, and image to snapshotters"},
	{"github.com/containerd/go-cni", []string{"cni"}, "only cni talks to plugins"},
}

const module = "github.com/crid-project/crid"

// order maps a floor to all floors that it may import.
type order map[string]map[string]bool

func parseFloors(text string) (order, error) {
	direct := order{}
	for line := range strings.Lines(text) {
		if before, _, found := strings.Cut(line, "#"); found {
			text = strings.Replace(text, line, before+"\n", 1)
		}
	}
	for rule := range strings.SplitSeq(text, ";") {
		var lower []string
		for n, side := range strings.Split(rule, "<") {
			var names []string
			for name := range strings.SplitSeq(side, ",") {
				if name = strings.TrimSpace(name); name == "" || strings.ContainsAny(name, " \t\n") {
					if strings.TrimSpace(rule) == "" {
						break
					}
					return nil, fmt.Errorf("cannot read %q in rule %q", name, rule)
				}
				names = append(names, name)
			}
			for _, name := range names {
				if direct[name] == nil {
					direct[name] = map[string]bool{}
				}
				for _, l := range lower {
					direct[name][l] = true
				}
				if n == 0 && name != "NONE" && len(direct[name]) == 0 && !named(text, name) {
					return nil, fmt.Errorf("%s has no floor of its own", name)
				}
			}
			lower = names
		}
	}
	for range direct { // the closure; as many rounds as there are floors suffice
		for _, under := range direct {
			for l := range maps.Clone(under) {
				maps.Copy(under, direct[l])
			}
		}
	}
	for name, under := range direct {
		if under[name] {
			return nil, fmt.Errorf("%s is above itself", name)
		}
	}
	return direct, nil
}

// named tells whether a floor stands on the right of some rule.
func named(text, floor string) bool {
	for rule := range strings.SplitSeq(text, ";") {
		sides := strings.Split(rule, "<")
		for _, side := range sides[1:] {
			for name := range strings.SplitSeq(side, ",") {
				if strings.TrimSpace(name) == floor {
					return true
				}
			}
		}
	}
	return false
}

// floorOf is the floor of a folder: itself, or the nearest named one above it.
func (o order) floorOf(dir string) (string, bool) {
	for d := dir; d != "." && d != "/"; d = path.Dir(d) {
		if _, ok := o[d]; ok {
			return d, true
		}
	}
	return "", false
}

// forTests tells whether a folder holds what only tests import: a fake, or a suite that several makers must pass.
func forTests(dir string) bool {
	name := path.Base(dir)
	return name == "conformance" || strings.HasPrefix(name, "fake") || strings.HasSuffix(name, "test")
}

// check tells what is wrong with one import of a file that is no test.
func (o order) check(dir, imported string) error {
	floor, ok := o.floorOf(dir)
	if !ok {
		return fmt.Errorf("%s: the folder is on no floor", dir)
	}
	if rel, ours := strings.CutPrefix(imported, module+"/"); ours {
		target, ok := o.floorOf(rel)
		if !ok {
			return fmt.Errorf("%s imports %s, which is on no floor", dir, rel)
		}
		if target != floor && !o[floor][target] {
			return fmt.Errorf("%s imports %s: %s is not below %s", dir, rel, target, floor)
		}
		return nil
	}
	if floor == "e2e" || floor == "hack" || forTests(dir) {
		return nil
	}
	if first, _, _ := strings.Cut(imported, "/"); floor == "store/lifecycle" && (strings.Contains(first, ".") || slices.Contains([]string{"os", "net", "time", "sync", "syscall", "io"}, first)) {
		return fmt.Errorf("%s imports %s: the law is pure", dir, imported)
	}
	for _, rule := range outside {
		if (imported == rule.path || strings.HasPrefix(imported, rule.path+"/")) && !slices.Contains(rule.allowed, floor) {
			return fmt.Errorf("%s imports %s: %s", dir, imported, rule.why)
		}
	}
	return nil
}

func TestImportsGoDownwards(t *testing.T) {
	floors, err := parseFloors(floors)
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	eachGoFile(t, func(dir, file string) {
		if strings.HasSuffix(file, "_test.go") {
			return
		}
		files++
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Error(err)
			return
		}
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Errorf("%s: %v", file, err)
				continue
			}
			if err := floors.check(dir, imported); err != nil {
				t.Errorf("%s: %v", filepath.Base(file), err)
			}
		}
	})
	if files < 10 {
		t.Errorf("only %d files looked at: the walk has lost the source tree", files)
	}
}

// eachGoFile walks the tree from the module's root, leaving out what git ignores and what is not code.
func eachGoFile(t *testing.T, visit func(dir, file string)) {
	t.Helper()
	err := filepath.WalkDir("..", func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			if os.IsNotExist(err) {
				return nil
			}
			return err
		}
		name := entry.Name()
		switch {
		case entry.IsDir() && file != ".." && (strings.HasPrefix(name, ".") || name == "bin" || name == "testdata"):
			return fs.SkipDir
		case entry.Type().IsRegular() && strings.HasSuffix(name, ".go"):
			rel, err := filepath.Rel("..", filepath.Dir(file))
			if err != nil {
				return err
			}
			visit(filepath.ToSlash(rel), file)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTheOrderIsWhatItSays(t *testing.T) {
	floors, err := parseFloors(floors)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		dir, imported string
		fine          bool
	}{
		{"server", module + "/store", true},
		{"cmd/crid", module + "/store/lifecycle", true},
		{"store", module + "/server", false},
		{"image/layers", module + "/image", true},
		{"image/layers", module + "/config", true},
		{"image", module + "/container", false},
		{"cni", module + "/container/plan", false},
		{"store/lifecycle", module + "/config", false},
		{"store/lifecycle", "errors", true},
		{"store/lifecycle", "os", false},
		{"store/lifecycle", "golang.org/x/sys/unix", false},
		{"sandbox", "k8s.io/cri-api/pkg/apis/runtime/v1", false},
		{"container/spec", "k8s.io/cri-api/pkg/apis/runtime/v1", true},
		{"shimclient/pidfd", "golang.org/x/sys/unix", true},
		{"e2e/harness", "k8s.io/cri-api/pkg/apis/runtime/v1", true},
		{"e2e/harness", module + "/server", false},
		{"server", module + "/e2e/harness", false},
		{"newfolder", "errors", false},
	} {
		if err := floors.check(c.dir, c.imported); (err == nil) != c.fine {
			t.Errorf("%s imports %s: want fine %v, got: %v", c.dir, c.imported, c.fine, err)
		}
	}
}

func TestBadOrdersAreFoundOut(t *testing.T) {
	for name, text := range map[string]string{
		"a circle":           "NONE < a; a < b; b < a;",
		"a missing comma":    "NONE < a b;",
		"an undefined floor": "NONE < a; x < a;",
	} {
		if _, err := parseFloors(text); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
