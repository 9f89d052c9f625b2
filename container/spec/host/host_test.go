package host

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/crid-project/crid/container/plan"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestReadFileRefusesWhatIsNoBoundedFile(t *testing.T) {
	dir := t.TempDir()
	path := func(n string) string { return filepath.Join(dir, n) }
	if err := os.WriteFile(path("ok"), []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(path("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if raw, err := ReadFile(path("ok"), 5); err != nil || string(raw) != "12345" {
		t.Errorf("got %q, %v", raw, err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for name, want := range map[string]error{"fifo": errdefs.ErrInvalidArgument, ".": errdefs.ErrInvalidArgument, "none": errdefs.ErrNotFound} {
			if _, err := ReadFile(path(name), 5); !errors.Is(err, want) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := ReadFile(path("ok"), 4); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("too large: %v", err)
		}
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("a FIFO held the read up")
	}
}

func TestDevices(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/dev/null", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/dev/null", filepath.Join(dir, "link")} {
		got, err := Devices(path)
		if err != nil || len(got) != 1 || got[0].Path != path || got[0].Type != "c" || got[0].Major != 1 || got[0].Minor != 3 || *got[0].UID != 0 {
			t.Errorf("%s: got %+v, %v", path, got, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Devices(filepath.Join(dir, "file")); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("a file: %v, %v", got, err)
	}
	if got, err := Devices(filepath.Join(dir, "none")); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("nothing: %v, %v", got, err)
	}
	// The link in the directory is no device; links are how /dev names devices
	// a second time.
	if got, err := Devices(dir); err != nil || len(got) != 0 {
		t.Errorf("a directory: %v, %v", got, err)
	}
}

func TestHostDevices(t *testing.T) {
	got, err := HostDevices()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, d := range got {
		seen[d.Path] = true
		if strings.HasPrefix(d.Path, "/dev/pts/") || d.Path == "/dev/console" {
			t.Errorf("%s is a container's own", d.Path)
		}
	}
	if !seen["/dev/null"] || !seen["/dev/zero"] {
		t.Errorf("got %v", seen)
	}
}

func TestCDI(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("vendor.json", `{"cdiVersion":"0.6.0","kind":"vendor.com/gpu","devices":[{"name":"0","containerEdits":{"env":["GPU=0"],
		"deviceNodes":[{"path":"/dev/null"}]}}]}`)
	write("broken.json", `{`)
	inject := Options(plan.Kernel{}, dir).CDI
	s := &oci.Spec{Process: &oci.Process{}, Linux: &oci.Linux{}}
	if err := inject(s, []string{"vendor.com/gpu=0"}); err != nil {
		t.Fatal(err)
	}
	if len(s.Process.Env) != 1 || s.Process.Env[0] != "GPU=0" || len(s.Linux.Devices) != 1 || s.Linux.Devices[0].Path != "/dev/null" {
		t.Errorf("got %+v", s)
	}
	err := inject(s, []string{"vendor.com/gpu=1"})
	if !errors.Is(err, errdefs.ErrNotFound) || !strings.Contains(err.Error(), "vendor.com/gpu=1") || !strings.Contains(err.Error(), "could not be read") {
		t.Errorf("got %v", err)
	}
}

func TestOptionsFollowTheKernel(t *testing.T) {
	o := Options(plan.Kernel{})
	if o.SELinux != nil || o.AppArmor.Loaded != nil || o.HostDevices == nil {
		t.Errorf("got %+v", o)
	}
}
