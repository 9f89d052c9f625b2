//go:build e2e

package harness

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A census that saw nothing would let every leak pass.
func TestTheCensusSeesAPodAndItsEnd(t *testing.T) {
	d := Start(t, Options{})
	ctx := t.Context()
	before := d.Census(ctx)
	if d.Kind.Name() == "crid" && !slices.ContainsFunc(slices.Collect(maps.Keys(before)), func(k string) bool { return strings.HasPrefix(k, "goroutine ") }) {
		t.Error("a daemon without goroutines")
	}
	config := d.Home.Pod("seen")
	config.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 80, HostPort: 12099}}
	pod, err := d.RunPod(ctx, config, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Run(ctx, pod, Container("sleeper"), config); err != nil {
		t.Fatal(err)
	}
	came := strings.Join(before.Leaks(d.Census(ctx)), "\n")
	for _, kind := range []string{"process in a cgroup: ", "shim or helper: ", "mount ", "cgroup ", "veth ", "address lease ", "iptables nat ", "folder "} {
		if !strings.Contains(came, "+ "+kind) && !strings.Contains(came, "times "+kind) {
			t.Errorf("a running pod shows no %q among:\n%s", kind, came)
		}
	}
	if err := d.RemovePodFully(ctx, pod); err != nil {
		t.Fatal(err)
	}
	for _, left := range d.Settle(ctx, before, 10*time.Second) {
		t.Errorf("left behind: %s", left)
	}
}
