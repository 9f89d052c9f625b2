//go:build e2e

package kube

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/hack/kube/cluster"
)

// feature is one thing of Kubernetes that a runtime has a part in.
type feature struct {
	name string
	test func(*testing.T, *space)
}

// together run side by side, while crid is ended and started again and again.
var together = []feature{
	{"rolling update", rollingUpdate}, {"job", job}, {"cron job", cronJob}, {"daemon set", daemonSet}, {"stateful set with a local volume", statefulSet},
	{"config maps and secrets", configAndSecrets}, {"logs followed", followedLogs}, {"logs previous", previousLogs}, {"debug container", debug},
	{"resize in place", resize}, {"pod level resources", podLevelResources}, {"over quota", overQuota}, {"out of memory", outOfMemory},
	{"stop signal", stopSignal}, {"forced deletion", forcedDeletion}, {"user namespace", userNamespace}, {"host port", hostPort}, {"host network", hostNetwork},
	{"shared processes", sharedProcesses}, {"sysctls", sysctls}, {"seccomp", seccomp}, {"supplemental groups", supplementalGroups},
	{"runtime classes", runtimeClasses}, {"runtime class crun", runtimeClassCrun}, {"image volume", imageVolume}, {"image credentials", credentials},
}

// alone are those that change the whole node, or hold crid for a session.
var alone = []feature{
	{"exec", execWithoutTTY}, {"exec with a terminal", execWithTTY}, {"attach", attach}, {"port forward", portForward}, {"copy", copies},
	{"image collection", imageCollection}, {"eviction", eviction}, {"drain", drain},
}

func TestCluster(t *testing.T) {
	for _, way := range []struct {
		name  string
		gates map[string]bool
	}{
		{"relisting", nil},
		{"events and streamed lists", map[string]bool{"EventedPLEG": true, "CRIListStreaming": true}},
	} {
		t.Run(way.name, func(t *testing.T) { clusterTest(t, way.gates) })
	}
}

func clusterTest(t *testing.T, gates map[string]bool) {
	all := map[string]bool{"ContainerStopSignals": true}
	for name, on := range gates {
		all[name] = on
	}
	ports, err := cluster.Ports(1)
	if err != nil {
		t.Fatal(err)
	}
	metrics := fmt.Sprintf("127.0.0.1:%d", ports[0])
	n := startNode(t, settings{cluster: true, gates: all, kind: harness.Crid{Metrics: metrics, Crun: crun()},
		config: map[string]any{"imagePullCredentialsVerificationPolicy": "NeverVerifyPreloadedImages", "allowedUnsafeSysctls": []string{"net.core.*"}},
		control: func(c *cluster.Control) {
			c.Args = map[string][]string{"kube-apiserver": {"--feature-gates=ContainerStopSignals=true"}}
		}})
	begun := time.Now()
	n.nodeReady(t)
	t.Logf("node Ready %s after the kubelet's start", time.Since(begun).Round(100*time.Millisecond))
	stop := n.disturb(6 * time.Second)
	t.Run("together", func(t *testing.T) {
		for _, f := range together {
			t.Run(f.name, func(t *testing.T) {
				t.Parallel()
				f.test(t, newSpace(t, n))
			})
		}
	})
	for _, f := range alone {
		t.Run(f.name, func(t *testing.T) { f.test(t, newSpace(t, n)) })
	}
	stop()
	t.Logf("crid was ended and started %d times meanwhile", n.kills)
	t.Run("metrics are complete", func(t *testing.T) { metricsAreComplete(t, newSpace(t, n)) })
	t.Run("what the kubelet asked", func(t *testing.T) { whatTheKubeletAsked(t, n, metrics, len(gates) > 0) })
	t.Run("graceful node shutdown", func(t *testing.T) {
		t.Skip("the kubelet hears of a shutdown from systemd-logind on D-Bus, and this machine has no systemd")
	})
	t.Run("swap", func(t *testing.T) {
		if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
			t.Skip("a kubelet gives pods swap on cgroup v2 only")
		}
		t.Skip("this machine has no swap")
	})
}

// nodeReady waits for the node's condition.
func (n *node) nodeReady(t *testing.T) {
	t.Helper()
	for _, what := range []string{"--for=create", "--for=condition=Ready"} {
		if _, err := n.c.Kubectl(t.Context(), nil, "wait", what, "node/"+n.k.Name, "--timeout=2m"); err != nil {
			t.Fatal(err)
		}
	}
}

// crun is the path of crun, if there is one.
func crun() string {
	path, err := exec.LookPath("crun")
	if err != nil {
		return ""
	}
	return path
}

// rpcs counts CRI calls by name, from crid's metrics; what earlier processes of crid counted is gone.
func rpcs(t *testing.T, address string) map[string]bool {
	t.Helper()
	data, err := cluster.Get(t.Context(), "http://"+address+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	called := map[string]bool{}
	lines := bufio.NewScanner(strings.NewReader(string(data)))
	for lines.Scan() {
		if _, rest, ok := strings.Cut(lines.Text(), `crid_rpc_total{`); ok {
			if _, name, ok := strings.Cut(rest, `rpc="`); ok {
				name, _, _ = strings.Cut(name, `"`)
				called[name] = true
			}
		}
		if rest, ok := strings.CutPrefix(lines.Text(), "crid_panics_total "); ok && rest != "0" {
			t.Errorf("crid has caught panics: %s", rest)
		}
	}
	return called
}

// whatTheKubeletAsked looks whether the features under test were really in use.
func whatTheKubeletAsked(t *testing.T, n *node, address string, evented bool) {
	called := rpcs(t, address)
	// A kubelet gives up on events for good after the fifth stream that ended; crid has ended more often.
	if received := strings.Contains(read(t, n.k.Dir+"/kubelet.log"), "container event received"); received != evented {
		t.Errorf("events received: %v, with EventedPLEG %v", received, evented)
	}
	if evented != called["StreamContainers"] {
		t.Errorf("StreamContainers called: %v, with CRIListStreaming %v", called["StreamContainers"], evented)
	}
	t.Logf("calls: %v", called)
	if log := read(t, n.d.Home.Log()); strings.Contains(log, "panic") {
		t.Errorf("crid's log tells of a panic: %s", lastLine(log, "panic"))
	}
}

func lastLine(text, word string) string {
	last := ""
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			last = line
		}
	}
	return last
}
