package hack

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What the documents name exists: tests, files, and the functions and types that ARCHITECTURE.md sends its reader to. A name that is gone sends
// him nowhere.
func TestWhatTheDocumentsNameExists(t *testing.T) {
	tree := sources(t)
	docs, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	names := 0
	for _, doc := range append(docs, "../README.md", "../ARCHITECTURE.md") {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, span := range quoted.FindAllStringSubmatch(fences.ReplaceAllString(string(text), ""), -1) {
			for _, missing := range tree.missing(span[1], filepath.Base(doc) == "ARCHITECTURE.md") {
				t.Errorf("%s: `%s`: there is no %s", filepath.Base(doc), span[1], missing)
			}
			names++
		}
	}
	if names < 100 {
		t.Errorf("only %d names looked at: the pattern has lost the documents", names)
	}
}

var (
	quoted   = regexp.MustCompile("`([^`\n]+)`")
	fences   = regexp.MustCompile("(?s)```.*?```")
	testName = regexp.MustCompile(`^(Test|Fuzz)[A-Z]\w+$`)
	goFile   = regexp.MustCompile(`^[\w./]+\.go$`)
	symbol   = regexp.MustCompile(`^(?:\w+\.)?(\w+)$`)
)

// source is the tree as the documents' names are looked up in it.
type source struct {
	files map[string]string // by path from the module's root
	tests map[string]bool
}

func sources(t *testing.T) source {
	t.Helper()
	s := source{files: map[string]string{}, tests: map[string]bool{}}
	funcs := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	eachGoFile(t, func(dir, file string) {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		s.files[path.Join(dir, filepath.Base(file))] = string(b)
		for _, m := range funcs.FindAllStringSubmatch(string(b), -1) {
			s.tests[m[1]] = true
		}
	})
	return s
}

// missing answers what of one quoted name does not exist. Files are looked up by the end of their path. ours tells that a Go file named is one of
// this project; other documents also name those of the peers.
func (s source) missing(span string, ours bool) []string {
	if testName.MatchString(span) {
		if !s.tests[span] {
			return []string{"test " + span}
		}
		return nil
	}
	if !ours {
		return nil
	}
	files, symbols, _ := strings.Cut(span, ": ")
	var found, out []string
	for name := range strings.SplitSeq(files, ", ") {
		if !goFile.MatchString(name) {
			continue
		}
		texts := s.ending(name)
		if len(texts) == 0 {
			out = append(out, "file "+name)
		}
		found = append(found, texts...)
	}
	if len(found) == 0 {
		return out
	}
	for name := range strings.SplitSeq(symbols, ", ") {
		m := symbol.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		word := regexp.MustCompile(`\b` + m[1] + `\b`)
		known := false
		for _, text := range found {
			known = known || word.MatchString(text)
		}
		if !known {
			out = append(out, m[1]+" in "+files)
		}
	}
	return out
}

func (s source) ending(name string) []string {
	var out []string
	for file, text := range s.files {
		if file == name || strings.HasSuffix(file, "/"+name) {
			out = append(out, text)
		}
	}
	return out
}

// README's table of metrics has every metric of crid, and none that there is not.
func TestTheReadmeHasEveryMetric(t *testing.T) {
	metric := regexp.MustCompile(`\bcrid_[a-z_]+[a-z]\b`)
	there := map[string]bool{}
	for file, text := range sources(t).files {
		if path.Dir(file) == "server/metrics" && !strings.HasSuffix(file, "_test.go") {
			for _, name := range metric.FindAllString(text, -1) {
				there[name] = true
			}
		}
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	for _, name := range metric.FindAllString(string(readme), -1) {
		told[name] = true
		if !there[name] {
			t.Errorf("README.md tells of %s, which is not there", name)
		}
	}
	for name := range there {
		if !told[name] {
			t.Errorf("README.md does not tell of %s", name)
		}
	}
	if len(there) < 10 {
		t.Errorf("only %d metrics found: the pattern has lost them", len(there))
	}
}
