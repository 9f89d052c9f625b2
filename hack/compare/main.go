// Compare breaks the same things under crid and under containerd and writes down, in a Markdown table, what each then says of a container, when, and
// what is left on the machine after its removal. Same pod, runc, shim, plugins and images; every trial has a daemon and a home of its own.
//
//	make compare-faults
//	make compare-faults COMPARE='-only "shim|runc" -parallel 1'
//
// It is a measurement, not a test: nothing fails because of what is found. Trials run side by side, so a busy machine shows in the times.
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
	"sync"
	"syscall"
	"time"

	"github.com/crid-project/crid/e2e/images/kit"
	"github.com/crid-project/crid/e2e/project"
)

type options struct {
	only     *regexp.Regexp
	parallel int
	runtimes []string
	out      string
	verbose  bool
}

func main() {
	var o options
	var only, runtimes string
	flag.StringVar(&only, "only", "", "only faults that match")
	flag.IntVar(&o.parallel, "parallel", 4, "trials at a time")
	flag.StringVar(&runtimes, "runtimes", "crid,containerd", "in which order")
	flag.StringVar(&o.out, "out", "", "where the table goes, too (default .results/compare-faults.md)")
	flag.BoolVar(&o.verbose, "v", false, "tell everything that is left behind")
	flag.Parse()
	o.runtimes = strings.Split(runtimes, ",")
	var err error
	if o.only, err = regexp.Compile(only); err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err = o.run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

func (o *options) run(ctx context.Context) error {
	programs, err := kit.Build(ctx)
	if err != nil {
		return err
	}
	images, err := programs.Catalogue(false)
	if err != nil {
		return err
	}
	registry, err := kit.Serve(ctx, "127.0.0.1:0", images, nil)
	if err != nil {
		return err
	}
	defer registry.Close()
	var mu sync.Mutex
	rows, errs := map[string]row{}, []error{}
	slots := make(chan struct{}, max(1, o.parallel))
	var wait sync.WaitGroup
	for _, f := range faults {
		for _, name := range o.runtimes {
			if !o.only.MatchString(f.name) {
				continue
			}
			slots <- struct{}{}
			wait.Go(func() {
				defer func() { <-slots }()
				r, err := try(ctx, f, name, registry.Addr)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					errs = append(errs, fmt.Errorf("%s, %s: %w", f.name, name, err))
					return
				}
				rows[f.name+name] = r
				fmt.Fprintln(os.Stderr, r)
				for _, l := range r.leaks {
					if o.verbose {
						fmt.Fprintln(os.Stderr, "    ", l)
					}
				}
			})
		}
	}
	wait.Wait()
	text := o.table(rows)
	fmt.Print(text)
	return errors.Join(append(errs, o.save(text))...)
}

// table is in the order of the faults.
func (o *options) table(rows map[string]row) string {
	var b strings.Builder
	b.WriteString("| fault | runtime | after 2 s | after 30 s | exit code | call or retry | removal | left behind |\n|---|---|---|---|---|---|---|---|\n")
	for _, f := range faults {
		for n, name := range o.runtimes {
			r, there := rows[f.name+name]
			if !there {
				continue
			}
			title := f.name
			if n > 0 {
				title = ""
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %s |\n", title, name, r.early, r.late, r.code, r.call, r.removal, r.left())
		}
	}
	return b.String()
}

func (o *options) save(text string) error {
	if o.out == "" {
		root, err := project.Root()
		if err != nil {
			return err
		}
		o.out = filepath.Join(root, ".results", "compare-faults.md")
	}
	if err := os.MkdirAll(filepath.Dir(o.out), 0o755); err != nil {
		return err
	}
	return os.WriteFile(o.out, []byte(text), 0o644)
}

// timed tells how long a call took and how it ended.
func timed(call func() error) string {
	start := time.Now()
	err := call()
	took := fmt.Sprintf("%.1f s", time.Since(start).Seconds())
	if err != nil {
		return word(err) + " after " + took
	}
	return "ok, " + took
}
