package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/crid-project/crid/hack/kube/proc"
)

const clusterName = "cluster"

func up(ctx context.Context) error {
	s, err := open(clusterName, true)
	if err != nil {
		return err
	}
	begun := time.Now()
	if err := s.start(ctx); err != nil {
		return err
	}
	if err := s.nodeReady(ctx, 2*time.Minute); err != nil {
		return err
	}
	fmt.Printf("node Ready after %.1f s\n\n", time.Since(begun).Seconds())
	for _, args := range [][]string{{"get", "nodes", "-o", "wide"}, {"get", "pods", "-A"}} {
		out, err := s.Control.Kubectl(ctx, nil, args...)
		if err != nil {
			return err
		}
		fmt.Printf("$ kubectl %s\n%s\n", strings.Join(args, " "), out)
	}
	fmt.Printf(`The cluster goes on running. To use it:
  export KUBECONFIG=%s PATH=$PWD/bin/kube:$PATH
  kubectl create deployment web --image registry.k8s.io/e2e-test-images/nginx:1.14-2 --replicas 2
  kubectl get pods -o wide
Images come from a registry of its own, on %s: go run ./e2e/images list
Logs are in %s. There are no services' addresses (no kube-proxy) and no DNS.
make cluster-stop    ends the servers; pods go on
make cluster-reset   removes everything
`, s.Control.Admin(), s.Registry, s.Home.Dir)
	return nil
}

func (s *site) nodeReady(ctx context.Context, limit time.Duration) error {
	_, err := s.Control.Kubectl(ctx, nil, "wait", "--for=create", "node/"+s.Kubelet.Name, "--timeout="+limit.String())
	if err != nil {
		return err
	}
	_, err = s.Control.Kubectl(ctx, nil, "wait", "--for=condition=Ready", "node/"+s.Kubelet.Name, "--timeout="+limit.String())
	return err
}

func existing() (*site, error) {
	s, err := load(clusterName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no cluster; make cluster starts one")
	}
	return s, err
}

func status(ctx context.Context) error {
	s, err := existing()
	if err != nil {
		return err
	}
	for _, p := range [][2]string{{s.Home.Dir, "registry"}, {s.Home.Dir, "crid"}, {s.Control.Dir, "etcd"}, {s.Control.Dir, "kube-apiserver"},
		{s.Control.Dir, "kube-controller-manager"}, {s.Control.Dir, "kube-scheduler"}, {s.Kubelet.Dir, "kubelet"}} {
		if found, err := proc.Find(p[0], p[1]); err == nil && found.Alive() {
			fmt.Printf("%-24s runs, pid %d\n", p[1], found.Pid())
		} else {
			fmt.Printf("%-24s does not run\n", p[1])
		}
	}
	if api, err := proc.Find(s.Control.Dir, "kube-apiserver"); err != nil || !api.Alive() {
		return nil //nolint:nilerr // nobody to ask; that was told above
	}
	out, err := s.Control.Kubectl(ctx, nil, "get", "nodes,pods", "-A", "-o", "wide")
	fmt.Print(out)
	return err
}

func halt() error {
	s, err := existing()
	if err != nil {
		return err
	}
	if err := s.stop(); err != nil {
		return err
	}
	fmt.Println("the servers have ended; pods go on. make cluster finds them again, make cluster-reset removes them")
	return nil
}

func reset(ctx context.Context) error {
	s, err := load(clusterName)
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Println("nothing to reset: there is no cluster")
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.remove(ctx); err != nil {
		return err
	}
	fmt.Println("the cluster, its pods, images, network and files are gone")
	return nil
}
