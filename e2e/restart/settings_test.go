//go:build e2e

package restart

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/faults/inject"
	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/story"
)

// A key that is read and does nothing is a lie, and on security a dangerous one.
func TestSettingsTakeEffect(t *testing.T) {
	profile := filepath.Join(t.TempDir(), "node.json")
	put := func(path, text string) error { return os.WriteFile(path, []byte(text), 0o600) }
	if err := put(profile, `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}`); err != nil {
		t.Fatal(err)
	}
	s := story.AloneIn(t, harness.Crid{}, func(h *harness.Home) error {
		drop := filepath.Join(filepath.Dir(h.Config()), "conf.d")
		if err := os.MkdirAll(drop, 0o700); err != nil {
			return err
		}
		return put(filepath.Join(drop, "keys.toml"), fmt.Sprintf("seccomp_profile = %q\ndevice_ownership_from_security_context = true\n"+
			"[limits]\nmax_exec_sync_output = \"2KiB\"\n", profile))
	})
	config := story.Sleeper("c")
	config.Devices = []*runtimeapi.Device{{HostPath: "/dev/null", ContainerPath: "/dev/mine", Permissions: "rw"}}
	config.Linux = &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
		RunAsUser: &runtimeapi.Int64Value{Value: 1000}, RunAsGroup: &runtimeapi.Int64Value{Value: 2000},
		Seccomp: &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
	}}
	p := s.Pod("settings")
	c, free := p.Go(config), p.Go(story.Sleeper("free"))
	if code, out := c.Try("mkdir /tmp/x 2>&1"); code == 0 || !strings.Contains(out, "not permitted") {
		t.Errorf("seccomp_profile: mkdir ends with %d: %s", code, out)
	}
	free.Sh("mkdir /tmp/x")
	if f := strings.Fields(c.Sh("ls -ln /dev/mine")); len(f) < 4 || f[2] != "1000" || f[3] != "2000" {
		t.Errorf("device_ownership_from_security_context: %q", f)
	}
	if code, out := c.Try("head -c 5000 /dev/zero; echo e >&2"); code != 0 || len(out) != 2<<10+2 {
		t.Errorf("limits.max_exec_sync_output: code %d, %d bytes", code, len(out))
	}
}

// An operator sees a shim that hangs, and one that died.
func TestMetricsTellOfShims(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	s := story.Alone(t, harness.Crid{Metrics: address})
	shims := func(series string) float64 { return scrape(t, address, "crid_shim"+series) }
	a := s.Pod("metrics").Go(story.Sleeper("a"))
	shim := a.ShimPid()
	s.Eventually("events are counted", 5*time.Second, func() bool { return shims(`_events_total{kind="start"}`) > 0 })
	if rss := shims("s_resident_memory_bytes"); rss < 1<<20 || rss > 1<<30 {
		t.Errorf("memory of one shim: %.0f bytes", rss)
	}
	if up, away := shims("s_up"), shims("s_unreachable"); up != 1 || away != 0 {
		t.Errorf("%.0f shims up, %.0f unreachable", up, away)
	}
	inject.Signal(t, shim, syscall.SIGSTOP)
	_, err = s.Runtime.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: a.ID, Cmd: []string{"true"}, Timeout: 2})
	s.WantCode("exec through a hung shim", err, codes.DeadlineExceeded, codes.Unavailable)
	s.Eventually("the hung shim is told of", 15*time.Second, func() bool { return shims("s_unreachable") == 1 })
	inject.Signal(t, shim, syscall.SIGCONT)
	s.Eventually("it is back without a call of ours", 40*time.Second, func() bool { return shims("s_unreachable") == 0 })
	inject.Signal(t, shim, syscall.SIGKILL)
	s.Eventually("its death is counted", 10*time.Second, func() bool { return shims("s_died_total") == 1 && shims("s_up") == 0 })
	if level, err := story.Ask(s.Daemon, "/log/level"); err != nil || !strings.Contains(level, "debug") {
		t.Errorf("log level %q, %v", level, err)
	}
}

// scrape answers the value of a series; -1 if there is none.
func scrape(t *testing.T, address, series string) float64 {
	t.Helper()
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	return -1
}
