//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/images/kit"
	"github.com/crid-project/crid/e2e/project"
)

// crictl is a command that is still to be run, for its input and its end.
func crictl(ctx context.Context, t *testing.T, d *harness.Daemon, args ...string) *exec.Cmd {
	t.Helper()
	program, err := project.Bin("crictl")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, program, append([]string{"--config", "/dev/null", "--runtime-endpoint", "unix://" + d.Socket, "--image-endpoint", "unix://" + d.Socket}, args...)...)
	cmd.WaitDelay = 2 * time.Second
	return cmd
}

func TestExecSync(t *testing.T) {
	d := harness.Start(t, harness.Options{})
	p := run(t, d, "execsync", nil)
	id := p.start(harness.Container("c"))
	r, err := d.Exec(t.Context(), id, "sh", "-c", "echo out; echo err >&2; exit 5")
	if err != nil || r.GetExitCode() != 5 || string(r.GetStdout()) != "out\n" || string(r.GetStderr()) != "err\n" {
		t.Errorf("got %d, %q, %q (%v)", r.GetExitCode(), r.GetStdout(), r.GetStderr(), err)
	}
	if r, err := d.Exec(t.Context(), id, "no-such-program"); err == nil && r.GetExitCode() == 0 {
		t.Error("a program that does not exist ran well")
	}
}

func TestExecOverTheWire(t *testing.T) {
	for _, transport := range []string{"spdy", "websocket"} {
		t.Run(transport, func(t *testing.T) {
			d := harness.Start(t, harness.Options{})
			if transport == "websocket" {
				onlyCrid(t, d)
			}
			p := run(t, d, "exec", nil)
			id := p.start(harness.Container("c"))
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			cmd := crictl(ctx, t, d, "exec", "-i", "--transport", transport, id, "sh", "-c", "tr a-z A-Z; echo done >&2; exit 9")
			text := strings.Repeat("some input\n", 20000)
			cmd.Stdin = strings.NewReader(text)
			var out, errs bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errs
			err := cmd.Run()
			if out.String() != strings.ToUpper(text) {
				t.Errorf("%d bytes came back of %d", out.Len(), len(text))
			}
			if !strings.HasPrefix(errs.String(), "done\n") {
				t.Errorf("standard error: %.200q", errs.String())
			}
			if err == nil || !strings.Contains(errs.String()+err.Error(), "9") {
				t.Errorf("exit code 9 is told as %v: %s", err, errs.String())
			}
		})
	}
}

func TestAttachReadsAndWrites(t *testing.T) {
	d := harness.Start(t, harness.Options{})
	p := run(t, d, "attach", nil)
	config := harness.Container("c", "sh", "-c", "while read l; do echo \"got $l\"; done; echo end of input; sleep 1000")
	config.Stdin, config.StdinOnce = true, true
	id := p.start(config)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := crictl(ctx, t, d, "attach", "-i", id)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out said
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, "one\ntwo\n"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the answer in the log", 10*time.Second, func() bool { return strings.Contains(p.logged(config, "stdout"), "got two\n") })
	in.Close()
	eventually(t, "the end of input, which stdin-once passes on", 10*time.Second, func() bool { return strings.Contains(p.logged(config, "stdout"), "end of input\n") })
	eventually(t, "what who is attached sees", 10*time.Second, func() bool { return strings.Contains(out.String(), "got one\ngot two\n") })
	cancel()
	_ = cmd.Wait() // it was told to end
}

// said is what a program has written so far.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func TestPortForward(t *testing.T) {
	d := harness.Start(t, harness.Options{})
	ctx := t.Context()
	if err := d.Have(ctx, kit.Nginx); err != nil {
		t.Fatal(err)
	}
	p := run(t, d, "forward", nil)
	config := harness.Container("web")
	config.Image.Image, config.Command = kit.Nginx, nil
	id := p.start(config)
	eventually(t, "a web server that listens", 20*time.Second, func() bool { // crictl gives up at the first connection that is refused
		r, err := d.Exec(ctx, id, "wget", "-q", "-O", "/dev/null", "http://127.0.0.1/")
		return err == nil && r.GetExitCode() == 0
	})
	port := freePort(t)
	bounded, cancel := context.WithTimeout(ctx, 30*time.Second)
	cmd := crictl(bounded, t, d, "port-forward", p.id, fmt.Sprintf("%d:80", port))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }()
	eventually(t, "the page through the forwarded port", 20*time.Second, func() bool { return strings.Contains(page(bounded, port), "Welcome to nginx!") })
}

func TestHostPort(t *testing.T) {
	d := harness.Start(t, harness.Options{})
	ctx := t.Context()
	if err := d.Have(ctx, kit.Nginx); err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	p := run(t, d, "hostport", withPort(port))
	config := harness.Container("web")
	config.Image.Image, config.Command = kit.Nginx, nil
	p.start(config)
	eventually(t, "the page through the host's port", 20*time.Second, func() bool { return strings.Contains(page(ctx, port), "Welcome to nginx!") })
	if err := d.StopPod(ctx, p.id); err != nil {
		t.Fatal(err)
	}
	if text := page(ctx, port); text != "" {
		t.Errorf("a stopped pod's port still answers: %q", text)
	}
}

func freePort(t *testing.T) int32 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return int32(l.Addr().(*net.TCPAddr).Port)
}

// page is what a port of this machine serves; empty if nothing.
func page(ctx context.Context, port int32) string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", port), nil)
	if err != nil {
		return ""
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return ""
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	return string(text)
}
