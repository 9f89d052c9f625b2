package stdio_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	oci "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/crid-project/crid/container/stdio"
	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/conformance"
)

// realContainer runs a container on the real shim that has this machine's own programs, so that there is a shell.
func realContainer(t *testing.T, change func(*shimclient.Create), args ...string) shimclient.Tasks {
	t.Helper()
	w := conformance.NewReal(t)
	s := w.Launch(t, "pod1")
	c := w.Container(t, "pod1", "app", args...)
	config := filepath.Join(c.Bundle, "config.json")
	var spec oci.Spec
	b, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &spec); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"/bin", "/usr", "/lib", "/lib64"} {
		if _, err := os.Stat(dir); err == nil {
			spec.Mounts = append(spec.Mounts, oci.Mount{Destination: dir, Type: "bind", Source: dir, Options: []string{"rbind", "ro"}})
		}
	}
	if b, err = json.Marshal(spec); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&c)
	}
	if _, err := s.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Start(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	return s
}

func shell(script string) *oci.Process {
	return &oci.Process{Args: []string{"/bin/sh", "-c", script}, Cwd: "/", Env: []string{"PATH=/usr/bin:/bin"}}
}

func TestExecOnTheRealShim(t *testing.T) {
	s := realContainer(t, nil, "sleep")
	dir := t.TempDir()
	big := strings.Repeat("0123456789abcdef", 20000)
	for name, c := range map[string]struct {
		script string
		stdin  string
		tty    bool
		code   int
		out    string
		err    string
		within time.Duration
	}{
		"both streams":     {script: "echo out; echo err >&2; exit 3", code: 3, out: "out\n", err: "err\n"},
		"stdin to its end": {script: "cat", stdin: big, out: big},
		"short stdin":      {script: "cat", stdin: "x", out: "x"},
		"killed":           {script: "kill -9 $$", code: 137},
		"much output":      {script: "head -c 3000000 /dev/zero | tr '\\0' y", out: strings.Repeat("y", 3000000)},
		"background child": {script: "echo on; sleep 30 & exit 4", code: 4, out: "on\n", within: 3 * time.Second},
		"terminal":         {script: "test -t 1 && echo tty", tty: true, out: "tty\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errOut stdio.Capped
			req := stdio.ExecRequest{TTY: c.tty, Stdout: &out, Stderr: &errOut}
			if c.stdin != "" {
				req.Stdin = strings.NewReader(c.stdin)
			}
			proc := shell(c.script)
			proc.Terminal = c.tty
			start := time.Now()
			code, err := stdio.Exec(t.Context(), s, "app", proc, dir, req)
			if err != nil || code != c.code || string(out.Bytes()) != c.out || string(errOut.Bytes()) != c.err {
				t.Errorf("got code %d, %d bytes %.40q, %q, %v", code, len(out.Bytes()), out.Bytes(), errOut.Bytes(), err)
			}
			if took := time.Since(start); c.within > 0 && took > c.within {
				t.Errorf("took %v", took)
			}
		})
	}
	t.Run("timeout", func(t *testing.T) {
		_, err := stdio.Exec(t.Context(), s, "app", shell("exec sleep 100"), dir, stdio.ExecRequest{Stdout: io.Discard, Stderr: io.Discard, Timeout: 300 * time.Millisecond})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		var out stdio.Capped
		_, _ = stdio.Exec(t.Context(), s, "app", shell("for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; echo; done"), dir, stdio.ExecRequest{Stdout: &out})
		if strings.Contains(string(out.Bytes()), "sleep 100\n") || strings.Contains(string(out.Bytes()), "sleep 100 ") {
			t.Errorf("the process lives on:\n%s", out.Bytes())
		}
	})
	t.Run("missing command", func(t *testing.T) {
		proc := shell("")
		proc.Args = []string{"/no/such/command"}
		if code, err := stdio.Exec(t.Context(), s, "app", proc, dir, stdio.ExecRequest{Stdout: io.Discard}); err == nil {
			t.Errorf("got code %d and no error", code)
		}
	})
	t.Run("resize", func(t *testing.T) {
		sizes := make(chan stdio.Size, 1)
		sizes <- stdio.Size{Width: 123, Height: 45}
		var out stdio.Capped
		proc := shell("for i in 1 2 3 4 5 6 7 8 9 10; do stty size; sleep 0.1; done")
		proc.Terminal = true
		if _, err := stdio.Exec(t.Context(), s, "app", proc, dir, stdio.ExecRequest{TTY: true, Stdout: &out, Resize: sizes}); err != nil || !strings.Contains(string(out.Bytes()), "45 123") {
			t.Errorf("got %q, %v", out.Bytes(), err)
		}
	})
	t.Run("storm", func(t *testing.T) {
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				var out stdio.Capped
				if code, err := stdio.Exec(t.Context(), s, "app", shell("cat; exit 5"), dir, stdio.ExecRequest{Stdin: strings.NewReader("in"), Stdout: &out}); code != 5 || err != nil || string(out.Bytes()) != "in" {
					t.Errorf("got %d, %q, %v", code, out.Bytes(), err)
				}
			})
		}
		wg.Wait()
	})
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		left, _ := os.ReadDir(dir)
		if len(left) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d directories left", len(left))
		}
	}
}

// stdin_once on the real shim: the client's end of input is the container's.
func TestAttachStdinOnceOnTheRealShim(t *testing.T) {
	dir := t.TempDir()
	in := stdio.NewStdin(filepath.Join(dir, "stdin"), true, false)
	if err := in.Make(); err != nil {
		t.Fatal(err)
	}
	s := realContainer(t, func(c *shimclient.Create) { c.Stdin = in.Path() }, "cat")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = s.Wait(context.Background(), "app")
	}()
	err := stdio.Attach(t.Context(), s, "app", silent(ended), in, stdio.AttachRequest{Stdin: strings.NewReader("all there is")})
	if err != nil {
		t.Error(err)
	}
}

// silent is an output that only ends.
type silent <-chan struct{}

func (s silent) Subscribe(io.Writer, io.Writer) (func(), <-chan struct{}) { return func() {}, s }
