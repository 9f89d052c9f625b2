// Conformance runs the NodeConformance part of Kubernetes' own node suite (test/e2e_node, built from the module) offline, against a runtime that
// it starts with everything of its own.
//
//	go run ./hack/kube/conformance                        crid: every spec that is labelled NodeConformance and neither Serial, Slow, Flaky nor Disruptive
//	go run ./hack/kube/conformance -runtime containerd    the peer, under the same kubelet with the same images
//	go run ./hack/kube/conformance -focus 'Probing'       some specs
//	go run ./hack/kube/conformance -filter 'NodeConformance && Slow'
//
// The suite has fixed ports and a cgroup that it expects, and a kubelet writes to fixed folders. So all of it runs in a network, a mount and a cgroup
// namespace that end with it: this program starts itself again in them. Of the machine nothing is changed but that folders to mount on
// (/var/lib/kubelet, /var/log/pods, /var/log/containers) are made where they are missing.
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
	"runtime"
	"syscall"
	"time"

	"github.com/crid-project/crid/e2e/project"
)

// Filter chooses what the project's own job calls NodeConformance, without what needs the machine for itself.
const defaultFilter = "NodeConformance && !Serial && !Slow && !Flaky && !Disruptive"

// inside is set for the second self, in the namespaces; caged, if its cgroup is the root that it sees.
const (
	inside = "CRID_CONFORMANCE_INSIDE"
	caged  = "CRID_CONFORMANCE_CAGED"
)

type options struct {
	runtime, filter, focus, skip, out, level string
	procs                                    int
	seed                                     int64
	limit                                    time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.runtime, "runtime", "crid", "crid or containerd")
	flag.StringVar(&o.filter, "filter", defaultFilter, "labels of the specs to run")
	flag.StringVar(&o.focus, "focus", "", "only specs that match this regular expression")
	flag.StringVar(&o.skip, "skip", "", "not those that match this one")
	flag.StringVar(&o.out, "out", "", "folder for reports and logs (default .results/nodeconformance/RUNTIME)")
	flag.StringVar(&o.level, "log-level", "info", "of the runtime's own log")
	flag.IntVar(&o.procs, "procs", 4, "specs at a time")
	flag.Int64Var(&o.seed, "seed", 1, "of the random order")
	flag.DurationVar(&o.limit, "limit", 90*time.Minute, "for all of it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	err := o.run(ctx)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func (o *options) run(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("containers need root")
	}
	if o.out == "" {
		root, err := project.Root()
		if err != nil {
			return err
		}
		o.out = filepath.Join(root, ".results", "nodeconformance", o.runtime)
	}
	var err error
	if o.out, err = filepath.Abs(o.out); err != nil {
		return err
	}
	if os.Getenv(inside) == "" {
		return again(ctx)
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	w, err := newWorld(o)
	if err != nil {
		return err
	}
	err = w.examine(ctx)
	return errors.Join(err, w.close())
}

// again runs this program in new namespaces and passes its status on.
func again(ctx context.Context) (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 3 * time.Minute
	runtime.LockOSThread() // the parent, whose death is signalled, is a thread
	defer runtime.UnlockOSThread()
	cage, err := newCage()
	if err != nil {
		return fmt.Errorf("make a cgroup: %w", err)
	}
	if cage != nil {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWCGROUP
		cmd.Env = append(cmd.Env, caged+"=1")
		defer func() { err = errors.Join(err, cage.remove()) }()
	}
	err = cmd.Start()
	if cage != nil {
		err = errors.Join(err, cage.leave())
	}
	if err != nil {
		return err
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); errors.As(err, &exit) {
		return errTold
	} else if err != nil {
		return err
	}
	return nil
}

// errTold is for what the second self has said already.
var errTold = errors.New("see above")
