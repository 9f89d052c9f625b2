//go:build e2e

package kube

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// reconfigure starts the kubelet anew with further configuration, and gives it the old one back at the end of the test.
func (n *node) reconfigure(t *testing.T, change map[string]any) {
	t.Helper()
	old := n.k.Config
	again := func(config map[string]any) (err error) {
		n.calmly(func() { // a kubelet that finds no runtime at its start ends, for its service manager to start it again
			if err = n.k.Stop(); err == nil {
				n.k.Config = config
				err = n.k.Start(context.Background())
			}
		})
		return err
	}
	config := maps.Clone(old)
	maps.Copy(config, change)
	t.Cleanup(func() {
		if err := again(old); err != nil {
			t.Error(err)
		}
		n.nodeReadyAgain(t)
	})
	if err := again(config); err != nil {
		t.Fatal(err)
	}
}

// nodeReadyAgain waits until the node has no pressure and no taint any more.
func (n *node) nodeReadyAgain(t *testing.T) {
	t.Helper()
	var out string
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		var err error
		out, err = n.c.Kubectl(context.Background(), nil, "get", "node", n.k.Name, "-o", `jsonpath={.status.conditions[?(@.status=="True")].type} {.spec.taints[*].key} {.spec.unschedulable}`)
		if err == nil && strings.TrimSpace(out) == "Ready" {
			return
		}
	}
	t.Errorf("the node is %q", out)
}

// imageNames are the images that the runtime has.
func (n *node) imageNames(t *testing.T) []string {
	t.Helper()
	c := n.cri()
	var names []string
	await(t, time.Minute, "images", func(ctx context.Context) error {
		list, err := c.Images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
		if err != nil {
			return err
		}
		names = nil
		for _, i := range list.GetImages() {
			names = append(names, i.GetRepoTags()...)
		}
		return nil
	})
	return names
}

// imageCollection: on a node that counts as short of disk the kubelet removes images that nobody uses. (It then ends pods, too.)
func imageCollection(t *testing.T, s *space) {
	const unused = "registry.k8s.io/crid/forms:oci-gzip"
	c := s.cri()
	await(t, time.Minute, "an unused image", func(ctx context.Context) error { return c.Have(ctx, unused) })
	s.reconfigure(t, map[string]any{"evictionHard": map[string]string{"imagefs.available": "99%"}, "evictionPressureTransitionPeriod": "5s", "imageMinimumGCAge": "1s"})
	await(t, 4*time.Minute, "the unused image gone", func(context.Context) error {
		if names := s.imageNames(t); slices.Contains(names, unused) {
			return errorf("there are %q", names)
		}
		return nil
	})
}

// eviction: on a node that counts as short of memory the kubelet ends pods. One without requests would not even be taken up again by a kubelet
// that starts.
func eviction(t *testing.T, s *space) {
	s.run("main", "containers:\n"+script("main", "exec sleep 3600", "resources: {requests: {memory: 8Mi}}")) // one that ends well when told so has not failed
	s.reconfigure(t, map[string]any{"evictionHard": map[string]string{"memory.available": "99%"}, "evictionPressureTransitionPeriod": "5s"})
	if p := s.over("main"); p.Status.Reason != "Evicted" || !strings.Contains(p.Status.Message, "memory") {
		t.Errorf("it is %s, %s: %s", p.Status.Phase, p.Status.Reason, p.Status.Message)
	}
	await(t, time.Minute, "the node's condition", func(ctx context.Context) error {
		out, err := s.kubectl(ctx, "get", "node", s.k.Name, "-o", `jsonpath={.status.conditions[?(@.type=="MemoryPressure")].status}`)
		if err != nil || out != "True" {
			return errorf("MemoryPressure is %q (%v)", out, err)
		}
		return nil
	})
}

// drain empties the node but for a DaemonSet, and what the Deployment has lost it gets back afterwards.
func drain(t *testing.T, s *space) {
	s.apply(deployment("web", 2, "drained"))
	s.apply(fmt.Sprintf("apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: agent}\nspec:\n  selector: {matchLabels: {app: agent}}\n  template:\n    metadata: {labels: {app: agent}}\n    spec:\n      terminationGracePeriodSeconds: 2\n      containers:\n      %s\n",
		sleeper("main", "")))
	s.must("rollout", "status", "deployment/web", "--timeout=3m")
	s.must("rollout", "status", "daemonset/agent", "--timeout=3m")
	t.Cleanup(func() { s.must("uncordon", s.k.Name); s.nodeReadyAgain(t) })
	s.must("drain", s.k.Name, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--grace-period=1", "--timeout=4m")
	if got := s.must("get", "pods", "-A", "--field-selector=spec.nodeName="+s.k.Name+",status.phase=Running", "-o", "jsonpath={.items[*].metadata.labels.app}"); got != "agent" {
		t.Errorf("on the drained node run %q", got)
	}
	s.must("uncordon", s.k.Name)
	s.must("rollout", "status", "deployment/web", "--timeout=3m")
}
