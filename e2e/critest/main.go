// Critest runs the CRI validation suite in full, offline, against a runtime that it starts with everything of its own, and fails unless
// every spec that ran passed.
//
//	go run ./e2e/critest                        crid: all specs in random order, then the streaming ones over WebSocket
//	go run ./e2e/critest -runtime containerd    the peer, to check the image kit itself
//	go run ./e2e/critest -focus 'port mapping'  some specs
//	go run ./e2e/critest -endpoint unix:///run/crid/crid.sock   a runtime that runs already (it must find the images itself)
//
// The suite's own report and log stay in .results/critest/. Its images come from the kit's registry on a loopback port; the one digest
// that it pins is exchanged for that of the kit's image (kit.PatchDigest).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/images/kit"
	"github.com/crid-project/crid/e2e/project"
)

type options struct {
	runtime, endpoint, handler, focus, skip, out, level string
	seed                                                int64
	ordered, noWebSocket                                bool
	least                                               int
	limit                                               time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.runtime, "runtime", "crid", "crid or containerd, started here")
	flag.StringVar(&o.endpoint, "endpoint", "", "socket of a runtime that runs already, instead")
	flag.StringVar(&o.handler, "handler", "", "runtime handler to ask for")
	flag.StringVar(&o.focus, "focus", "", "only specs that match this regular expression")
	flag.StringVar(&o.skip, "skip", "", "not those that match this one")
	flag.StringVar(&o.out, "out", "", "folder for reports (default .results/critest)")
	flag.StringVar(&o.level, "log-level", "info", "of the runtime's own log")
	flag.Int64Var(&o.seed, "seed", 1, "of the random order")
	flag.BoolVar(&o.ordered, "ordered", false, "in the suite's own order")
	flag.BoolVar(&o.noWebSocket, "no-websocket", false, "leave out the second run, of streaming over WebSocket")
	flag.IntVar(&o.least, "least", 100, "a full run in which fewer specs pass has failed, whatever it says")
	flag.DurationVar(&o.limit, "limit", 15*time.Minute, "for all of it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	err := o.run(ctx)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "critest:", err)
		os.Exit(1)
	}
}

func (o *options) run(ctx context.Context) (err error) {
	if o.out == "" {
		root, err := project.Root()
		if err != nil {
			return err
		}
		o.out = filepath.Join(root, ".results", "critest")
	}
	if o.out, err = filepath.Abs(o.out); err != nil {
		return err
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	if err := portsFree(ctx); err != nil {
		return err
	}
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
	suite := &suite{options: o, program: filepath.Join(o.out, "critest")}
	original, err := project.Bin("critest")
	if err != nil {
		return err
	}
	if err := kit.PatchDigest(original, suite.program, images); err != nil {
		return err
	}
	defer os.Remove(suite.program)
	if o.endpoint != "" {
		suite.socket = strings.TrimPrefix(o.endpoint, "unix://")
		return suite.all(ctx)
	}
	return o.withDaemon(ctx, registry.Addr, suite)
}

// withDaemon runs the suite against a runtime that lives only for it.
func (o *options) withDaemon(ctx context.Context, registry string, s *suite) (err error) {
	kinds := map[string]harness.Kind{"crid": harness.Crid{Level: o.level}, "containerd": harness.Containerd{Level: o.level}}
	kind, ok := kinds[o.runtime]
	if !ok {
		return fmt.Errorf("no such runtime: %s", o.runtime)
	}
	home, err := harness.NewHome(harness.Full)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, home.Remove()) }()
	if err := kit.WriteHosts(home.Certs(), registry); err != nil {
		return err
	}
	d, err := harness.Launch(ctx, home, kind)
	if err != nil {
		return err
	}
	s.socket, s.tmp = home.Socket(), home.Tmp()
	err = s.all(ctx)
	if !d.Running() {
		return errors.Join(err, fmt.Errorf("%s died during the suite:\n%s", kind.Name(), d.LogTail(40)))
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	err = errors.Join(err, d.RemoveAllPods(end), d.Stop())
	if log, e := os.ReadFile(home.Log()); e == nil {
		err = errors.Join(err, os.WriteFile(filepath.Join(o.out, kind.Name()+".log"), log, 0o644))
	}
	return err
}
