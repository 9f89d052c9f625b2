package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/project"
	"github.com/crid-project/crid/hack/kube/cluster"
	"github.com/crid-project/crid/hack/kube/proc"
)

// site is one installation: crid in a home of its own, a registry with the test images, a kubelet, and a control plane if it is a cluster.
// It is kept in a file, so that the next call of this program finds what the last one has started.
type site struct {
	file     string
	Home     *harness.Home
	Registry string // address
	Kubelet  *cluster.Kubelet
	Control  *cluster.Control
}

// open reads the site of that name, or makes one.
func open(name string, withControl bool) (*site, error) {
	s, err := load(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	if s.Home, err = harness.NewHome(harness.Full); err != nil {
		return nil, err
	}
	s.Kubelet = &cluster.Kubelet{Dir: filepath.Join(s.Home.Dir, "kubelet"), Socket: s.Home.Socket(), CgroupRoot: s.Home.Cgroup,
		Config: map[string]any{"featureGates": map[string]bool{"PodAndContainerStatsFromCRI": true}}}
	if withControl {
		s.Control = &cluster.Control{Dir: filepath.Join(s.Home.Dir, "control")}
		s.Kubelet.Control = s.Control
	}
	return s, s.save()
}

// load fails with fs.ErrNotExist where there is no site; the returned one can be filled then.
func load(name string) (*site, error) {
	root, err := project.Root()
	if err != nil {
		return nil, err
	}
	s := &site{file: filepath.Join(root, ".kube", name+".json")}
	data, err := os.ReadFile(s.file)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("read %s: %w", s.file, err)
	}
	s.Kubelet.Control = s.Control
	return s, nil
}

func (s *site) save() error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(s.file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(s.file, data, 0o644)
}

// start starts what does not run: registry, crid, control plane, kubelet.
func (s *site) start(ctx context.Context) error {
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{{"registry", s.serveImages}, {"crid", s.startCrid}, {"control plane", s.startControl}, {"kubelet", s.Kubelet.Start}} {
		begun := time.Now()
		if err := step.do(ctx); err != nil {
			return err
		}
		fmt.Printf("%-14s ready after %.1f s\n", step.name, time.Since(begun).Seconds())
	}
	return s.save()
}

func (s *site) startControl(ctx context.Context) error {
	if s.Control == nil {
		return nil
	}
	return s.Control.Start(ctx)
}

// serveImages runs the registry of the test images as a process of its own.
func (s *site) serveImages(ctx context.Context) error {
	if p, err := proc.Find(s.Home.Dir, "registry"); err == nil && p.Alive() {
		return nil
	}
	root, err := project.Root()
	if err != nil {
		return err
	}
	program := filepath.Join(root, "bin", "kube", "registry")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "./e2e/images")
	build.Dir, build.Stdout, build.Stderr = root, os.Stdout, os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the registry: %w", err)
	}
	if s.Registry == "" {
		ports, err := cluster.Ports(1)
		if err != nil {
			return err
		}
		s.Registry = fmt.Sprintf("127.0.0.1:%d", ports[0])
	}
	p, err := proc.Start(proc.Spec{Dir: s.Home.Dir, Name: "registry", Env: []string{project.RootEnv + "=" + root},
		Argv: []string{program, "serve", "-addr", s.Registry, "-certs", s.Home.Certs()}})
	if err != nil {
		return err
	}
	return p.WaitFor(ctx, 3*time.Minute, func(ctx context.Context) error {
		_, err := cluster.Get(ctx, "http://"+s.Registry+"/v2/")
		return err
	})
}

func (s *site) startCrid(ctx context.Context) error {
	if p, err := proc.Find(s.Home.Dir, "crid"); err == nil && p.Alive() {
		return nil
	}
	program, args, err := harness.Crid{Level: "info", Metrics: "127.0.0.1:0"}.Prepare(s.Home)
	if err != nil {
		return err
	}
	p, err := proc.Start(proc.Spec{Dir: s.Home.Dir, Name: "crid", Argv: append([]string{program}, args...)})
	if err != nil {
		return err
	}
	return p.WaitFor(ctx, 30*time.Second, func(ctx context.Context) error {
		c, err := harness.Dial(s.Home.Socket())
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Version(ctx)
		return err
	})
}

// stop ends every server; pods stay.
func (s *site) stop() error {
	errs := []error{s.Kubelet.Stop()}
	if s.Control != nil {
		errs = append(errs, s.Control.Stop())
	}
	for _, name := range []string{"crid", "registry"} {
		if p, err := proc.Find(s.Home.Dir, name); err == nil {
			errs = append(errs, p.Stop(20*time.Second))
		}
	}
	return errors.Join(errs...)
}

// remove ends every server and pod and takes away all that the site has.
func (s *site) remove(ctx context.Context) error {
	errs := []error{s.Kubelet.Stop()} // first, or it would make pods anew
	if err := s.startCrid(ctx); err != nil {
		errs = append(errs, err)
	} else {
		errs = append(errs, s.removePods(ctx))
	}
	errs = append(errs, s.stop(), s.Home.Remove(), os.Remove(s.file))
	return errors.Join(errs...)
}

func (s *site) removePods(ctx context.Context) error {
	c, err := harness.Dial(s.Home.Socket())
	if err != nil {
		return err
	}
	defer c.Close()
	return c.RemoveAllPods(ctx)
}
