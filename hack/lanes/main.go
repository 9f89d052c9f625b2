// Lanes runs the project's tests, lane by lane, and says at the end how many passed, failed and were skipped, and why.
//
//	go run ./hack/lanes                    all: unit model e2e faults endurance critest
//	go run ./hack/lanes unit e2e           some
//	go run ./hack/lanes -run 'Restart' e2e
//
// What a lane skips is named with its reason. A few tests that fail are run once more, alone: what passes then depended on the load of the
// machine, and is named as such. The last line counts over all lanes; the status is 0 only if nothing failed for good.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/crid-project/crid/e2e/project"
)

// lane is one kind of tests.
type lane struct {
	name, what string
	root       bool // it is nothing without root
	limit      time.Duration
	full       time.Duration // limit with CRID_FAULTS=all; 0: as ever
	args       []string      // of go test; none: the validation suite
	packages   []string      // patterns, for go test; see expand
	env        []string
}

// lanes in the order in which they run: what is quick and near to the code first.
var lanes = []lane{
	{name: "unit", what: "every package by itself; parts that need root or the run-time parts find both here", limit: 15 * time.Minute,
		args: []string{"-timeout", "10m"}, packages: []string{"./..."}},
	{name: "model", what: "the law walked exhaustively, thousands of simulated lives of the whole shell, and every known bug put back and caught", limit: 15 * time.Minute,
		args: []string{"-timeout", "14m"}, packages: []string{"./store/lifecycle", "./sandbox/sim"}, env: []string{"CRID_MODEL=long", "CRID_MUTANTS=1"}},
	{name: "e2e", what: "the real daemon on real runc, shim and plugins, with a census of leaks", root: true, limit: 25 * time.Minute,
		args: []string{"-tags", "e2e", "-p", "1", "-timeout", "24m"}, packages: []string{"./e2e/...", "-./e2e/faults/...", "-./e2e/kube/..."}},
	{name: "faults", what: faultsAre, root: true, limit: 16 * time.Minute, full: 3 * time.Hour,
		args: []string{"-tags", "e2e", "-p", "1"}, packages: []string{"./e2e/faults/..."}},
	{name: "endurance", what: "a kubelet's loop while shims, daemon, runc, plugins and disks break by a seed; a hundred pods that leave nothing; histories of concurrent calls held against a model", root: true, limit: 10 * time.Minute,
		args: []string{"-tags", "endurance", "-p", "1", "-timeout", "9m"}, packages: []string{"./e2e/soak", "./e2e/churn", "./e2e/histories"}},
	{name: "critest", what: "the CRI validation suite in full, in random order; streaming again over WebSocket", root: true, limit: 15 * time.Minute},
}

// allFaults names the environment variable that makes the faults lane inject all there are: CRID_FAULTS=all. Without it each run injects a part,
// which changes from day to day (CRID_FAULTS_SEED=n for another).
const (
	allFaults = "CRID_FAULTS"
	faultsAre = "the daemon killed, failing or left by its client at every step, and all around it misbehaving (a part of it; make faults for all)"
)

// faultsSeed is the number of this day's part, or $CRID_FAULTS_SEED.
func faultsSeed() string {
	if s := os.Getenv("CRID_FAULTS_SEED"); s != "" {
		return s
	}
	return strconv.FormatInt(time.Now().Unix()/(24*60*60), 10)
}

// ends is how long the lane may take.
func (l lane) ends() time.Duration {
	if l.full > 0 && os.Getenv(allFaults) == "all" {
		return l.full
	}
	return l.limit
}

// flags are the lane's for go test.
func (l lane) flags() []string {
	flags := slices.Clone(l.args)
	if l.full > 0 {
		flags = append(flags, "-timeout", (l.ends() - time.Minute).String())
	}
	return flags
}

func main() {
	var run, seed string
	var verbose, race bool
	flag.StringVar(&run, "run", "", "only tests that match")
	flag.StringVar(&seed, "seed", "1", "of the validation suite's order")
	flag.BoolVar(&verbose, "v", false, "show every test")
	flag.BoolVar(&race, "race", false, "with the race detector")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	r := &runner{run: run, seed: seed, verbose: verbose, race: race}
	if err := r.all(ctx, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "lanes:", err)
		stop()
		os.Exit(1)
	}
}

type runner struct {
	run, seed     string
	verbose, race bool
	root          string
	total         tally
}

func (r *runner) all(ctx context.Context, names []string) error {
	root, err := project.Root()
	if err != nil {
		return err
	}
	r.root = root
	start := time.Now()
	var errs []error
	for _, name := range names {
		if !known(name) {
			return fmt.Errorf("no such lane: %s", name)
		}
	}
	for _, l := range lanes {
		if len(names) > 0 && !contains(names, l.name) {
			continue
		}
		if err := r.one(ctx, l); err != nil {
			errs = append(errs, fmt.Errorf("lane %s: %w", l.name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	r.total.reasons(os.Stdout)
	fmt.Printf("\nall lanes: %s\n", time.Since(start).Round(time.Second))
	if len(r.total.second) > 0 {
		fmt.Println("failed at first, passed when run again alone:")
		for _, f := range r.total.second {
			fmt.Println("  " + f)
		}
	}
	if len(r.total.failures) > 0 {
		fmt.Println("failed:")
		for _, f := range r.total.failures {
			fmt.Println("  " + f)
		}
	}
	err = errors.Join(errs...)
	if err != nil && r.total.failed == 0 {
		r.total.failed = len(errs) // a lane that could not run is no success
	}
	if err == nil && r.total.passed == 0 {
		err = errors.New("no test ran")
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", r.total.passed, r.total.failed, r.total.skipped)
	return err
}

func known(name string) bool {
	for _, l := range lanes {
		if l.name == name {
			return true
		}
	}
	return false
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

func (r *runner) one(ctx context.Context, l lane) error {
	fmt.Printf("\n== %s: %s ==\n", l.name, l.what)
	if l.root && os.Geteuid() != 0 {
		fmt.Println("skipped: needs root")
		r.total.skip("lane "+l.name, "needs root")
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, l.ends())
	defer cancel()
	start := time.Now()
	before, failed := r.total.counts(), len(r.total.failures)
	var err error
	if l.args == nil {
		err = r.suite(ctx)
	} else {
		err = r.tests(ctx, l, failed)
	}
	after := r.total.counts()
	fmt.Printf("%s: %d passed, %d failed, %d skipped in %s\n", l.name, after[0]-before[0], after[1]-before[1], after[2]-before[2], time.Since(start).Round(time.Second))
	return err
}

// tests runs a lane of go test, and what failed in it once more.
func (r *runner) tests(ctx context.Context, l lane, failed int) error {
	packages, err := r.expand(ctx, l)
	if err != nil {
		return err
	}
	if l.full > 0 && l.ends() != l.full {
		l.env = append(slices.Clone(l.env), "CRID_FAULTS_SEED="+faultsSeed())
		fmt.Println("the part of CRID_FAULTS_SEED=" + faultsSeed())
	}
	if err = r.goTest(ctx, l, &r.total, append(l.flags(), packages...)...); err != nil && ctx.Err() == nil {
		err = r.again(ctx, l, failed, err)
	}
	return err
}

// environment lets tests find the run-time parts.
func (r *runner) environment(more ...string) []string {
	bin := filepath.Join(r.root, "bin")
	env := append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "CRID_TEST_BIN="+bin, "CNI_BIN="+filepath.Join(bin, "cni"), "CRID_TEST_OLD_SHIM="+filepath.Join(bin, "peer", "containerd-shim-runc-v2-1.7"), project.RootEnv+"="+r.root)
	return append(env, more...)
}

// again runs what failed in a lane once more, and alone: up to five tests, those from the failure numbered from on. The error is cause as long as one
// of them fails again.
func (r *runner) again(ctx context.Context, l lane, from int, cause error) error {
	const few = 5
	tests := byPackage(r.total.failures[from:])
	if len(tests) == 0 || len(r.total.failures)-from > few {
		return cause
	}
	fmt.Println("once more, alone: what failed")
	left := r.total.failures[:from:from]
	for _, p := range tests {
		var second tally
		args := append(l.flags(), "-run", p.pattern(), "./"+p.dir)
		if err := r.goTest(ctx, l, &second, args...); err != nil || second.passed == 0 {
			left = append(left, p.failures...)
			continue
		}
		r.total.failed -= len(p.failures)
		r.total.passed += len(p.failures)
		r.total.second = append(r.total.second, p.failures...)
	}
	r.total.failures = left
	if len(left) == from {
		return nil
	}
	return cause
}

func (r *runner) goTest(ctx context.Context, l lane, count *tally, what ...string) error {
	args := []string{"test", "-json", "-count=1"}
	if r.race {
		args = append(args, "-race")
	}
	args = append(args, what...)
	if r.run != "" && count == &r.total {
		args = append(args, "-run", r.run)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env, cmd.Stderr = r.root, r.environment(l.env...), os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 20 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	read := count.follow(out, os.Stdout, r.verbose)
	return errors.Join(cmd.Wait(), read)
}

// expand answers the packages of a lane: those that its patterns match, less those that patterns with a minus before them match.
func (r *runner) expand(ctx context.Context, l lane) ([]string, error) {
	var with, without []string
	for _, p := range l.packages {
		if rest, ok := strings.CutPrefix(p, "-"); ok {
			without = append(without, rest)
		} else {
			with = append(with, p)
		}
	}
	if len(without) == 0 {
		return with, nil
	}
	list := func(patterns []string) ([]string, error) {
		cmd := exec.CommandContext(ctx, "go", append([]string{"list", "-tags", "e2e"}, patterns...)...)
		cmd.Dir, cmd.Stderr = r.root, os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("list packages: %w", err)
		}
		return strings.Fields(string(out)), nil
	}
	all, err := list(with)
	if err != nil {
		return nil, err
	}
	not, err := list(without)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(p string) bool { return slices.Contains(not, p) }), nil
}

// suite runs the validation suite's own program and takes its counts from the last line.
func (r *runner) suite(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "run", "./e2e/critest", "-seed", r.seed)
	if r.run != "" {
		cmd.Args = append(cmd.Args, "-focus", r.run)
	}
	cmd.Dir, cmd.Env, cmd.Stderr = r.root, r.environment(), os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = time.Minute
	var last lastLine
	cmd.Stdout = &last
	err := cmd.Run()
	var p, f, s int
	if _, e := fmt.Sscanf(last.line(), "%d passed, %d failed, %d skipped", &p, &f, &s); e != nil {
		return errors.Join(err, fmt.Errorf("the suite gave no counts: %q", last.line()))
	}
	r.total.passed, r.total.failed = r.total.passed+p, r.total.failed+f
	for _, line := range strings.Split(last.all.String(), "\n") {
		if name, ok := strings.CutPrefix(line, "  skipped "); ok {
			at := strings.LastIndex(name, ": ")
			r.total.skip("critest "+name[:max(at, 0)], name[at+1:])
		} else if name, ok := strings.CutPrefix(line, "  FAILED  "); ok {
			r.total.failures = append(r.total.failures, "critest "+name)
		}
	}
	return err
}
