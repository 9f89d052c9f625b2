//go:build e2e

package e2e

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/harness"
)

// pod is a sandbox of one test.
type pod struct {
	t      *testing.T
	d      *harness.Daemon
	id     string
	config *runtimeapi.PodSandboxConfig
}

// run makes a sandbox; change, which may be nil, changes its configuration first.
func run(t *testing.T, d *harness.Daemon, name string, change func(*runtimeapi.PodSandboxConfig)) *pod {
	t.Helper()
	p := &pod{t: t, d: d, config: d.Home.Pod(name)}
	if change != nil {
		change(p.config)
	}
	id, err := d.RunPod(t.Context(), p.config, "")
	if err != nil {
		t.Fatalf("run pod %s: %v", name, err)
	}
	p.id = id
	return p
}

// start creates and starts a container.
func (p *pod) start(config *runtimeapi.ContainerConfig) string {
	p.t.Helper()
	id, err := p.d.Run(p.t.Context(), p.id, config, p.config)
	if err != nil {
		p.t.Fatalf("run container %s: %v", config.GetMetadata().GetName(), err)
	}
	return id
}

// exited waits for a container's end.
func (p *pod) exited(id string) *runtimeapi.ContainerStatus {
	p.t.Helper()
	s, err := p.d.WaitState(p.t.Context(), id, runtimeapi.ContainerState_CONTAINER_EXITED, 30*time.Second)
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

// sh runs a shell line in a container and gives its output; it must succeed.
func (p *pod) sh(id, line string) string {
	p.t.Helper()
	r, err := p.d.Exec(p.t.Context(), id, "sh", "-c", line)
	if err != nil {
		p.t.Fatalf("exec %q: %v", line, err)
	}
	if r.GetExitCode() != 0 {
		p.t.Fatalf("exec %q ends with %d: %s%s", line, r.GetExitCode(), r.GetStdout(), r.GetStderr())
	}
	return strings.TrimSpace(string(r.GetStdout()))
}

// log is the log file of a container.
func (p *pod) log(config *runtimeapi.ContainerConfig) string {
	return p.config.GetLogDirectory() + "/" + config.GetLogPath()
}

// logged is what a container wrote to one stream, without times and tags.
func (p *pod) logged(config *runtimeapi.ContainerConfig, stream string) string {
	p.t.Helper()
	var b strings.Builder
	for line := range strings.Lines(readFile(p.t, p.log(config))) {
		fields := strings.SplitN(line, " ", 4)
		if len(fields) != 4 {
			p.t.Fatalf("log line without four fields: %q", line)
		}
		if fields[1] == stream {
			text := fields[3]
			if fields[2] == "P" {
				text = strings.TrimSuffix(text, "\n")
			}
			b.WriteString(text)
		}
	}
	return b.String()
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// eventually waits for a condition that nobody announces.
func eventually(t *testing.T, what string, limit time.Duration, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %s", what, limit)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// wantCode fails the test unless err has the code.
func wantCode(t *testing.T, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("the code is %s, not %s: %v", got, want, err)
	}
}

// onlyCrid skips what the peer is known to do otherwise.
func onlyCrid(t *testing.T, d *harness.Daemon) {
	t.Helper()
	if d.Kind.Name() != "crid" {
		t.Skipf("%s does this in another way", d.Kind.Name())
	}
}
