package machine

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/crid-project/crid/container/cgroup"
	"github.com/crid-project/crid/container/plan"
)

// program is an OCI runtime that says one thing.
func program(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "runtime")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

var able = plan.Kernel{RecursiveReadOnly: true, IDMapMounts: true, Seccomp: true, OCIVersion: "1.0.2"}

// A runtime may be older than the kernel: what it does not name must not be written into a spec.
func TestFactsAreWhatKernelAndRuntimeBothHave(t *testing.T) {
	for name, test := range map[string]struct {
		script       string
		rro, idmap   bool
		version      string
		fails, noSec bool
		runc         string
	}{
		"all": {script: `echo '{"ociVersionMax":"1.3.0-dev+x","mountOptions":["ro","rro"],"linux":{"seccomp":{"enabled":true},"mountExtensions":{"idmap":{"enabled":true}}}}'`,
			rro: true, idmap: true, version: "1.3.0"},
		"without idmap":   {script: `echo '{"ociVersionMax":"1.1.0","mountOptions":["rro"],"linux":{"seccomp":{"enabled":true}}}'`, rro: true, version: "1.1.0"},
		"without seccomp": {script: `echo '{"ociVersionMax":"1.1.0","linux":{"seccomp":{"enabled":false}}}'`, version: "1.1.0", noSec: true},
		"names itself": {script: `echo '{"ociVersionMax":"1.1.0","linux":{"seccomp":{"enabled":true}},"annotations":{"org.opencontainers.runc.version":"1.2.7"}}'`,
			version: "1.1.0", runc: "1.2.7"},
		"tells nothing":      {script: `echo unknown command >&2; exit 1`, version: "1.0.2", fails: true},
		"tells what is none": {script: `echo hello`, version: "1.0.2", fails: true},
	} {
		k, runc, err := With(t.Context(), able, program(t, test.script))
		if (err != nil) != test.fails {
			t.Errorf("%s: %v", name, err)
		}
		if k.RecursiveReadOnly != test.rro || k.IDMapMounts != test.idmap || k.OCIVersion != test.version || k.Seccomp == test.noSec || runc != test.runc {
			t.Errorf("%s: %+v, runc %q", name, k, runc)
		}
	}
}

// A daemon that is the first to make a cgroup must know of swap, too, or it drops every limit on it.
func TestSwapIsKnownBeforeTheFirstCgroup(t *testing.T) {
	if !cgroup.V2() || os.Geteuid() != 0 {
		t.Skip("needs root and cgroup v2")
	}
	before := swap(true)
	path := "/crid-test-machine-" + strconv.Itoa(os.Getpid())
	c, err := cgroup.Ensure(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Remove(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	if !exists("/sys/fs/cgroup" + path + "/memory.max") {
		t.Skip("needs the memory controller")
	}
	if after := exists("/sys/fs/cgroup" + path + "/memory.swap.max"); before != after {
		t.Errorf("swap can be limited: %v, before any cgroup was made it was said: %v", after, before)
	}
}

// A further mount of cgroup2 without the node's options would switch them off for all.
func TestTheMountOptionsOfTheNodeAreKept(t *testing.T) {
	if !cgroup.V2() {
		if got := cgroupOptions(false); got != nil {
			t.Errorf("on v1: %v", got)
		}
		t.Skip("needs cgroup v2")
	}
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range cgroupOptions(true) {
		if !strings.Contains(string(data), o) {
			t.Errorf("option %s is not one of the mount's", o)
		}
	}
	if strings.Contains(string(data), "nsdelegate") && len(cgroupOptions(true)) == 0 {
		t.Error("the mount has options and none is told")
	}
}
