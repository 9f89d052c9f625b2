package hack

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var rowLine = regexp.MustCompile(`^//\t(F\d+|row \d+) +(.*)$`)

// Every row of the fault matrix from F17 on, and every row of the state table, is in a table of the fault tests' packages
// and names tests that exist, or says why it has none.
func TestEveryRowOfTheMatrixHasATest(t *testing.T) {
	tree := sources(t)
	docs, err := filepath.Glob("../e2e/faults/*/doc.go")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]bool{}
	test := regexp.MustCompile(`\bTest[A-Z]\w+`)
	for _, doc := range append(docs, "../e2e/faults/doc.go") {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			for _, name := range test.FindAllString(line, -1) {
				if !tree.tests[name] && strings.HasPrefix(line, "//\t") {
					t.Errorf("%s: there is no %s", doc, name)
				}
			}
			m := rowLine.FindStringSubmatch(strings.TrimRight(line, "\n"))
			if m == nil {
				continue
			}
			if !test.MatchString(m[2]) && !strings.Contains(m[2], ": not here, ") {
				t.Errorf("%s: %s has neither a test nor a reason", doc, m[1])
			}
			rows[m[1]] = true
		}
	}
	for n := 1; n <= 42; n++ {
		if !rows[fmt.Sprintf("row %d", n)] {
			t.Errorf("row %d of the state table is in no table", n)
		}
	}
	unused := []int{21, 24, 26, 42, 46, 51, 57, 89, 91} // numbers that the matrix leaves out
	for n := 17; n <= 103; n++ {
		if !slices.Contains(unused, n) && !rows[fmt.Sprintf("F%d", n)] {
			t.Errorf("F%d of the fault matrix is in no table", n)
		}
	}
}

// Every incident in docs/zombies.md names a test that keeps it from happening here.
func TestEveryIncidentNamesATest(t *testing.T) {
	tree := sources(t)
	text, err := os.ReadFile("../docs/zombies.md")
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile("`(Test[A-Z]\\w+)`")
	incidents := 0
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if !strings.HasPrefix(line, "| ") || len(cells) != 3 || strings.HasPrefix(line, "| seen elsewhere") {
			continue
		}
		incidents++
		held := name.FindAllStringSubmatch(cells[2], -1)
		if len(held) == 0 {
			t.Errorf("no test is named for: %.100s", line)
		}
		for _, m := range held {
			if !tree.tests[m[1]] {
				t.Errorf("there is no %s", m[1])
			}
		}
	}
	if incidents < 30 {
		t.Errorf("only %d incidents found: the pattern has lost the tables", incidents)
	}
}
