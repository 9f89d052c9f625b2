package main

import (
	"regexp"
	"slices"
	"strings"
)

// failedPackage is what failed of one package.
type failedPackage struct {
	dir      string
	failures []string // as the tally names them
}

// byPackage sorts failures, none if one of them is no test: a package that does not build or ran out of time fails for good.
func byPackage(failures []string) []failedPackage {
	var all []failedPackage
	for _, f := range failures {
		dir, test, _ := strings.Cut(f, " ")
		if !strings.HasPrefix(test, "Test") {
			return nil
		}
		at := slices.IndexFunc(all, func(p failedPackage) bool { return p.dir == dir })
		if at < 0 {
			at, all = len(all), append(all, failedPackage{dir: dir})
		}
		all[at].failures = append(all[at].failures, f)
	}
	return all
}

// pattern is for go test -run: the tests by their first names, for a subtest may stand on its brothers.
func (p failedPackage) pattern() string {
	var names []string
	for _, f := range p.failures {
		_, test, _ := strings.Cut(f, " ")
		test, _, _ = strings.Cut(test, "/")
		if name := regexp.QuoteMeta(test); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return "^(" + strings.Join(names, "|") + ")$"
}
