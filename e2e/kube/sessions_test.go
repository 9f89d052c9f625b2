//go:build e2e

package kube

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// buffer is what a running command has written so far.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// session is a kubectl that goes on.
type session struct {
	*exec.Cmd
	out  *buffer
	done chan error
}

// begin starts kubectl; it is killed with the test.
func (s *space) begin(stdin io.Reader, change func(*exec.Cmd), args ...string) *session {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	cmd, err := s.c.Command(ctx, append([]string{"-n", s.name}, args...)...)
	if err != nil {
		s.t.Fatal(err)
	}
	x := &session{Cmd: cmd, out: new(buffer), done: make(chan error, 1)}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, x.out, x.out
	if change != nil {
		change(cmd)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { x.done <- cmd.Wait(); close(ended) }()
	s.t.Cleanup(func() { cancel(); <-ended })
	return x
}

func (s *space) says(x *session, want string) {
	s.t.Helper()
	await(s.t, time.Minute, want, func(context.Context) error {
		if !strings.Contains(x.out.String(), want) {
			return errorf("it says %q", x.out.String())
		}
		return nil
	})
}

func (s *space) ends(x *session) error {
	s.t.Helper()
	select {
	case err := <-x.done:
		return err
	case <-time.After(time.Minute):
		s.t.Fatalf("it does not end; it has said %q", x.out.String())
		return nil
	}
}

func execWithoutTTY(t *testing.T, s *space) {
	s.run("main", "containers:\n"+sleeper("main", ""))
	s.calmly(func() {
		cmd, err := s.c.Command(t.Context(), "-n", s.name, "exec", "-i", "main", "--", "sh", "-c", "cat; echo to stderr >&2; exit 7")
		if err != nil {
			t.Fatal(err)
		}
		in := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
		var out, complaint bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &complaint
		err = cmd.Run()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 7 {
			t.Errorf("it ended with %v, not with 7: %s", err, complaint.String())
		}
		if !bytes.Equal(out.Bytes(), in) {
			t.Errorf("of %d bytes %d came back", len(in), out.Len())
		}
		if !strings.HasPrefix(complaint.String(), "to stderr\n") {
			t.Errorf("standard error is %q", complaint.String())
		}
	})
}

func execWithTTY(t *testing.T, s *space) {
	s.run("main", "containers:\n"+sleeper("main", ""))
	master, slave := openPTY(t, 33, 101)
	out := new(buffer)
	go func() { _, _ = io.Copy(out, master) }()
	s.calmly(func() {
		x := s.begin(nil, func(c *exec.Cmd) {
			c.Stdin, c.Stdout, c.Stderr = slave, slave, slave
			c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		}, "exec", "-it", "main", "--", "sh")
		x.out = out
		tell := func(line, want string) {
			t.Helper()
			if _, err := master.WriteString(line + "\n"); err != nil {
				t.Fatal(err)
			}
			s.says(x, want)
		}
		tell("tty; stty size", "33 101")
		s.says(x, "/dev/pts/")
		resizePTY(t, slave, 44, 123)
		if err := x.Process.Signal(unix.SIGWINCH); err != nil {
			t.Error(err)
		}
		await(t, time.Minute, "the new size", func(context.Context) error {
			if _, err := master.WriteString("stty size\n"); err != nil {
				return err
			}
			time.Sleep(300 * time.Millisecond)
			if !strings.Contains(out.String(), "44 123") {
				return errorf("it says %q", out.String())
			}
			return nil
		})
		if _, err := master.WriteString("sleep 600\n"); err != nil { // ^C ends it, and not the shell
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond)
		tell("\x03", "^C")
		tell("echo still $((40+2))", "still 42")
		if _, err := master.WriteString("exit 3\n"); err != nil {
			t.Fatal(err)
		}
		var exit *exec.ExitError
		if err := s.ends(x); !errors.As(err, &exit) || exit.ExitCode() != 3 {
			t.Errorf("it ended with %v, not with 3: %q", err, out.String())
		}
	})
}

func attach(t *testing.T, s *space) {
	s.run("main", "containers:\n"+script("main", "while read line; do echo got $line; [ $line != end ] || exit 0; done", "stdin: true, stdinOnce: true")+"\nrestartPolicy: Never")
	s.calmly(func() {
		in, feed, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		defer feed.Close()
		x := s.begin(in, nil, "attach", "-i", "main", "-c", "main")
		for _, word := range []string{"one", "two", "end"} {
			if _, err := fmt.Fprintln(feed, word); err != nil {
				t.Fatal(err)
			}
			s.says(x, "got "+word)
		}
		feed.Close()
		if err := s.ends(x); err != nil {
			t.Errorf("attach: %v", err)
		}
	})
	if p := s.over("main"); p.Status.Phase != "Succeeded" {
		t.Errorf("it is %s", p.Status.Phase)
	}
	if got := s.logs("main"); got != "got one\ngot two\ngot end\n" {
		t.Errorf("its log is %q", got)
	}
}

// followedLogs are complete and in order although crid goes away while they are written. The kubelet asks the runtime for the container's state
// and stops following when nobody answers, so what was followed may end early, but never has a gap.
func followedLogs(t *testing.T, s *space) {
	s.run("main", "restartPolicy: Never\ncontainers:\n"+script("main", "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo line $i; sleep 0.1; done", ""))
	var x *session
	s.calmly(func() {
		// While the kubelet has no connection to a crid that has just come back, it refuses at once and kubectl ends.
		await(t, time.Minute, "logs -f", func(context.Context) error {
			x = s.begin(nil, nil, "logs", "-f", "main")
			s.says(x, "l") // "line 1", or "unable to retrieve"
			if strings.Contains(x.out.String(), "unable") {
				return errorf("it says %q", x.out.String())
			}
			s.says(x, "line 1\n")
			return nil
		})
	})
	_ = s.ends(x)
	var want strings.Builder
	for i := range 300 {
		fmt.Fprintln(&want, "line", i+1)
	}
	if got, _, _ := strings.Cut(x.out.String(), "error"); !strings.HasPrefix(want.String(), got) || got == "" {
		t.Errorf("followed: %d bytes, not %d: %.200s ... %s", len(got), want.Len(), got, got[max(0, len(got)-100):])
	}
	s.over("main")
	if got := s.logs("main"); got != want.String() {
		t.Errorf("the log has %d bytes, not %d", len(got), want.Len())
	}
	if got := s.logs("main", "--tail=2"); got != "line 299\nline 300\n" {
		t.Errorf("its tail is %q", got)
	}
}

// logs is kubectl logs, asked again while crid is away: the kubelet then gives its complaint for the log.
func (s *space) logs(args ...string) string {
	s.t.Helper()
	var out string
	await(s.t, time.Minute, "logs", func(ctx context.Context) error {
		var err error
		if out, err = s.kubectl(ctx, append([]string{"logs"}, args...)...); err == nil && strings.Contains(out, "unable to retrieve container logs") {
			err = errors.New(out)
		}
		return err
	})
	return out
}

func previousLogs(t *testing.T, s *space) {
	s.create("main", "containers:\n"+script("main", "echo run $(cat /t/n 2>/dev/null || echo first); [ -e /t/n ] || { echo second > /t/n; exit 5; }; exec sleep 3600",
		"volumeMounts: [{name: t, mountPath: /t}]")+"\nvolumes: [{name: t, emptyDir: {}}]")
	s.until("main", "in its second run", func(p *pod) error {
		if c := p.container("main"); c.RestartCount != 1 || c.State.Running == nil {
			return errorf("%+v", c)
		}
		return nil
	})
	if now, before := s.logs("main"), s.logs("main", "--previous"); now != "run second\n" || before != "run first\n" {
		t.Errorf("now %q, previously %q", now, before)
	}
}

func portForward(t *testing.T, s *space) {
	s.apply(deployment("web", 1, "through"))
	s.must("rollout", "status", "deployment/web", "--timeout=3m")
	s.calmly(func() {
		x := s.begin(nil, nil, "port-forward", "deployment/web", ":80")
		s.says(x, "Forwarding from 127.0.0.1:")
		port := regexp.MustCompile(`127\.0\.0\.1:(\d+)`).FindStringSubmatch(x.out.String())[1]
		for range 5 {
			if got := fetch(t, "http://127.0.0.1:"+port+"/"); got != "through\n" {
				t.Errorf("it serves %q", got)
			}
		}
	})
}

func fetch(t *testing.T, url string) string {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get(url)
	if err != nil {
		return err.Error()
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err.Error()
	}
	return string(body)
}

func copies(t *testing.T, s *space) {
	s.run("main", "containers:\n"+sleeper("main", ""))
	dir := t.TempDir()
	data := make([]byte, 3<<20)
	_, _ = rand.Read(data)
	if err := os.WriteFile(filepath.Join(dir, "there"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	s.calmly(func() {
		s.must("cp", filepath.Join(dir, "there"), "main:/tmp/there")
		s.must("cp", "main:/tmp/there", filepath.Join(dir, "back"))
	})
	if back, err := os.ReadFile(filepath.Join(dir, "back")); err != nil || !bytes.Equal(back, data) {
		t.Errorf("of %d bytes %d came back (%v)", len(data), len(back), err)
	}
}

// debug starts an ephemeral container that sees the processes of another container. A kubelet starts one once and never again, so crid is left
// alone meanwhile.
func debug(t *testing.T, s *space) {
	before := s.run("main", "containers:\n"+script("main", "exec sleep 12345", "")+"\n"+sleeper("other", ""))
	s.calmly(func() {
		s.must("debug", "main", "--image="+busybox, "--target=main", "-c", "tools", "--profile=general", "--", "sh", "-c", "sleep 3600")
		s.until("main", "with tools", func(p *pod) error {
			if p.container("tools").State.Running == nil {
				return errorf("%+v", p.container("tools"))
			}
			return nil
		})
	})
	if got := s.sh("main", "tools", "ps -o pid,args"); !regexp.MustCompile(`(?m)^ +1 sleep 12345$`).MatchString(got) {
		t.Errorf("from the ephemeral container one sees\n%s", got)
	}
	if got := s.sh("main", "tools", "ls /proc/1/root/etc/hostname && cat /proc/1/root/etc/hostname"); !strings.Contains(got, "main") {
		t.Errorf("the target's file system: %q", got)
	}
	s.unchanged(before)
}
