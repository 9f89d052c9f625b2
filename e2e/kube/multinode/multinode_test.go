//go:build kube

package multinode

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crid-project/crid/e2e/images/kit"
	"github.com/crid-project/crid/hack/kube/proc"
)

// server answers with its pod's name and the address that it was asked from.
const server = `mkdir -p /www/cgi-bin; printf '#!/bin/sh\necho; echo $(hostname) asked by $REMOTE_ADDR\n' > /www/cgi-bin/who; chmod +x /www/cgi-bin/who; echo up; exec httpd -f -p 8080 -h /www`

func manifests() string {
	container := fmt.Sprintf(`[{name: c, image: %q, command: [sh, -c, %q], ports: [{containerPort: 8080}], readinessProbe: {httpGet: {path: /cgi-bin/who, port: 8080}, periodSeconds: 1, timeoutSeconds: 10}}]`, kit.Busybox, server)
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: each}
spec:
  selector: {matchLabels: {app: each}}
  template:
    metadata: {labels: {app: each}}
    spec: {terminationGracePeriodSeconds: 1, containers: %[1]s}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 6
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: web}}}]
      containers: %[1]s
`, container)
}

// TestThreeNodes is one story: pods talk across nodes, a node is cut off, its pods are made anew elsewhere while its containers go on, and it
// comes back.
func TestThreeNodes(t *testing.T) {
	w := newWorld(t, 3)
	for _, n := range w.nodes {
		w.nodeReady(n, "True", 2*time.Minute)
	}
	w.apply(manifests())
	each := w.readyOn("app=each", 3, 3*time.Minute, w.nodes...)
	w.readyOn("app=web", 6, 3*time.Minute, w.nodes...)
	w.talk(each)

	lost := w.nodes[2]
	before, err := lost.running(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.f.plug(lost.n, false); err != nil {
		t.Fatal(err)
	}
	w.nodeReady(lost, "Unknown", 3*time.Minute)
	w.readyOn("app=web", 6, 3*time.Minute, w.nodes[:2]...)
	w.talk(w.readyOn("app=each", 2, time.Minute, w.nodes[:2]...))
	w.cridRestarts(lost, before)

	if err := w.f.plug(lost.n, true); err != nil {
		t.Fatal(err)
	}
	w.nodeReady(lost, "True", 3*time.Minute)
	w.forgotten(lost, before)
	w.talk(w.readyOn("app=each", 3, 3*time.Minute, w.nodes...))
	if _, err := w.c.Kubectl(t.Context(), nil, "scale", "deployment/web", "--replicas=9"); err != nil {
		t.Fatal(err)
	}
	all := w.readyOn("app=web", 9, 3*time.Minute, w.nodes...)
	if !slices.ContainsFunc(all, func(p pod) bool { return p.Spec.NodeName == lost.name() }) {
		t.Error("the node that came back gets no pods")
	}
	w.talk(all)
	w.away()
}

// talk lets every pod ask every other, by its address; the asked one has to see the asker's address, or something in between has changed it.
func (w *world) talk(pods []pod) {
	w.t.Helper()
	for _, from := range pods {
		var script strings.Builder
		for _, to := range pods {
			fmt.Fprintf(&script, "wget -q -T 20 -O - http://%s:8080/cgi-bin/who || echo FAILED %s\n", to.Status.PodIP, to.Metadata.Name)
		}
		out, err := w.c.Kubectl(w.t.Context(), nil, "exec", from.Metadata.Name, "--", "sh", "-c", script.String())
		if err != nil {
			w.t.Fatal(err)
		}
		for _, to := range pods {
			want := to.Metadata.Name + " asked by "
			at := strings.Index(out, want)
			if at < 0 {
				w.t.Fatalf("%s on %s does not reach %s on %s:\n%s", from.Metadata.Name, from.Spec.NodeName, to.Metadata.Name, to.Spec.NodeName, out)
			}
			line, _, _ := strings.Cut(out[at+len(want):], "\n")
			if !strings.Contains(line, from.Status.PodIP) {
				w.t.Errorf("%s sees %s as %q, not by its address %s", to.Metadata.Name, from.Metadata.Name, line, from.Status.PodIP)
			}
		}
	}
	logs, err := w.c.Kubectl(w.t.Context(), nil, "logs", pods[len(pods)-1].Metadata.Name)
	if err != nil || strings.TrimSpace(logs) != "up" {
		w.t.Errorf("logs: %q %v", logs, err)
	}
}

// cridRestarts kills crid on a node that is cut off and starts it again: its containers go on, under the same ids.
func (w *world) cridRestarts(n *node, before map[string]string) {
	w.t.Helper()
	p, err := proc.Find(n.home.Dir, "crid")
	if err != nil {
		w.t.Fatal(err)
	}
	w.fine(p.Kill())
	if err := n.startCrid(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	after, err := n.running(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	if !maps.Equal(before, after) {
		w.t.Errorf("a node that is cut off, and a crid that is killed, are no reason to end containers: before %v, after %v", before, after)
	}
}

// forgotten waits until a node has ended what was made anew elsewhere. The DaemonSet's pod stays.
func (w *world) forgotten(n *node, before map[string]string) {
	w.t.Helper()
	w.await(3*time.Minute, n.name()+" ends the pods that have moved", func(ctx context.Context) error {
		now, err := n.running(ctx)
		if err != nil {
			return err
		}
		for name, id := range before {
			if strings.HasPrefix(name, "web-") && now[name] == id {
				return fmt.Errorf("%s still runs", name)
			}
		}
		return nil
	})
}

// away deletes everything; no container may be left on any node.
func (w *world) away() {
	w.t.Helper()
	if _, err := w.c.Kubectl(w.t.Context(), nil, "delete", "deployment/web", "daemonset/each"); err != nil {
		w.t.Fatal(err)
	}
	for _, n := range w.nodes {
		w.await(3*time.Minute, n.name()+" is empty", func(ctx context.Context) error {
			left, err := n.running(ctx)
			if err == nil && len(left) > 0 {
				err = fmt.Errorf("still run: %v", left)
			}
			return err
		})
	}
}
