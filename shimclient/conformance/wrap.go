package conformance

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/shimclient"
)

// built is the containers' program, once for all tests of a process.
var built = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "crid-task")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "task")
	build := exec.Command("go", "build", "-o", path, "github.com/crid-project/crid/shimclient/conformance/task")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	return os.ReadFile(path)
})

func (w *Real) hands() string { return filepath.Join(w.dir, "hands") }

// wrap puts a script in the place of the OCI runtime, that does first what the
// tests have laid down for the command under way.
func (w *Real) wrap(t testing.TB, runc string) {
	t.Helper()
	if err := os.Mkdir(w.hands(), 0o700); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\nRUNC=%s\nfor todo in %s/*.todo; do [ -e \"$todo\" ] && . \"$todo\"; done\nexec $RUNC \"$@\"\n", runc, w.hands())
	path := filepath.Join(w.hands(), "runc")
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	w.Runtime.Options["BinaryName"] = path
}

// once has a script run at the next command of a name for a container.
func (w *Real) once(t *testing.T, command, id, script string) {
	t.Helper()
	path := filepath.Join(w.hands(), command+"-"+id)
	script = fmt.Sprintf("case \" $* \" in *\" %s \"*\"%s \"*) rm \"$todo\"\n%s\n;; esac\n", command, id, script)
	if err := os.WriteFile(path, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".todo"); err != nil {
		t.Fatal(err)
	}
}

// Slow implements World.
func (w *Real) Slow(t *testing.T, command, id string, d time.Duration) {
	t.Helper()
	w.once(t, command, id, fmt.Sprintf("sleep %.3f", d.Seconds()))
}

// Orphan implements World.
func (w *Real) Orphan(t *testing.T, s shimclient.Tasks, c shimclient.Create) int {
	t.Helper()
	file := filepath.Join(c.Bundle, "init.pid")
	w.once(t, "create", c.ID, fmt.Sprintf("$RUNC \"$@\"; cp %s %s/orphan; exit 1", file, w.hands()))
	if pid, err := s.Create(t.Context(), c); err == nil {
		t.Fatalf("created as pid %d, by a command that failed", pid)
	}
	var pid int
	b, err := os.ReadFile(filepath.Join(w.hands(), "orphan"))
	if err == nil {
		_, err = fmt.Sscan(string(b), &pid)
	}
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// Jam implements World.
func (w *Real) Jam(t *testing.T, s shimclient.Tasks, id string) (release func()) {
	t.Helper()
	jam := filepath.Join(w.hands(), "jam-"+id)
	w.once(t, "kill", id, fmt.Sprintf("touch %s; while [ -e %s ]; do sleep 0.1; done", jam, jam))
	done := make(chan struct{})
	go func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = s.Kill(ctx, id, uint32(unix.SIGWINCH), false) // which no program heeds
	}()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(jam); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the runtime's command does not come")
		}
	}
	release = sync.OnceFunc(func() {
		os.Remove(jam)
		<-done
	})
	t.Cleanup(release)
	return release
}

// program is what the containers run.
func program(t testing.TB) []byte {
	t.Helper()
	b, err := built()
	if err != nil {
		t.Fatalf("build the containers' program: %v", err)
	}
	return b
}
