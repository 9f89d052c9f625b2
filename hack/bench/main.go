// Bench runs crid and containerd side by side on this machine and prints a table of medians and ratios. Both are driven by one and the same
// CRI client, on the same runc, shim, CNI plugins, kind of network and images, in turns; each has a home of its own.
//
//	make bench
//	make bench BENCH='-quick'
//	make bench BENCH='-only "pod up|exec" -rounds 50'
//
// It is a measurement, not a test: nothing fails because it is slow. Other work on the machine shows in the numbers.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/images/kit"
	"github.com/crid-project/crid/e2e/project"
)

type options struct {
	rounds, pods, burst, parallel, pulls int
	only                                 *regexp.Regexp
	out, runtimes                        string
	quick                                bool
	limit                                time.Duration
}

func main() {
	var o options
	var only string
	flag.IntVar(&o.rounds, "rounds", 30, "how often each small thing is done")
	flag.IntVar(&o.pods, "pods", 60, "pods that are up for lists, statistics, memory and restart")
	flag.IntVar(&o.burst, "burst", 30, "pods of the burst")
	flag.IntVar(&o.parallel, "parallel", 8, "how many of them at a time")
	flag.IntVar(&o.pulls, "pulls", 5, "how often the many-layer image is pulled")
	flag.StringVar(&only, "only", "", "only sections that match: pod up, burst, exec, pull, many, restart")
	flag.StringVar(&o.out, "out", "", "also write the table here (default .results/bench.txt)")
	flag.StringVar(&o.runtimes, "runtimes", "containerd,crid", "the first is what the others are compared with")
	flag.BoolVar(&o.quick, "quick", false, "few rounds: two minutes instead of ten")
	flag.DurationVar(&o.limit, "limit", 30*time.Minute, "for all of it")
	flag.Parse()
	if o.quick {
		o.rounds, o.pods, o.burst, o.pulls = 8, 20, 16, 2
	}
	var err error
	if o.only, err = regexp.Compile(only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	err = o.run(ctx)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (o *options) run(ctx context.Context) (err error) {
	start := time.Now()
	programs, err := kit.Build(ctx)
	if err != nil {
		return err
	}
	images, err := programs.Catalogue(true)
	if err != nil {
		return err
	}
	registry, err := kit.Serve(ctx, "127.0.0.1:0", images, nil)
	if err != nil {
		return err
	}
	defer registry.Close()
	b := &bench{options: o, table: newTable()}
	for _, name := range strings.Split(o.runtimes, ",") {
		p, e := launch(ctx, name, registry.Addr)
		if e != nil {
			err = errors.Join(err, e)
			break
		}
		b.parties = append(b.parties, p)
		b.table.parties = append(b.table.parties, p.name)
	}
	if err == nil {
		err = b.all(ctx)
	}
	for _, p := range b.parties {
		err = errors.Join(err, p.end(context.WithoutCancel(ctx)))
	}
	if err != nil {
		return err
	}
	text := b.table.String() + fmt.Sprintf("\n%s, %s\n", machine(), time.Since(start).Round(time.Second))
	fmt.Print(text)
	return o.save(text)
}

func (o *options) save(text string) error {
	if o.out == "" {
		root, err := project.Root()
		if err != nil {
			return err
		}
		o.out = filepath.Join(root, ".results", "bench.txt")
	}
	if err := os.MkdirAll(filepath.Dir(o.out), 0o755); err != nil {
		return err
	}
	return os.WriteFile(o.out, []byte(text), 0o644)
}

// party is one runtime in the comparison.
type party struct {
	name string
	*harness.Daemon
}

func launch(ctx context.Context, name, registry string) (*party, error) {
	kinds := map[string]harness.Kind{"crid": harness.Crid{Level: "info"}, "containerd": harness.Containerd{Level: "info"}}
	kind, ok := kinds[name]
	if !ok {
		return nil, fmt.Errorf("no such runtime: %s", name)
	}
	home, err := harness.NewHome(harness.Full)
	if err != nil {
		return nil, err
	}
	d, err := prepare(ctx, home, kind, registry)
	if err != nil {
		return nil, errors.Join(err, home.Remove())
	}
	return &party{name: name, Daemon: d}, nil
}

func prepare(ctx context.Context, home *harness.Home, kind harness.Kind, registry string) (*harness.Daemon, error) {
	if err := kit.WriteHosts(home.Certs(), registry); err != nil {
		return nil, err
	}
	d, err := harness.Launch(ctx, home, kind)
	if err != nil {
		return nil, err
	}
	for _, image := range []string{kit.Busybox, kit.Pause} {
		if err := d.Have(ctx, image); err != nil {
			return nil, errors.Join(err, d.Kill())
		}
	}
	return d, nil
}

func (p *party) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	if p.Running() {
		_ = p.RemoveAllPods(ctx) // what is left, the home's end takes
		_ = p.Stop()
	}
	return p.Home.Remove()
}
