package shimclient_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/shimclient"
	"github.com/crid-project/crid/shimclient/conformance"
)

// pipe makes a fifo with our end open, so that the shim need not wait.
func pipe(t *testing.T, name string) (string, *os.File) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return path, f
}

func read(t *testing.T, f *os.File, want string) {
	t.Helper()
	f.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, len(want))
	if n, err := io.ReadFull(f, buf); err != nil || string(buf) != want {
		t.Fatalf("read %q, %v; want %q", buf[:n], err, want)
	}
}

func TestOutputAndInputGoThroughFifos(t *testing.T) {
	w := conformance.NewReal(t)
	s := w.Launch(t, "pod1")
	c := w.Container(t, "pod1", "app", "cat")
	var in, out *os.File
	c.Stdin, in = pipe(t, "in")
	c.Stdout, out = pipe(t, "out")
	if _, err := s.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Start(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	io.WriteString(in, "through and back")
	read(t, out, "through and back")

	e := shimclient.ExecSpec{ID: "app", ExecID: "e1", Process: conformance.Process("echo", "hello")}
	var exec *os.File
	e.Stdout, exec = pipe(t, "exec")
	if err := s.Exec(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if _, err := s.StartExec(t.Context(), "app", "e1"); err != nil {
		t.Fatal(err)
	}
	read(t, exec, "hello\n")
	if exit, err := s.WaitExec(t.Context(), "app", "e1"); err != nil || exit.Code != 0 {
		t.Fatalf("%+v, %v", exit, err)
	}
	// The end of the input is the shim's to tell, for it holds the fifo open.
	if err := s.CloseStdin(t.Context(), "app", ""); err != nil {
		t.Fatal(err)
	}
	in.Close()
	if exit, err := s.Wait(t.Context(), "app"); err != nil || exit.Code != 0 {
		t.Fatalf("%+v, %v", exit, err)
	}
}

func TestTerminal(t *testing.T) {
	w := conformance.NewReal(t)
	s := w.Launch(t, "pod1")
	c := w.Container(t, "pod1", "app", "sleep")
	if _, err := s.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Start(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	process := conformance.Process("cat")
	process.Terminal = true
	e := shimclient.ExecSpec{ID: "app", ExecID: "tty", Terminal: true, Process: process}
	var in, out *os.File
	e.Stdin, in = pipe(t, "in")
	e.Stdout, out = pipe(t, "out")
	if err := s.Exec(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if _, err := s.StartExec(t.Context(), "app", "tty"); err != nil {
		t.Fatal(err)
	}
	if err := s.ResizePty(t.Context(), "app", "tty", 100, 40); err != nil {
		t.Fatal(err)
	}
	io.WriteString(in, "line\n")
	read(t, out, "line\r\nline\r\n") // the terminal's echo, and the answer
	io.WriteString(in, "\x04")
	if exit, err := s.WaitExec(t.Context(), "app", "tty"); err != nil || exit.Code != 0 {
		t.Fatalf("%+v, %v", exit, err)
	}
}

func TestShimMountsTheRootfs(t *testing.T) {
	w := conformance.NewReal(t)
	s := w.Launch(t, "pod1")
	c := w.Container(t, "pod1", "app", "sleep")
	lower := filepath.Join(t.TempDir(), "lower")
	if err := os.Rename(filepath.Join(c.Bundle, "rootfs"), lower); err != nil {
		// Another file system: a bind mount from the bundle's parent serves as well.
		lower = filepath.Join(filepath.Dir(c.Bundle), "lower")
		if err := os.Rename(filepath.Join(c.Bundle, "rootfs"), lower); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(c.Bundle, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	c.Rootfs = []shimclient.Mount{{Type: "bind", Source: lower, Options: []string{"rbind", "ro"}}}
	mounted := func() bool {
		b, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(b), c.Bundle+"/rootfs")
	}
	if _, err := s.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Start(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	if !mounted() {
		t.Fatal("not mounted")
	}
	if err := s.Kill(t.Context(), "app", 9, true); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Wait(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Delete(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	if mounted() {
		t.Fatal("still mounted after the delete")
	}
}
