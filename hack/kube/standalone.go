package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/hack/kube/cluster"
	"github.com/crid-project/crid/hack/kube/pods"
)

// standalone runs all static pods on a kubelet without a cluster, shows them, removes them, and looks whether anything is left.
func standalone(ctx context.Context) error {
	s, err := open("kubelet", false)
	if err != nil {
		return err
	}
	err = s.showStaticPods(ctx)
	down, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Minute)
	defer cancel()
	if err = errors.Join(err, s.remove(down)); err == nil {
		fmt.Println("crid, the kubelet and all their files are gone")
	}
	return err
}

func (s *site) showStaticPods(ctx context.Context) error {
	if err := s.start(ctx); err != nil {
		return err
	}
	before, err := s.census(ctx)
	if err != nil {
		return err
	}
	host := filepath.Join(s.Home.Tmp(), "host")
	if err := os.MkdirAll(host, 0o755); err != nil {
		return err
	}
	for _, name := range pods.Names() {
		if err := pods.Write(name, s.Kubelet.Manifests(), host); err != nil {
			return err
		}
	}
	begun := time.Now()
	if err := s.awaitPods(ctx, 3*time.Minute, settled); err != nil {
		return err
	}
	fmt.Printf("\n%d static pods after %.1f s, as the kubelet's /pods shows them:\n\n", len(pods.Names()), time.Since(begun).Seconds())
	if err := s.printPods(ctx); err != nil {
		return err
	}
	begun = time.Now()
	for _, name := range pods.Names() {
		if err := os.Remove(pods.File(name, s.Kubelet.Manifests())); err != nil {
			return err
		}
	}
	fmt.Println("\ntheir manifests are removed; the kubelet ends the pods, and collects dead sandboxes once a minute")
	if err := s.awaitNothing(ctx, before, 4*time.Minute); err != nil {
		return err
	}
	fmt.Printf("nothing is left after %.1f s: no pod, process, mount below crid's folders, lease or cgroup\n", time.Since(begun).Seconds())
	return nil
}

// status of a pod, as far as it is shown.
type podStatus struct {
	Metadata struct{ Name string }
	Status   struct {
		Phase, PodIP                             string
		InitContainerStatuses, ContainerStatuses []struct {
			Name         string
			Ready        bool
			RestartCount int
			State        map[string]struct{ Reason string }
			LastState    map[string]struct {
				Reason, Message string
				ExitCode        int
			}
		}
	}
}

func (s *site) podList(ctx context.Context) ([]podStatus, error) {
	data, err := s.Kubelet.ReadOnly(ctx, "/pods")
	if err != nil {
		return nil, err
	}
	var list struct{ Items []podStatus }
	err = json.Unmarshal(data, &list)
	return list.Items, err
}

// settled tells whether the pods have come to show what they are for: the loop has turned three times, the rest runs or is over.
func settled(list []podStatus) error {
	if len(list) < len(pods.Names()) {
		return fmt.Errorf("the kubelet shows %d pods", len(list))
	}
	for _, p := range list {
		if p.Status.Phase == "Pending" {
			return fmt.Errorf("%s is pending", p.Metadata.Name)
		}
		for _, c := range p.Status.ContainerStatuses {
			if strings.HasPrefix(p.Metadata.Name, "loop-") && c.RestartCount < 3 {
				return fmt.Errorf("%s has been restarted %d times", c.Name, c.RestartCount)
			}
		}
	}
	return nil
}

func (s *site) awaitPods(ctx context.Context, limit time.Duration, done func([]podStatus) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		list, err := s.podList(ctx)
		if err == nil {
			if err = done(list); err == nil {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the pods: %w; the logs are in %s", err, s.Home.Dir)
		case <-time.After(300 * time.Millisecond):
		}
	}
}

func (s *site) printPods(ctx context.Context) error {
	list, err := s.podList(ctx)
	if err != nil {
		return err
	}
	for _, p := range list {
		fmt.Printf("%-18s %-9s %s\n", p.Metadata.Name, p.Status.Phase, p.Status.PodIP)
		for _, c := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
			state := ""
			for name, detail := range c.State {
				state = strings.TrimSpace(name + " " + detail.Reason)
			}
			fmt.Printf("    %-12s %-28s ready %-5t restarts %d", c.Name, state, c.Ready, c.RestartCount)
			if last, ok := c.LastState["terminated"]; ok {
				fmt.Printf(", before: %s %d %q", last.Reason, last.ExitCode, strings.TrimSpace(last.Message))
			}
			fmt.Println()
		}
	}
	return nil
}

// awaitNothing waits until the kubelet has ended and removed every pod, and tells what is left otherwise.
func (s *site) awaitNothing(ctx context.Context, before harness.Census, limit time.Duration) error {
	client, err := harness.Dial(s.Home.Socket())
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		left, err := client.Pods(ctx)
		if err == nil && len(left) == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("after %s there are still %d pods (%w)", limit, len(left), errors.Join(err, ctx.Err()))
		case <-time.After(time.Second):
		}
	}
	if err := s.Kubelet.Stop(); err != nil {
		return err
	}
	if err := cluster.RemoveCgroup(s.Home.Cgroup + "/kubepods"); err != nil {
		return fmt.Errorf("pods are gone, their cgroups are not empty: %w", err)
	}
	after, err := s.census(ctx)
	if err != nil {
		return err
	}
	if leaks := before.Leaks(after); len(leaks) > 0 {
		return fmt.Errorf("all pods are gone, and these are left:\n  %s", strings.Join(leaks, "\n  "))
	}
	return nil
}

var idInName = regexp.MustCompile(`[0-9a-f]{64}`)

// census is what there is of pods, without what is there as long as crid runs: its lasting folders and parents of cgroups.
func (s *site) census(ctx context.Context) (harness.Census, error) {
	client, err := harness.Dial(s.Home.Socket())
	if err != nil {
		return nil, err
	}
	defer client.Close()
	c := (&harness.Daemon{Home: s.Home, Kind: harness.Crid{}, CRI: client}).Census(ctx)
	for what := range c {
		if lasting := strings.HasPrefix(what, "folder ") || strings.HasPrefix(what, "socket "); lasting && !idInName.MatchString(what) || strings.HasSuffix(what, s.Home.Cgroup) {
			delete(c, what)
		}
	}
	return c, nil
}
