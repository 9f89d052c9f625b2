//go:build e2e

package core

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/images/kit"
	"github.com/crid-project/crid/e2e/project"
	"github.com/crid-project/crid/e2e/story"
)

var transports = []string{"spdy", "websocket"}

// client is a crictl that goes on while the test does.
type client struct {
	t *testing.T
	*exec.Cmd
	in        io.WriteCloser
	out, errs output
	cancel    context.CancelFunc
}

// output may be read while it is written.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// crictl starts one; it is ended with the test at the latest.
func crictl(s *story.Story, args ...string) *client {
	s.T.Helper()
	program, err := project.Bin("crictl")
	if err != nil {
		s.T.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.T.Context(), 60*time.Second)
	endpoint := "unix://" + s.Socket
	c := &client{t: s.T, Cmd: exec.CommandContext(ctx, program, append([]string{"--config", "/dev/null", "--runtime-endpoint", endpoint, "--image-endpoint", endpoint}, args...)...), cancel: cancel}
	c.WaitDelay = 2 * time.Second
	c.Stdout, c.Stderr = &c.out, &c.errs
	if c.in, err = c.StdinPipe(); err != nil {
		s.T.Fatal(err)
	}
	if err := c.Start(); err != nil {
		s.T.Fatal(err)
	}
	s.T.Cleanup(c.end)
	return c
}

func (c *client) end() {
	c.cancel()
	if errs := c.errs.String(); c.t.Failed() && errs != "" {
		c.t.Logf("crictl says: %s", errs)
	}
	if c.ProcessState == nil {
		_ = c.Wait() // it was told to end
	}
}

func TestExecStreamsBothWays(t *testing.T) {
	s := story.Begin(t)
	c := s.Pod("stream").Go(story.Sleeper("c"))
	for _, transport := range transports {
		x := crictl(s, "exec", "-i", "--transport", transport, c.ID, "sh", "-c", "echo to-err >&2; cat; exit 6")
		text := strings.Repeat("0123456789abcdef\n", 100000)
		go func() { _, _ = io.WriteString(x.in, text); x.in.Close() }()
		err := x.Wait()
		if got := x.out.String(); got != text {
			t.Errorf("%s: %d bytes came back of %d", transport, len(got), len(text))
		}
		if errs := x.errs.String(); err == nil || !strings.Contains(errs, "to-err\n") || !strings.Contains(errs, "6") {
			t.Errorf("%s: ended with %v, %q", transport, err, errs)
		}
	}
}

// terminal is a pseudo-terminal of this machine: what is written to the first end is typed, what is read from it is shown.
func terminal(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("needs pseudo-terminals: %v", err)
	}
	t.Cleanup(func() { ours.Close() })
	n, err := unix.IoctlGetInt(int(ours.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(ours.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	theirs, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(theirs.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 99}); err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

func TestExecWithATerminal(t *testing.T) {
	s := story.Begin(t)
	c := s.Pod("tty").Go(story.Sleeper("c"))
	for _, transport := range transports {
		ours, theirs := terminal(t)
		var shown output
		go func() { _, _ = io.Copy(&shown, ours) }()
		program, err := project.Bin("crictl")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		cmd := exec.CommandContext(ctx, program, "--config", "/dev/null", "--runtime-endpoint", "unix://"+s.Socket, "exec", "-i", "-t", "--transport", transport, c.ID,
			"sh", "-c", "tty && echo $TERM && read x && stty size && echo got-$x && exit 4")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, theirs
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		theirs.Close()
		s.Eventually(transport+": a terminal", 10*time.Second, func() bool {
			return strings.Contains(shown.String(), "xterm") && strings.Contains(shown.String(), "/dev/pts/")
		})
		if _, err := io.WriteString(ours, "hello\n"); err != nil {
			t.Fatal(err)
		}
		s.Eventually(transport+": the answer and the size", 10*time.Second, func() bool {
			return strings.Contains(shown.String(), "got-hello") && strings.Contains(shown.String(), "33 99")
		})
		if err := cmd.Wait(); err == nil {
			t.Errorf("%s: exit code 4 is told as success", transport)
		}
		cancel()
	}
}

// A client that goes away must not leave its process in the container for ever.
func TestAnExecWhoseClientDies(t *testing.T) {
	s := story.Begin(t)
	c := s.Pod("gone").Go(story.Sleeper("c"))
	for _, transport := range transports {
		x := crictl(s, "exec", "-i", "--transport", transport, c.ID, "sh", "-c", "echo up; exec cat >/dev/null")
		s.Eventually("the process is up", 10*time.Second, func() bool { n, _ := c.Try("pgrep -x cat"); return n == 0 })
		x.end()
		s.Eventually(transport+": the process has ended", 10*time.Second, func() bool { n, _ := c.Try("pgrep -x cat"); return n != 0 })
	}
}

// With stdin-once the first client's leaving ends the container's input; without it the next one finds it open.
func TestAttachAndTheEndOfInput(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("attach")
	for _, transport := range transports {
		for _, once := range []bool{true, false} {
			name := fmt.Sprintf("%s-%t", transport, once)
			config := story.Shell(name, "while read l; do echo \"got $l\"; done; echo end of input; sleep 1000")
			config.Stdin, config.StdinOnce = true, once
			c := p.Go(config)
			x := crictl(s, "attach", "-i", "--transport", transport, c.ID)
			if _, err := io.WriteString(x.in, "one\n"); err != nil {
				t.Fatal(err)
			}
			s.Eventually(name+": the answer to who is attached", 10*time.Second, func() bool { return strings.Contains(x.out.String(), "got one\n") })
			c.Heard("got one\n") // and the log has it too
			x.in.Close()
			if once {
				c.Heard("end of input\n")
				continue
			}
			x.end()
			y := crictl(s, "attach", "-i", "--transport", transport, c.ID)
			if _, err := io.WriteString(y.in, "two\n"); err != nil {
				t.Fatal(err)
			}
			s.Eventually(name+": the answer to the next one", 10*time.Second, func() bool { return strings.Contains(y.out.String(), "got two\n") })
			y.end()
		}
	}
}

// Everybody who is attached sees the output, and its end.
func TestManyAreAttached(t *testing.T) {
	s := story.Begin(t)
	c := s.Pod("many").Go(story.Shell("c", "trap 'echo bye; exit 0' TERM; i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.1; done"))
	var all []*client
	for n := range 4 {
		all = append(all, crictl(s, "attach", "--transport", transports[n%2], c.ID))
	}
	for _, x := range all {
		s.Eventually("output", 10*time.Second, func() bool { return strings.Contains(x.out.String(), "tick") })
	}
	c.Stop(5)
	for n, x := range all {
		ended := make(chan struct{})
		go func() { _ = x.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Errorf("client %d is attached to a container that has ended", n)
		}
		if !strings.Contains(x.out.String(), "bye") {
			t.Errorf("client %d has not seen the last words", n)
		}
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
func page(port int32) string {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", port), nil)
	if err != nil {
		return ""
	}
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return ""
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	return string(text)
}

func webServer(name string) *runtimeapi.ContainerConfig {
	c := story.Sleeper(name)
	c.Image.Image, c.Command = kit.Nginx, nil
	return c
}

const welcome = "Welcome to nginx!"

func TestPortForwarding(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("forward")
	p.Go(webServer("web"))
	for _, transport := range transports {
		port := freePort(t)
		x := crictl(s, "port-forward", "--transport", transport, p.ID, fmt.Sprintf("%d:80", port))
		s.Eventually(transport+": the page", 20*time.Second, func() bool { return strings.Contains(page(port), welcome) })
		for n, err := range story.AtOnce(10, func(int) error {
			if !strings.Contains(page(port), welcome) {
				return fmt.Errorf("no page")
			}
			return nil
		}) {
			if err != nil {
				t.Errorf("%s: connection %d: %v", transport, n, err)
			}
		}
		x.end()
	}
}

// A port that nobody listens on is that connection's trouble, not the daemon's.
func TestForwardingToNobody(t *testing.T) {
	s := story.Begin(t)
	p := s.Pod("nobody")
	port := freePort(t)
	crictl(s, "port-forward", p.ID, fmt.Sprintf("%d:81", port))
	time.Sleep(200 * time.Millisecond)
	if got := page(port); got != "" {
		t.Errorf("nobody answers %q", got)
	}
	if _, err := s.Version(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestHostPortComesAndGoes(t *testing.T) {
	s := story.Begin(t)
	port := freePort(t)
	p := s.Pod("hostport", func(c *runtimeapi.PodSandboxConfig) {
		c.PortMappings = []*runtimeapi.PortMapping{{Protocol: runtimeapi.Protocol_TCP, ContainerPort: 80, HostPort: port}}
	})
	p.Go(webServer("web"))
	s.Eventually("the page", 10*time.Second, func() bool { return strings.Contains(page(port), welcome) })
	if err := s.StopPod(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	if got := page(port); got != "" {
		t.Errorf("a stopped pod's port answers %q", got)
	}
}

func TestTheHostsNetworkServesThePage(t *testing.T) {
	s := story.Begin(t)
	const image = "gcr.io/k8s-staging-cri-tools/hostnet-nginx-amd64:latest" // listens on 12003
	if err := s.Have(t.Context(), image); err != nil {
		t.Skipf("no image of a server for the host's network: %v", err)
	}
	p := s.Pod("hostnet", func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_NODE
	})
	config := webServer("web")
	config.Image.Image = image
	config.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_NODE
	p.Go(config)
	s.Eventually("the page", 10*time.Second, func() bool { return strings.Contains(page(12003), welcome) })
}
