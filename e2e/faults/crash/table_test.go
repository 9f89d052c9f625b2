//go:build e2e

package crash

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/crid-project/crid/e2e/project"
)

// The table and the code say the same: each point is in the code once, each in the code is in the table, and one is mute where the code says that
// nothing may fail.
func TestTheTableIsTheCodes(t *testing.T) {
	root, err := project.Root()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Skip("needs the source tree")
	}
	inCode := map[string]string{}
	use := regexp.MustCompile(`failpoint\.(At|Pass|Sending)\("(\w+)"\)`)
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := entry.Name(); entry.IsDir() && (strings.HasPrefix(name, ".") || name == "bin" || name == "e2e") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		for _, m := range use.FindAllStringSubmatch(read(path), -1) {
			if inCode[m[2]] != "" {
				t.Errorf("%s is in the code twice", m[2])
			}
			inCode[m[2]] = m[1]
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range calls {
		for _, p := range c.points {
			how := inCode[p.name]
			if how == "" {
				t.Errorf("%s (%s) is not in the code", p.name, p.step)
			} else if (how == "Pass") != (p.mute != "") {
				t.Errorf("%s is failpoint.%s in the code, and mute in the table: %q", p.name, how, p.mute)
			}
			if (how == "Sending") != strings.Contains(p.step, afterSending) && !strings.Contains(p.step, "answer is sent") && !strings.Contains(p.step, "command is running") {
				t.Errorf("%s is failpoint.%s in the code, and in the table: %s", p.name, how, p.step)
			}
			delete(inCode, p.name)
		}
	}
	for name := range inCode {
		t.Errorf("%s is in the code and not in the table", name)
	}
}

// What tests can have the daemon die at is not in what users run: neither the package nor the name of the folder in which points are armed.
func TestFailpointsAreNotInTheReleasedProgram(t *testing.T) {
	has := func(name string) bool {
		t.Helper()
		path, err := project.Bin(name)
		if err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Contains(content, []byte("CRID_FAILPOINTS")) || bytes.Contains(content, []byte("crid-project/crid/failpoint"))
	}
	if has("crid") {
		t.Error("the program that users run holds failpoints")
	}
	if !has(program) {
		t.Error("the program with failpoints has none: this test finds nothing")
	}
}
