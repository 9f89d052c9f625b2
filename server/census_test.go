package server_test

import (
	"bufio"
	_ "embed"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// census is one line for every field of every message of every call:
//
//	Message.field used
//	Message.field ignored: because
//
// The two configuration messages and what is only in them have a census of
// their own in container/spec and sandbox/spec.
//
//go:embed testdata/census.txt
var census string

// sealed are the messages that only the spec packages open.
var sealed = map[protoreflect.Name]bool{"PodSandboxConfig": true, "ContainerConfig": true}

// fields walks all messages of all calls; request says on which side a message
// is met first.
func fields(visit func(m protoreflect.MessageDescriptor, f protoreflect.FieldDescriptor)) {
	seen := map[protoreflect.FullName]bool{}
	var walk func(m protoreflect.MessageDescriptor)
	walk = func(m protoreflect.MessageDescriptor) {
		if seen[m.FullName()] || sealed[m.Name()] || m.IsMapEntry() {
			return
		}
		seen[m.FullName()] = true
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			visit(m, f)
			if sub := f.Message(); sub != nil {
				walk(sub)
			}
		}
	}
	services := (&cri.VersionRequest{}).ProtoReflect().Descriptor().ParentFile().Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			walk(methods.Get(j).Input())
			walk(methods.Get(j).Output())
		}
	}
}

// identifiers are all names that the server's sources mention.
func identifiers(t *testing.T) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "internal/") || strings.HasPrefix(path, "validate/") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok {
				out[id.Name] = true
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// goName is the field's name in Go, as the protobuf compiler makes it.
func goName(f protoreflect.FieldDescriptor) string {
	var b strings.Builder
	for part := range strings.SplitSeq(string(f.Name()), "_") {
		if part != "" {
			b.WriteString(strings.ToUpper(part[:1]) + part[1:])
		}
	}
	return b.String()
}

// A field that CRI adds fails this test until somebody decides about it; one
// that is said to be used must be named in the sources.
func TestEveryFieldOfEveryCallIsDecidedAbout(t *testing.T) {
	decided := map[string]string{}
	for lines := bufio.NewScanner(strings.NewReader(census)); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		field, what, _ := strings.Cut(line, " ")
		if _, twice := decided[field]; twice {
			t.Errorf("%s is in the census twice", field)
		}
		if what != "used" && (!strings.HasPrefix(what, "ignored: ") || len(what) < len("ignored: because")) {
			t.Errorf("%s: %q is no decision", field, what)
		}
		decided[field] = what
	}
	names := identifiers(t)
	var missing []string
	fields(func(m protoreflect.MessageDescriptor, f protoreflect.FieldDescriptor) {
		field := string(m.Name()) + "." + string(f.Name())
		what, ok := decided[field]
		delete(decided, field)
		switch {
		case !ok:
			missing = append(missing, field)
		case what == "used" && !names["Get"+goName(f)] && !names[goName(f)]:
			t.Errorf("%s is said to be used, but no source names it", field)
		}
	})
	slices.Sort(missing)
	if len(missing) > 0 {
		t.Errorf("decide about these fields:\n%s", strings.Join(missing, "\n"))
	}
	for field := range decided {
		t.Errorf("%s is in the census and not in CRI", field)
	}
}
